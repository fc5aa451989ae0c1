//! The list of failpoints in `node/docs/failpoints.md` is the list in the code.

use std::collections::BTreeSet;

/// Names passed to `hit("…")` in a source file.
pub(crate) fn in_code(text: &str) -> Vec<String> {
    let calls = text.split("hit(\"").skip(1);
    calls
        .filter_map(|rest| rest.split_once('"'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Names in the first column of the table of points.
pub(crate) fn in_document(text: &str) -> BTreeSet<String> {
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| point |"));
    rows.filter_map(|row| row.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// What is in one list only.
pub(crate) fn differences(code: &BTreeSet<String>, document: &BTreeSet<String>) -> Vec<String> {
    let undocumented = code
        .difference(document)
        .map(|name| format!("  {name}: not in node/docs/failpoints.md"));
    let invented = document
        .difference(code)
        .map(|name| format!("  {name}: not in the code"));
    undocumented.chain(invented).collect()
}

#[test]
fn self_test() {
    let code = "failpoints::hit(\"a_b\")?; self.hit(\"c\")?; hit(name)";
    assert_eq!(in_code(code), ["a_b", "c"]);
    let document = "| `no` | x |\n| point | where |\n|---|---|\n| `a_b` | x |\n| `d` | y |\n";
    let (code, document) = (in_code(code).into_iter().collect(), in_document(document));
    assert_eq!(differences(&code, &document).len(), 2);
}
