//! Every folder of `golden/` compiles to its `expected.txt`. `UPDATE_GOLDEN=1` rewrites; review the difference like code.

use std::{fs, path::Path};

use fleetgate_tests::render;
use gateway_user::check::check;

#[test]
fn every_golden_case_compiles_to_its_expected_text() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut cases: Vec<_> = fs::read_dir(&root)
        .expect("golden/")
        .map(|entry| entry.expect("entry").path())
        .collect();
    cases.sort();
    assert!(
        cases.len() >= 25,
        "{} golden cases are too few to mean anything",
        cases.len()
    );
    let mut wrong = Vec::new();
    for case in &cases {
        let text = render::report(&check(case));
        let expected = case.join("expected.txt");
        if update {
            fs::write(&expected, &text).expect("write expected.txt");
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", case.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} cases differ from expected.txt, now:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
