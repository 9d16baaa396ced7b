//! How an API server is reached: what the command line says, and the kubeconfig behind it.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use super::{Error, vetting};
use crate::{manifest::ClusterId, problem::shown};

/// Largest kubeconfig, and largest file it names, in bytes.
pub(super) const FILE_BYTES: usize = 1 << 20;

/// Where the address and the credentials of an API server come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Access {
    /// The service account of the pod that the agent runs in. Its token is read again every minute.
    InCluster,
    /// A kubeconfig of this node.
    ///
    /// It is the operator's: it may name files, and may run a credential plugin (`exec`) with the agent's rights.
    File {
        /// The kubeconfig.
        path: PathBuf,
        /// One of its contexts; `None` for its `current-context`.
        context: Option<String>,
    },
    /// A kubeconfig out of a Secret of the fleet. It may neither name files nor run anything.
    Bytes(Arc<[u8]>),
}

impl Access {
    /// Reads the value of a flag: `in-cluster`, `FILE`, or `FILE#CONTEXT`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text == "in-cluster" {
            return Ok(Self::InCluster);
        }
        let (path, context) = match text.rsplit_once('#') {
            Some((path, context)) => (path, Some(context.to_owned())),
            None => (text, None),
        };
        if path.is_empty() || context.as_ref().is_some_and(String::is_empty) {
            return Err(Error::Flag {
                value: text.to_owned(),
                wanted: "`in-cluster`, or the path of a kubeconfig, with `#CONTEXT` for another than its current context",
            });
        }
        Ok(Self::File {
            path: path.into(),
            context,
        })
    }

    /// The configuration of a client; `Err` is a sentence that says what to do.
    pub fn config(&self) -> Result<Config, String> {
        self.load()
            .map(|(config, _)| config)
            .map_err(|fault| fault.to_string())
    }

    /// The configuration, and a print of all bytes it was made of: the same print is the same configuration.
    pub(super) fn load(&self) -> Result<(Config, u64), Fault> {
        match self {
            Self::InCluster => {
                let config = Config::incluster().map_err(|error| Fault {
                    field: "in-cluster".to_owned(),
                    message: format!(
                        "the service account of the pod cannot be used: {}",
                        chain(&error)
                    ),
                    remedy: "run in a pod with a service account token, or name a kubeconfig",
                })?;
                let print = print([config.cluster_url.to_string().as_bytes()]);
                Ok((config, print))
            }
            Self::File { path, context } => file(path, context.as_deref()),
            Self::Bytes(bytes) => {
                let kubeconfig = vetting::read(bytes)?;
                Ok((configure(kubeconfig, None)?, print([&**bytes])))
            }
        }
    }
}

/// Reads the value of a flag: `ID=KUBECONFIG`.
pub fn parse_cluster(text: &str) -> Result<(ClusterId, Access), Error> {
    let Some((id, access)) = text.split_once('=') else {
        return Err(Error::Flag {
            value: text.to_owned(),
            wanted: "the ID of the cluster and its kubeconfig, as `ID=KUBECONFIG`",
        });
    };
    let id = cluster_id(id).ok_or_else(|| Error::Flag {
        value: text.to_owned(),
        wanted: "a cluster ID of 1 to 63 letters, digits, `-`, `_` and `.`, other than `fleet`",
    })?;
    Ok((id, Access::parse(access)?))
}

/// A cluster ID, by the rules for folders of a manifest directory. `fleet` is what the fleet itself is called.
pub(super) fn cluster_id(text: &str) -> Option<ClusterId> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let valid = (1..=63).contains(&text.len()) && text.bytes().all(letter) && text != super::FLEET;
    valid.then(|| ClusterId(text.into()))
}

/// Why a kubeconfig cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    /// The field of the kubeconfig, or the file.
    pub(super) field: String,
    /// One sentence without its end.
    pub(super) message: String,
    /// What to do.
    pub(super) remedy: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.message, self.remedy)
    }
}

fn file(path: &Path, context: Option<&str>) -> Result<(Config, u64), Fault> {
    let unreadable = |message: String| Fault {
        field: path.display().to_string(),
        message,
        remedy: "make it a readable kubeconfig; it is tried again by itself",
    };
    let bytes = bounded(path)
        .map_err(|error| unreadable(format!("the kubeconfig cannot be read: {error}")))?;
    let kubeconfig = Kubeconfig::read_from(path)
        .map_err(|error| unreadable(format!("the kubeconfig cannot be used: {}", chain(&error))))?;
    // Certificates are renewed under the same name, so what they hold counts. Tokens are read again by the client.
    let mut parts = vec![bytes];
    for path in vetting::certificate_files(&kubeconfig) {
        parts.push(bounded(Path::new(path)).unwrap_or_default());
    }
    let print = print(parts.iter().map(|part| &**part));
    Ok((configure(kubeconfig, context)?, print))
}

fn configure(kubeconfig: Kubeconfig, context: Option<&str>) -> Result<Config, Fault> {
    if let Some(proxied) = vetting::proxied(&kubeconfig) {
        return Err(proxied);
    }
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    let config =
        futures_util::FutureExt::now_or_never(Config::from_custom_kubeconfig(kubeconfig, &options));
    let failed = |message| Fault {
        field: "contexts".to_owned(),
        message,
        remedy: "name a context whose cluster and user are in the same kubeconfig",
    };
    // The library's function is asynchronous by its signature only.
    let config =
        config.ok_or_else(|| failed("the kubeconfig could not be read at once".to_owned()))?;
    config.map_err(|error| failed(format!("the kubeconfig cannot be used: {}", chain(&error))))
}

fn bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(FILE_BYTES).unwrap_or(u64::MAX);
    std::fs::File::open(path)?
        .take(most + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > FILE_BYTES {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

fn print<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        part.hash(&mut hasher);
    }
    hasher.finish()
}

/// An error with its causes, in one bounded line without repetitions.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    for _ in 0..8 {
        let Some(error) = cause else { break };
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    sentence(&line)
}

/// Somebody's text as one bounded line.
pub(super) fn sentence(text: &str) -> String {
    const CHARS: usize = 240;
    let mut line: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(CHARS)
        .collect();
    if text.chars().nth(CHARS).is_some() {
        line.push_str("...");
    }
    line
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InCluster => f.write_str("in-cluster"),
            Self::File { path, context } => {
                write!(f, "{}", path.display())?;
                match context {
                    Some(context) => write!(f, " (context {})", shown(context)),
                    None => Ok(()),
                }
            }
            Self::Bytes(_) => f.write_str("a Secret of the fleet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_names_the_pod_a_file_or_a_context_of_a_file() {
        let file = |path: &str, context: Option<&str>| Access::File {
            path: path.into(),
            context: context.map(str::to_owned),
        };
        assert_eq!(Access::parse("in-cluster"), Ok(Access::InCluster));
        assert_eq!(Access::parse("/a/b"), Ok(file("/a/b", None)));
        assert_eq!(Access::parse("/a#b"), Ok(file("/a", Some("b"))));
        for wrong in ["", "#b", "/a#"] {
            assert!(Access::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cluster_flag_is_an_id_and_a_kubeconfig() {
        let (id, access) = parse_cluster("c-1.eu_a=/k=x").unwrap();
        assert_eq!(id, ClusterId("c-1.eu_a".into()));
        assert_eq!(access, Access::parse("/k=x").unwrap());
        let long = format!("{}=/k", "a".repeat(64));
        for wrong in ["/k", "=/k", "c1=", "a/b=/k", "fleet=/k", "\u{fc}=/k", &long] {
            assert!(parse_cluster(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_a_fault_that_names_it() {
        let fault = Access::parse("/nowhere/kubeconfig")
            .unwrap()
            .load()
            .unwrap_err();
        assert_eq!(fault.field, "/nowhere/kubeconfig");
        assert!(
            fault.message.starts_with("the kubeconfig cannot be read"),
            "{fault}"
        );
    }

    #[test]
    fn a_renewed_certificate_under_the_same_name_changes_the_print() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let text = "{current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}], \
            clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}], \
            users: [{name: a, user: {client-certificate: cert.pem, client-key: key.pem}}]}";
        std::fs::write(&path, text).unwrap();
        std::fs::write(folder.path().join("cert.pem"), "one").unwrap();
        let access = Access::parse(path.to_str().unwrap()).unwrap();
        let (_, first) = access.load().unwrap();
        assert_eq!(access.load().unwrap().1, first);
        std::fs::write(folder.path().join("cert.pem"), "two").unwrap();
        assert_ne!(access.load().unwrap().1, first);
    }
}
