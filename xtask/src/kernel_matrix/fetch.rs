//! Kernels of the distribution: downloaded and unpacked, never installed.
//!
//! Newer suites come from the mirrors and keys that this machine is configured with, through a scratch state of apt that
//! leaves the system's own alone.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    console::{self, Step},
    process,
};

/// Suites beside the configured ones.
const SUITES: &str = "trixie-backports bullseye";
/// What the guest loads; all without dependencies on other modules.
pub(super) const MODULES: [&str; 3] = ["veth", "sch_ingress", "cls_bpf"];

/// Makes sure that these kernels are in the cache. Returns those that could not be had, and why.
pub(super) fn all(cache: &Path, versions: &[String]) -> Result<Vec<(String, String)>> {
    fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let mut missing = Vec::new();
    let mut scratch: Option<Result<Apt, String>> = None;
    for version in versions {
        let there = cache.join(version);
        if there.join("vmlinuz").is_file() {
            continue;
        }
        let step = Step::start(format!("fetching Linux {version}"));
        let mut fetched = one(&Apt::default(), cache, version);
        if fetched.is_err() {
            let apt =
                scratch.get_or_insert_with(|| Apt::scratch(cache).map_err(|e| format!("{e:#}")));
            fetched = match apt {
                Ok(apt) => one(apt, cache, version),
                Err(why) => Err(anyhow::anyhow!("{why}")),
            };
        }
        match fetched {
            Ok(package) => step.done_with(package),
            Err(error) => {
                console::note(format_args!("Linux {version}: {error:#}"));
                missing.push((version.clone(), format!("{error:#}")));
            }
        }
    }
    Ok(missing)
}

/// How apt is called.
#[derive(Default)]
struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// The configured sources with other suites in them.
    fn scratch(cache: &Path) -> Result<Self> {
        let dir = cache.join("apt");
        fs::create_dir_all(dir.join("lists").join("partial"))?;
        let list = dir.join("scratch.sources");
        fs::write(&list, sources()?)?;
        let options = [
            ("Dir::Etc::sourcelist", list),
            ("Dir::Etc::sourceparts", PathBuf::from("/dev/null")),
            ("Dir::State::Lists", dir.join("lists")),
            ("Dir::Cache::pkgcache", dir.join("pkgcache.bin")),
            ("Dir::Cache::srcpkgcache", dir.join("srcpkgcache.bin")),
        ]
        .into_iter()
        .flat_map(|(key, value)| ["-o".to_owned(), format!("{key}={}", value.display())])
        .collect();
        let apt = Self { options };
        process::output(&mut apt.command("apt-get", &["update", "-qq"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).args(arguments);
        command
    }

    /// Names of packages that match.
    fn search(&self, pattern: &str) -> Result<BTreeSet<String>> {
        let found = process::output(&mut self.command("apt-cache", &["pkgnames", "linux-"]))?;
        let (prefix, suffix) = pattern.split_once('*').unwrap_or((pattern, ""));
        Ok(found
            .lines()
            .filter(|name| name.starts_with(prefix) && name.ends_with(suffix))
            .map(str::to_owned)
            .collect())
    }
}

/// The stanzas of the distribution's own archive, in deb822 form, with the suites replaced.
fn sources() -> Result<String> {
    let mut texts = Vec::new();
    for dir in ["/etc/apt/sources.list.d"] {
        for entry in fs::read_dir(dir)
            .with_context(|| format!("cannot read {dir}"))?
            .flatten()
        {
            if entry.path().extension().is_some_and(|ext| ext == "sources") {
                texts.push(fs::read_to_string(entry.path())?);
            }
        }
    }
    let one_line = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    with_suites(&texts, &one_line).context(
        "no source of Debian's own archive is configured, so other suites cannot be had from it",
    )
}

/// Pure part of [`sources`]: stanzas of a Debian archive, other than the security one, with [`SUITES`] for theirs.
fn with_suites(deb822: &[String], one_line: &str) -> Option<String> {
    for stanza in deb822.iter().flat_map(|text| text.split("\n\n")) {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let debian =
            field("URIs:").is_some_and(|uri| uri.trim_end_matches('/').ends_with("/debian"));
        if debian && field("Suites:").is_some() {
            let lines = stanza.lines().map(|line| {
                if line.starts_with("Suites:") {
                    format!("Suites: {SUITES}")
                } else {
                    line.to_owned()
                }
            });
            return Some(lines.collect::<Vec<_>>().join("\n") + "\n");
        }
    }
    // `deb [options] uri suite components...` (sources.list(5)).
    let uri = one_line
        .lines()
        .filter(|line| line.starts_with("deb "))
        .find_map(|line| {
            line.split_whitespace()
                .find(|word| word.trim_end_matches('/').ends_with("/debian"))
        })?;
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    Some(format!(
        "Types: deb\nURIs: {uri}\nSuites: {SUITES}\nComponents: main\nSigned-By: {keys}\n"
    ))
}

/// Downloads and unpacks one kernel; returns what it is called.
fn one(apt: &Apt, cache: &Path, version: &str) -> Result<String> {
    // In older packages everything is in linux-image; from 6.19 on that is an empty shell beside these two.
    let image = newest(
        apt.search(&format!("linux-image-{version}.*-cloud-amd64"))?,
        version,
    );
    let binary = newest(
        apt.search(&format!("linux-binary-{version}.*-cloud-amd64"))?,
        version,
    );
    let packages = match (binary, image) {
        (Some(binary), _) => {
            let modules = binary.replacen("linux-binary-", "linux-modules-", 1);
            vec![binary, modules]
        }
        (None, Some(image)) => vec![image],
        (None, None) => bail!("not found in the suite: no linux-image-{version}.*-cloud-amd64"),
    };
    let dir = cache.join(format!("{version}.new"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("root"))?;
    let names: Vec<&str> = packages.iter().map(String::as_str).collect();
    let mut download = apt.command("apt-get", &[&["download", "-qq"], &names[..]].concat());
    process::output(download.current_dir(&dir))?;
    for entry in fs::read_dir(&dir)?.flatten() {
        if entry.path().extension().is_some_and(|ext| ext == "deb") {
            process::output(
                Command::new("dpkg")
                    .arg("-x")
                    .arg(entry.path())
                    .arg(dir.join("root")),
            )?;
            fs::remove_file(entry.path())?;
        }
    }
    keep(&dir)?;
    fs::remove_dir_all(dir.join("root"))?;
    let there = cache.join(version);
    let _ = fs::remove_dir_all(&there);
    fs::rename(&dir, &there)?;
    Ok(names.join(" "))
}

/// Of names such as `linux-image-6.1.0-56-cloud-amd64` the one with the largest numbers.
fn newest(names: BTreeSet<String>, version: &str) -> Option<String> {
    let key = |name: &String| -> Vec<u32> {
        name.split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse().ok())
            .collect()
    };
    let wanted: Vec<u32> = version.split('.').filter_map(|n| n.parse().ok()).collect();
    names
        .into_iter()
        .filter(|name| key(name).starts_with(&wanted))
        .max_by_key(key)
}

/// Moves what a boot needs out of an unpacked tree.
fn keep(dir: &Path) -> Result<()> {
    let mut left = vec![dir.join("root")];
    let mut found = BTreeSet::new();
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder)?.flatten() {
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                left.push(path);
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            let module = MODULES
                .iter()
                .find(|module| name == format!("{module}.ko") || name == format!("{module}.ko.xz"));
            if name == "vmlinuz" || name.starts_with("vmlinuz-") {
                fs::copy(&path, dir.join("vmlinuz"))?;
            } else if name == "config" || name.starts_with("config-") {
                fs::copy(&path, dir.join("config"))?;
            } else if let Some(module) = module {
                let to = dir.join(&name);
                fs::copy(&path, &to)?;
                if name.ends_with(".xz") {
                    process::output(Command::new("xz").args(["-d", "-f"]).arg(&to))?;
                }
                found.insert(*module);
            }
        }
    }
    if !dir.join("vmlinuz").is_file() {
        bail!("the package has no vmlinuz in it");
    }
    if let Some(module) = MODULES.iter().find(|module| !found.contains(*module)) {
        bail!("the package has no {module}.ko in it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_suites_come_from_the_configured_archive() {
        let ours = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main";
        let security =
            "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security";
        let text = format!("{security}\n\n{ours}\n");
        let made = with_suites(&[text], "").expect("a stanza");
        assert!(made.contains("http://mirror.example/debian\n"), "{made}");
        assert!(
            made.contains(&format!("Suites: {SUITES}")) && !made.contains("bookworm"),
            "{made}"
        );
        let made = with_suites(
            &[],
            "deb [arch=amd64] http://mirror.example/debian bookworm main\n",
        );
        assert!(
            made.expect("a line")
                .contains("URIs: http://mirror.example/debian\n")
        );
        assert_eq!(with_suites(&[security.to_owned()], ""), None);
    }

    #[test]
    fn the_newest_build_of_exactly_this_version_is_taken() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
        ];
        let all: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(newest(all.clone(), "6.1").as_deref(), Some(names[1]));
        assert_eq!(newest(all.clone(), "6.12").as_deref(), Some(names[2]));
        assert_eq!(newest(all, "5.15"), None);
    }
}
