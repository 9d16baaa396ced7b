//! curl in the client's namespace, whatever host it asks: each leads to the VIP.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::{lab::topology::CLIENT, netns};

use super::VIP;

/// How a run of curl ended: the last answer, and the body of all.
#[derive(Clone, Debug)]
pub struct Got {
    /// curl's exit code; 0 is success.
    pub code: i32,
    /// Status code; 0 without an answer.
    pub status: u16,
    /// `1.1`, `2` ...
    pub version: String,
    /// Header fields of the last answer, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Bodies, one behind the other.
    pub body: Vec<u8>,
    /// The URL that was fetched last.
    pub url: String,
    /// How many redirects it followed.
    pub redirects: u64,
    /// How many connections the last transfer opened.
    pub connects: u64,
    /// curl's own words.
    pub words: String,
}

impl Got {
    /// A body of JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {self:?}"))
    }

    /// Each of the bodies of JSON.
    pub fn all(&self) -> Result<Vec<Value>> {
        let bodies = serde_json::Deserializer::from_slice(&self.body).into_iter();
        let bodies: Result<Vec<Value>, _> = bodies.collect();
        bodies.with_context(|| format!("no JSON: {self:?}"))
    }

    /// Value of a field that the pod got, as it tells in its answer; `None` if there was none.
    pub fn field(&self, name: &str) -> Result<Option<String>> {
        let body = self.json()?;
        let fields = body["headers"].as_array().context("no headers told")?;
        let found = fields.iter().find(|pair| {
            pair[0]
                .as_str()
                .is_some_and(|it| it.eq_ignore_ascii_case(name))
        });
        Ok(found.and_then(|pair| pair[1].as_str().map(str::to_owned)))
    }
}

/// One run with these arguments.
///
/// # Errors
/// If curl cannot be run. What it could not do is told by [`Got::code`].
pub fn curl(arguments: &[&str]) -> Result<Got> {
    let folder = tempfile::tempdir()?;
    let heads = folder.path().join("heads");
    let out = netns::command(CLIENT, "curl")
        // `--disable`, no configuration of whoever runs the tests, counts as the first argument only.
        .args(["--disable", "--silent", "--show-error"])
        .args(["--noproxy", "*", "--max-time", "20"])
        .args(["--connect-to", &format!("::{VIP}:")])
        .arg("--dump-header")
        .arg(&heads)
        .args(["--write-out", "%{stderr}%{json}\n"])
        .args(arguments)
        .output()
        .context("cannot run curl; cargo xtask setup installs it")?;
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    let last = words.lines().rev().find(|line| line.starts_with('{'));
    ensure!(last.is_some(), "curl {arguments:?} said {words:?}");
    let told: Value = serde_json::from_str(last.unwrap_or_default())?;
    let heads = fs::read_to_string(heads).unwrap_or_default();
    let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| told[key].as_u64().unwrap_or_default();
    Ok(Got {
        code: out.status.code().unwrap_or(-1),
        status: number("http_code").try_into().unwrap_or_default(),
        version: text("http_version"),
        headers: last_head(&heads),
        body: out.stdout,
        url: text("url_effective"),
        redirects: number("num_redirects"),
        connects: number("num_connects"),
        words: words
            .lines()
            .filter(|line| !line.starts_with('{'))
            .collect(),
    })
}

/// Fields of the last of several heads.
fn last_head(heads: &str) -> BTreeMap<String, String> {
    let last = heads.trim_end().rsplit("\r\n\r\n").next();
    let fields = last.unwrap_or_default().lines().skip(1);
    fields
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect()
}
