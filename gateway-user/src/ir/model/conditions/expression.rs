//! Regular expressions whose cost is bounded.

use std::{fmt, sync::OnceLock};

use regex_syntax::ast::{self, Ast};
use serde::{Deserialize, Serialize};

/// A regular expression of the linear-time kind (crate `regex`), searched unanchored.
///
/// Classes such as `\w` and `.` are those of ASCII bytes: hosts and paths are ASCII, and Unicode classes make an
/// expression a hundred times dearer. Compiled at its first use; what is built by the routing model was checked before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Regex {
    /// As written.
    pub text: String,
    /// Letters match in either case.
    pub ignore_case: bool,
    #[serde(skip)]
    compiled: OnceLock<Option<regex::bytes::Regex>>,
}

impl Regex {
    /// Most memory that one compiled expression takes, in bytes: about 2000 states, each of which may cost a step for
    /// each byte of a path.
    const MEMORY_BYTES: usize = 1 << 16;
    /// Most memory of its lazily built automaton, in bytes, per thread that searches.
    const CACHE_BYTES: usize = 1 << 18;
    /// Deepest nesting of groups and repetitions.
    const NESTING: u32 = 32;

    /// Checks and compiles; `Err` is one line that says why not.
    pub fn new(text: &str, ignore_case: bool) -> Result<Self, String> {
        if Self::asks_for_unicode(text) {
            return Err("the flag u (Unicode classes) is not allowed".to_owned());
        }
        match Self::compile(text, ignore_case) {
            Ok(compiled) => Ok(Self {
                text: text.to_owned(),
                ignore_case,
                compiled: OnceLock::from(Some(compiled)),
            }),
            Err(regex::Error::CompiledTooBig(_)) => {
                Err("it takes more memory than one expression may".to_owned())
            }
            Err(error) => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or("unreadable");
                Err(last.strip_prefix("error: ").unwrap_or(last).to_owned())
            }
        }
    }

    /// Whether it is found anywhere in `text`.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex()
            .is_some_and(|regex| regex.is_match(text.as_bytes()))
    }

    /// The compiled expression; `None` for one that cannot be compiled, which matches nothing.
    pub fn regex(&self) -> Option<&regex::bytes::Regex> {
        let compiled = || Self::compile(&self.text, self.ignore_case).ok();
        self.compiled.get_or_init(compiled).as_ref()
    }

    fn compile(text: &str, ignore_case: bool) -> Result<regex::bytes::Regex, regex::Error> {
        regex::bytes::RegexBuilder::new(text)
            .case_insensitive(ignore_case)
            .unicode(false)
            .size_limit(Self::MEMORY_BYTES)
            .dfa_size_limit(Self::CACHE_BYTES)
            .nest_limit(Self::NESTING)
            .build()
    }

    /// `(?u)` turns on again what makes compiling dear: 80 times `\pL` without regard to case take 200 ms. What cannot be
    /// parsed asks for nothing here; compiling says why.
    fn asks_for_unicode(text: &str) -> bool {
        let parser = ast::parse::ParserBuilder::new()
            .nest_limit(Self::NESTING)
            .build()
            .parse(text);
        parser.is_ok_and(|parsed| ast::visit(&parsed, UnicodeFlag).is_err())
    }
}

/// Stops with an error at the first flag `u`.
struct UnicodeFlag;

impl ast::Visitor for UnicodeFlag {
    type Output = ();
    type Err = ();

    fn finish(self) -> Result<(), ()> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), ()> {
        let flags = match ast {
            Ast::Flags(set) => Some(&set.flags),
            Ast::Group(group) => group.flags(),
            _ => None,
        };
        match flags.and_then(|flags| flags.flag_state(ast::Flag::Unicode)) {
            Some(true) => Err(()),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.ignore_case { "~*" } else { "~" };
        write!(f, "{mark}{}", self.text)
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, self.ignore_case) == (&other.text, other.ignore_case)
    }
}

impl Eq for Regex {}

impl std::hash::Hash for Regex {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.text, self.ignore_case).hash(state);
    }
}

impl Ord for Regex {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.text, self.ignore_case).cmp(&(&other.text, other.ignore_case))
    }
}

impl PartialOrd for Regex {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
