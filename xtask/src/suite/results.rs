//! What `cargo test` prints, read: results by test program.

/// Results of one test program, or of several.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that were left out.
    pub ignored: u64,
}

/// Results of one run of `cargo test`, built line by line from its output, stderr and stdout in one stream.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Test program, without the hash that cargo appends, and its results; in the order they ran.
    programs: Vec<(String, Counts)>,
}

impl Results {
    /// Takes one line: the begin of a program or its result; all others say nothing.
    pub fn read(&mut self, line: &str) {
        if let Some(name) = begun(line) {
            self.programs.push((name.to_owned(), Counts::default()));
        } else if let Some(counts) = result(line) {
            match self.programs.last_mut() {
                Some((_, program)) => program.add(counts),
                None => self.programs.push((String::new(), counts)),
            }
        }
    }

    /// The sum over all programs.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.programs
            .iter()
            .for_each(|(_, counts)| total.add(*counts));
        total
    }

    /// Those of these programs in which no test passed, or which did not run at all.
    pub fn without_a_pass<'a>(&self, wanted: &'a [String]) -> Vec<&'a str> {
        let passed = |wanted: &str| {
            self.programs
                .iter()
                .any(|(name, counts)| name == wanted && counts.passed > 0)
        };
        wanted
            .iter()
            .map(String::as_str)
            .filter(|name| !passed(name))
            .collect()
    }

    /// Programs that left tests out, and how many.
    pub fn ignoring(&self) -> impl Iterator<Item = (&str, u64)> {
        self.programs
            .iter()
            .filter(|(_, counts)| counts.ignored > 0)
            .map(|(name, counts)| (name.as_str(), counts.ignored))
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// Cargo's `     Running tests/laws.rs (target/debug/deps/laws-0123456789abcdef)` or `   Doc-tests xtask`.
fn begun(line: &str) -> Option<&str> {
    let line = line.trim();
    if line.starts_with("Doc-tests ") {
        return Some(line);
    }
    let (_, program) = line
        .strip_prefix("Running ")?
        .strip_suffix(')')?
        .rsplit_once('(')?;
    let (name, hash) = program.rsplit('/').next()?.rsplit_once('-')?;
    // A test may print a line that begins alike.
    (hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit())).then_some(name)
}

/// A line such as `test result: ok. 13 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; ...`.
fn result(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |label: &str| {
        rest.split([';', '.'])
            .find_map(|part| part.trim().strip_suffix(label)?.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    Some(Counts {
        passed: number("passed"),
        failed: number("failed"),
        ignored: number("ignored"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
   Compiling fleetgate-tests v0.1.0 (/somewhere/tests)
     Running unittests src/lib.rs (target/debug/deps/fleetgate_tests-00aa11bb22cc33dd)

running 0 tests

test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/e2e/main.rs (target/debug/deps/e2e-c0ffee00c0ffee00)
test something::passed ... ok
Running late (really)
test result: FAILED. 13 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.06s

     Running tests/laws_kernel.rs (/elsewhere/deps/laws_kernel-0123456789abcdef)
test result: ok. 0 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.06s
   Doc-tests xtask
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.06s
";

    fn results() -> Results {
        let mut results = Results::default();
        OUTPUT.lines().for_each(|line| results.read(line));
        results
    }

    #[test]
    fn results_are_summed_over_all_test_programs() {
        let expected = Counts {
            passed: 14,
            failed: 4,
            ignored: 2,
        };
        assert_eq!(results().total(), expected);
    }

    #[test]
    fn a_program_that_passed_nothing_or_did_not_run_is_named() {
        let wanted = ["e2e", "laws_kernel", "share_kernel"].map(String::from);
        assert_eq!(
            results().without_a_pass(&wanted),
            ["laws_kernel", "share_kernel"]
        );
    }

    #[test]
    fn ignored_tests_are_found_in_their_program() {
        assert_eq!(
            results().ignoring().collect::<Vec<_>>(),
            [("laws_kernel", 2)]
        );
    }
}
