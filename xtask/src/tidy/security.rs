//! The table of known weaknesses names tests, and they are there.

#[test]
fn every_weakness_has_the_test_it_names() {
    let root = crate::root();
    let table = std::fs::read_to_string(root.join("docs/security.md")).expect("the table");
    let tests = std::fs::read_to_string(root.join("crates/director/src/policy/tests.rs")).expect("the tests");
    let mut rows = 0;
    for row in table.lines().filter(|line| line.starts_with("| ") && line.contains("`policy::")) {
        let name = row.split("`policy::").nth(1).and_then(|rest| rest.split('`').next()).expect("a name in backticks");
        assert!(tests.contains(&format!("fn {name}(")), "docs/security.md names the test {name}, which is not there");
        rows += 1;
    }
    assert!(rows >= 15, "{rows} rows name a test");
}
