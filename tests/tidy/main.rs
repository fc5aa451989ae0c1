//! The house rules, checked by an ordinary test.
//!
//! Cargo and clippy hold most rules of `node/docs/architecture.md`; this target holds the rest: who may import
//! whom, how long files and functions may be, and what may not stand outside tests. Every rule is a function from
//! text to violations, so each has a self-test with a snippet that breaks it beside one that does not.

mod behaviours;
mod failpoints;
mod faults;
mod functions;
mod globs;
mod imports;
mod lexer;
mod modules;
mod paths;
mod words;
mod workspace;

use std::fmt::Display;

use workspace::{Package, Workspace};

/// The most lines a file may have.
const MAX_FILE_LINES: usize = 500;

/// Fails with every violation at once, so that one run shows all there is to do.
#[track_caller]
fn require_none(rule: &str, violations: Vec<String>) {
    assert!(
        violations.is_empty(),
        "{rule}: {} violation(s)\n{}",
        violations.len(),
        violations.join("\n")
    );
}

/// Runs a rule over every Rust file of the workspace and puts the file in front of what it finds.
fn over_rust_files<V: Display>(rule: impl Fn(&Package, &modules::File) -> Vec<V>) -> Vec<String> {
    let mut violations = Vec::new();
    for package in &Workspace::read().packages {
        for file in &modules::tree(package).files {
            let place = workspace::relative(&file.path);
            violations.extend(
                rule(package, file)
                    .into_iter()
                    .map(|violation| format!("  {place}:{violation}")),
            );
        }
    }
    violations
}

#[test]
fn crates_import_only_downwards() {
    let workspace = Workspace::read();
    let violations = workspace.packages.iter().flat_map(|package| {
        let found = imports::violations(&package.name, &package.manifest, &workspace.dependencies);
        found
            .into_iter()
            .map(|violation| format!("  {}: {violation}", package.name))
    });
    require_none("import table", violations.collect());
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let packages = Workspace::read().packages;
    let without = packages
        .iter()
        .filter(|package| !imports::has_workspace_lints(&package.manifest));
    require_none(
        "workspace lints",
        without
            .map(|package| format!("  {}", package.name))
            .collect(),
    );
}

#[test]
fn the_state_machine_has_its_own_lints() {
    let path = workspace::root().join("node/metadata/clippy.toml");
    let text = std::fs::read_to_string(&path).expect("node/metadata/clippy.toml must exist");
    require_none("node/metadata/clippy.toml", imports::missing_bans(&text));
}

#[test]
fn files_are_short() {
    let violations = over_rust_files(|_, file| file_length(&file.text).into_iter().collect());
    require_none("file length", violations);
}

fn file_length(text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > MAX_FILE_LINES).then(|| format!("{lines}: more than {MAX_FILE_LINES} lines"))
}

#[test]
fn functions_are_short() {
    require_none(
        "function length",
        over_rust_files(|_, file| functions::too_long(&file.text)),
    );
}

#[test]
fn unfinished_work_stays_in_tests() {
    let outside_tests = |package: &Package, file: &modules::File| {
        if file.is_test || imports::TEST_PACKAGES.contains(&package.name.as_str()) {
            Vec::new()
        } else {
            words::banned(&file.text)
        }
    };
    require_none("banned outside tests", over_rust_files(outside_tests));
}

#[test]
fn crates_are_not_imported_by_glob() {
    let names: Vec<String> = Workspace::read()
        .packages
        .into_iter()
        .map(|package| package.name)
        .collect();
    require_none(
        "glob imports",
        over_rust_files(|_, file| globs::across_crates(&file.text, &names)),
    );
}

#[test]
fn the_fronts_do_not_name_each_other() {
    let violations = over_rust_files(|_, file| match workspace::relative(&file.path) {
        place if is_front(&place, "http") => globs::naming(&file.text, "grpc"),
        place if is_front(&place, "grpc") => globs::naming(&file.text, "http"),
        _ => Vec::new(),
    });
    require_none("fronts", violations);
}

fn is_front(place: &str, front: &str) -> bool {
    place
        .strip_prefix("node/src/")
        .and_then(|rest| rest.strip_prefix(front))
        .is_some_and(|rest| rest.starts_with(['/', '.']))
}

#[test]
fn every_file_belongs_to_a_module() {
    let packages = Workspace::read().packages;
    require_none(
        "unreachable files",
        packages
            .iter()
            .flat_map(|package| modules::tree(package).orphans)
            .collect(),
    );
}

#[test]
fn every_failpoint_is_documented() {
    let path = workspace::root().join("node/docs/failpoints.md");
    let text = std::fs::read_to_string(&path).expect("node/docs/failpoints.md must exist");
    let packages = Workspace::read().packages;
    let in_product = packages
        .iter()
        .filter(|package| !imports::TEST_PACKAGES.contains(&package.name.as_str()));
    let code = in_product
        .flat_map(|package| modules::tree(package).files)
        .flat_map(|file| failpoints::in_code(&file.text))
        .collect();
    require_none(
        "failpoints",
        failpoints::differences(&code, &failpoints::in_document(&text)),
    );
}

#[test]
fn nothing_names_a_machine() {
    let violations = workspace::text_files().into_iter().flat_map(|path| {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let place = workspace::relative(&path);
        paths::of_machines(&text)
            .into_iter()
            .map(move |violation| format!("  {place}:{violation}"))
    });
    require_none("machine paths", violations.collect());
}

#[test]
fn every_behaviour_names_a_test_that_exists() {
    let table = workspace::root().join("node/docs/behaviours.md");
    let text = std::fs::read_to_string(table).expect("node/docs/behaviours.md must exist");
    require_none("behaviours", behaviours::violations(&text, &known_tests()));
}

#[test]
fn every_fault_names_a_test_that_exists() {
    let read = |path| std::fs::read_to_string(workspace::root().join(path)).expect(path);
    let tests = faults::Tests {
        known: known_tests(),
        kinds: faults::kinds(&read("tests/faults/nemesis/mod.rs")),
    };
    let table = read("node/docs/reliability.md");
    require_none("faults", faults::violations(&table, &tests));
}

/// The tests of all kinds.
fn known_tests() -> behaviours::Known {
    let mut known = behaviours::Known::default();
    for path in workspace::text_files() {
        let is_test = path.starts_with(workspace::root().join("tests"));
        let is_code = path.extension().is_some_and(|end| end == "rs") || is_test;
        if is_code {
            known.read(&std::fs::read_to_string(&path).unwrap_or_default());
        }
    }
    known
}

#[test]
fn self_test_of_lengths_and_fronts() {
    assert_eq!(file_length(&"x\n".repeat(MAX_FILE_LINES)), None);
    assert!(file_length(&"x\n".repeat(MAX_FILE_LINES + 1)).is_some());
    assert!(is_front("node/src/http/blobs.rs", "http") && is_front("node/src/http.rs", "http"));
    assert!(
        !is_front("node/src/https/blobs.rs", "http")
            && !is_front("node/registry/src/http/x.rs", "http")
    );
}
