//! `node/docs/behaviours.md`: every id has a test that exists, and every row of the black-box suite has its id there.

use std::collections::BTreeSet;

/// The tests there are, by the name a table may use.
#[derive(Default)]
pub(crate) struct Known {
    /// Ids of `@row("…")`.
    pub(crate) rows: BTreeSet<String>,
    /// Names of `@scenario("…")`.
    pub(crate) scenarios: BTreeSet<String>,
    /// Names of Rust functions.
    pub(crate) functions: BTreeSet<String>,
}

impl Known {
    /// Takes what a Python or Rust file defines.
    pub(crate) fn read(&mut self, text: &str) {
        self.rows.extend(names(text, "@row(\"", '"'));
        self.scenarios.extend(names(text, "@scenario(\"", '"'));
        self.functions.extend(names(text, "fn ", '('));
    }
}

/// What stands between `before` and `after`, at the start of a line.
fn names(text: &str, before: &str, after: char) -> Vec<String> {
    let starts = text.lines().map(str::trim_start);
    starts
        .filter_map(|line| line.trim_start_matches("async ").strip_prefix(before))
        .filter_map(|rest| rest.split_once(after))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// What is wrong with the table.
pub(crate) fn violations(table: &str, known: &Known) -> Vec<String> {
    let mut violations = Vec::new();
    let mut seen = BTreeSet::new();
    for line in table.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').collect();
        let [ids, tests] = cells.as_slice() else {
            continue;
        };
        if ids.trim() == "ids" || ids.starts_with('-') {
            continue;
        }
        for id in expand(ids.trim()) {
            for test in tests.split("; ").map(str::trim) {
                if !exists(&id, test, known) {
                    violations.push(format!("  {id}: no such test: {test}"));
                }
            }
            if !seen.insert(id.clone()) {
                violations.push(format!("  {id}: named twice"));
            }
        }
    }
    let missing = known.rows.difference(&seen);
    violations.extend(missing.map(|id| format!("  {id}: not in the table")));
    violations
}

fn exists(id: &str, test: &str, known: &Known) -> bool {
    let quoted = |kind: &str| {
        let rest = test.strip_prefix(kind)?.trim();
        Some(rest.strip_prefix('`')?.strip_suffix('`')?.to_owned())
    };
    match test {
        "row" => known.rows.contains(id),
        _ if test.starts_with("later: ") => !known.rows.contains(id),
        _ => {
            quoted("scenario ").is_some_and(|name| known.scenarios.contains(&name))
                || quoted("test ").is_some_and(|name| known.functions.contains(&name))
        }
    }
}

/// `A01–A03` is A01, A02 and A03.
fn expand(ids: &str) -> Vec<String> {
    let number = |id: &str| {
        let digits = id.trim_start_matches(|c: char| !c.is_ascii_digit()).len();
        let (name, digits) = id.split_at(id.len() - digits);
        Some((name.to_owned(), digits.len(), digits.parse::<u32>().ok()?))
    };
    let Some((first, last)) = ids.split_once('–') else {
        return vec![ids.to_owned()];
    };
    match (number(first), number(last)) {
        (Some((name, width, from)), Some((_, _, to))) => (from..=to)
            .map(|number| format!("{name}{number:0width$}"))
            .collect(),
        _ => vec![ids.to_owned()],
    }
}

#[test]
fn self_test_of_the_table() {
    let mut known = Known::default();
    known.read(
        "@row(\"A01\", MUST)\n@row(\"A02\", MUST)\n@scenario(\"one\", \"x\")\n    async fn two() {",
    );
    let good = "| ids | tests |\n|---|---|\n| A01–A02 | row |\n| F-9–F-10 | scenario `one`; test `two` |\n| K1 | later: x |";
    assert_eq!(violations(good, &known), Vec::<String>::new());
    assert_eq!(expand("F-9–F-11"), ["F-9", "F-10", "F-11"]);
    for (line, wanted) in [
        ("| A01–A03 | row |", "A03: no such test"),
        ("| A01–A02 | row |\n| A01 | row |", "A01: named twice"),
        ("| A01 | row |", "A02: not in the table"),
        (
            "| A01–A02 | row |\n| B1 | scenario `two` |",
            "B1: no such test",
        ),
        ("| A01–A02 | later: x |", "A01: no such test"),
    ] {
        let found = violations(line, &known);
        assert!(found.iter().any(|one| one.contains(wanted)), "{found:?}");
    }
}
