//! `node/docs/reliability.md`: every row of the list of faults is there once, and names tests that exist, or says why none.

use std::collections::{BTreeSet, VecDeque};

use crate::behaviours::Known;

/// The rows that the table answers for; the others are in `behaviours.md`.
pub(crate) fn wanted() -> VecDeque<String> {
    (1..=85).map(|number| format!("F-{number:02}")).collect()
}

/// What the table may name.
pub(crate) struct Tests {
    pub(crate) known: Known,
    /// Kinds of faults of the chaos run, as its options name them.
    pub(crate) kinds: BTreeSet<String>,
}

/// The variants of `enum Kind`, in lower case.
pub(crate) fn kinds(nemesis: &str) -> BTreeSet<String> {
    let after = nemesis
        .split_once("enum Kind {")
        .map_or("", |(_, rest)| rest);
    let body = after.split_once('}').map_or("", |(body, _)| body);
    body.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
        .filter_map(|line| line.strip_suffix(','))
        .map(str::to_lowercase)
        .collect()
}

/// What is wrong with the table: `| row | what | tests | what is not shown |`.
pub(crate) fn violations(table: &str, tests: &Tests) -> Vec<String> {
    let mut violations = Vec::new();
    let mut wanted = wanted();
    for line in table.lines().filter(|line| line.starts_with("| F-")) {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').collect();
        let [id, what, named, rest] = cells.as_slice() else {
            violations.push(format!("  not four cells: {line}"));
            continue;
        };
        let (id, named, rest) = (id.trim(), named.trim(), rest.trim());
        match wanted.pop_front() {
            Some(next) if next == id => {}
            next => violations.push(format!("  {id}: here should be {next:?}")),
        }
        if what.trim().is_empty() {
            violations.push(format!("  {id}: without a title"));
        }
        if named.is_empty() && rest.is_empty() {
            violations.push(format!("  {id}: neither a test nor a reason"));
        }
        for test in named.split("; ").filter(|test| !test.is_empty()) {
            if !exists(test, tests) {
                violations.push(format!("  {id}: no such test: {test}"));
            }
        }
    }
    violations.extend(wanted.iter().map(|id| format!("  {id}: not in the table")));
    violations
}

fn exists(test: &str, tests: &Tests) -> bool {
    let quoted = |kind: &str| {
        let rest = test.strip_prefix(kind)?.strip_prefix('`')?;
        Some(rest.strip_suffix('`')?.to_owned())
    };
    let is_in = |kind: &str, names: &BTreeSet<String>| {
        quoted(kind).is_some_and(|name| names.contains(&name))
    };
    is_in("scenario ", &tests.known.scenarios)
        || is_in("test ", &tests.known.functions)
        || is_in("row ", &tests.known.rows)
        || is_in("chaos ", &tests.kinds)
        || matches!(test, "soak" | "soak without grace" | "failpoints")
}

#[test]
fn self_test_of_the_table() {
    let mut known = Known::default();
    known.read("@scenario(\"one\", \"x\")\n    fn two() {");
    let kinds =
        kinds("pub(crate) enum Kind {\n    /// A word,\n    Kill,\n    Pause,\n}\nOther,\n");
    assert_eq!(
        kinds,
        BTreeSet::from(["kill".to_owned(), "pause".to_owned()])
    );
    let tests = Tests { known, kinds };
    let rows: Vec<String> = wanted()
        .into_iter()
        .map(|id| format!("| {id} | x | scenario `one`; test `two`; chaos `kill`; soak | |"))
        .collect();
    assert_eq!(violations(&rows.join("\n"), &tests), Vec::<String>::new());
    assert_eq!(rows.len(), 85);
    for (row, complaint) in [
        ("| F-01 | x | scenario `two` | |", "F-01: no such test"),
        ("| F-01 | x | chaos `other` | |", "F-01: no such test"),
        ("| F-01 | x | | |", "F-01: neither a test nor a reason"),
        ("| F-01 | | | later |", "F-01: without a title"),
        ("| F-02 | x | soak | |", "F-02: here should be"),
        ("| F-01 | x | soak |", "not four cells"),
    ] {
        let mut table = rows.clone();
        row.clone_into(&mut table[0]);
        let found = violations(&table.join("\n"), &tests);
        assert!(
            found.iter().any(|one| one.contains(complaint)),
            "{row}: {found:?}"
        );
    }
    let found = violations(&rows[..84].join("\n"), &tests);
    assert_eq!(found, ["  F-85: not in the table"]);
}
