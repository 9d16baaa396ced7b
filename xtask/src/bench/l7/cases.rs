//! What is asked of every contender.

/// Which of a contender's listeners is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Front {
    /// HTTP, one rule.
    Plain,
    /// HTTP, [`RULES`] rules.
    Rules,
    /// HTTPS, one rule.
    Tls,
}

/// How it is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Load {
    /// HTTP/1.1, connections stay.
    KeepAlive,
    /// HTTP/1.1, the client asks for the end of the connection with each request.
    Close,
    /// HTTP/2 with streams side by side.
    H2,
}

/// One case of load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// As in `--only`.
    pub(super) name: &'static str,
    /// For people.
    pub(super) about: &'static str,
    /// Who is asked.
    pub(super) front: Front,
    /// How.
    pub(super) load: Load,
    /// File at the origin.
    pub(super) file: &'static str,
}

/// Rules of [`Front::Rules`]: path prefixes `/r0001/` and so on.
pub(super) const RULES: u16 = 1000;
/// The rule that requests meet, in the last quarter.
pub(super) const MET: u16 = 876;
const _: () = assert!(MET > RULES / 4 * 3 && MET <= RULES);
/// Files at the origin and their bytes.
pub(super) const FILES: [(&str, usize); 3] = [("33", 33), ("16k", 16 << 10), ("128k", 128 << 10)];

/// All cases of load.
pub(super) const CASES: [Case; 8] = [
    case(
        "h1-33",
        "HTTP/1.1 keep-alive, 33 B, 1 rule",
        Front::Plain,
        Load::KeepAlive,
        "33",
    ),
    case(
        "h1-33-rules",
        "HTTP/1.1 keep-alive, 33 B, 1000 rules",
        Front::Rules,
        Load::KeepAlive,
        "33",
    ),
    case(
        "h1-16k",
        "HTTP/1.1 keep-alive, 16 KiB, 1 rule",
        Front::Plain,
        Load::KeepAlive,
        "16k",
    ),
    case(
        "h1-16k-rules",
        "HTTP/1.1 keep-alive, 16 KiB, 1000 rules",
        Front::Rules,
        Load::KeepAlive,
        "16k",
    ),
    case(
        "h1-128k",
        "HTTP/1.1 keep-alive, 128 KiB, 1 rule",
        Front::Plain,
        Load::KeepAlive,
        "128k",
    ),
    case(
        "close-33",
        "HTTP/1.1, a connection for each request, 33 B",
        Front::Plain,
        Load::Close,
        "33",
    ),
    case(
        "tls-33",
        "HTTP/1.1 over TLS, keep-alive, 33 B",
        Front::Tls,
        Load::KeepAlive,
        "33",
    ),
    case("h2-33", "HTTP/2 over TLS, 33 B", Front::Tls, Load::H2, "33"),
];

/// Cases of memory: name, what is held, who is asked.
pub(super) const IDLE: [(&str, &str, Front); 2] = [
    ("idle", "plain connections", Front::Plain),
    ("idle-tls", "TLS connections", Front::Tls),
];

/// Names that `--only` takes.
pub(super) const NAMES: [&str; 10] = [
    "h1-33",
    "h1-33-rules",
    "h1-16k",
    "h1-16k-rules",
    "h1-128k",
    "close-33",
    "tls-33",
    "h2-33",
    "idle",
    "idle-tls",
];

const fn case(
    name: &'static str,
    about: &'static str,
    front: Front,
    load: Load,
    file: &'static str,
) -> Case {
    Case {
        name,
        about,
        front,
        load,
        file,
    }
}

impl Case {
    /// What is asked for.
    pub(super) fn path(&self) -> String {
        match self.front {
            Front::Rules => format!("/{}/{}", rule(MET), self.file),
            Front::Plain | Front::Tls => format!("/{}", self.file),
        }
    }
}

/// First segment of the path of a rule, from 1.
pub(super) fn rule(number: u16) -> String {
    format!("r{number:04}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_can_be_asked_for_by_name() {
        let all = CASES
            .iter()
            .map(|case| case.name)
            .chain(IDLE.map(|(name, ..)| name));
        assert!(all.eq(NAMES));
    }
}
