//! The module tree of a package: which files are compiled, and which of them for tests only.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use toml::Value;

use crate::lexer::{self, Token};
use crate::words;
use crate::workspace::{self, Package};

/// A Rust file that some target reaches.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// Compiled for tests only.
    pub(crate) is_test: bool,
}

/// What the targets of a package reach, and what lies beside it unreached.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
    /// Violations: files without a `mod`, and `mod`s without a file.
    pub(crate) orphans: Vec<String>,
}

/// Follows every `mod` from every target of a package.
pub(crate) fn tree(package: &Package) -> Tree {
    let mut tree = Tree {
        files: Vec::new(),
        orphans: Vec::new(),
    };
    for (path, is_test) in targets(package) {
        follow(path, true, is_test, &mut tree);
    }
    let reached: BTreeSet<PathBuf> = tree.files.iter().map(|file| file.path.clone()).collect();
    // Another package may be nested here; its files are its own.
    let own = |directory: &Path| !directory.join("Cargo.toml").exists();
    for path in workspace::files_below(&package.directory, &own) {
        if path.extension().is_some_and(|extension| extension == "rs") && !reached.contains(&path) {
            tree.orphans.push(format!(
                "  {}: no mod leads here",
                workspace::relative(&path)
            ));
        }
    }
    tree
}

/// The root files of a package: those cargo finds by itself and those the manifest names.
fn targets(package: &Package) -> Vec<(PathBuf, bool)> {
    let by_convention =
        ["src/lib.rs", "src/main.rs", "build.rs"].map(|path| (package.directory.join(path), false));
    let mut targets: Vec<_> = by_convention
        .into_iter()
        .filter(|(path, _)| path.exists())
        .collect();
    let library = package
        .manifest
        .get("lib")
        .and_then(|lib| lib.get("path")?.as_str());
    targets.extend(library.map(|path| (package.directory.join(path), false)));
    for (table, is_test) in [
        ("bin", false),
        ("example", false),
        ("test", true),
        ("bench", true),
    ] {
        let listed = package
            .manifest
            .get(table)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let paths = listed.filter_map(|target| target.get("path")?.as_str());
        targets.extend(paths.map(|path| (package.directory.join(path), is_test)));
    }
    for (directory, is_test) in [
        ("src/bin", false),
        ("examples", false),
        ("tests", true),
        ("benches", true),
    ] {
        let directory = package.directory.join(directory);
        if directory.is_dir() {
            targets.extend(
                workspace::files_below(&directory, &|_| false)
                    .into_iter()
                    .map(|path| (path, is_test)),
            );
        }
    }
    targets.retain(|(path, _)| path.extension().is_some_and(|extension| extension == "rs"));
    targets.sort();
    targets.dedup_by(|one, two| one.0 == two.0);
    targets
}

fn follow(path: PathBuf, is_root: bool, is_test: bool, tree: &mut Tree) {
    if tree.files.iter().any(|file| file.path == path) {
        return;
    }
    let Ok(text) = fs::read_to_string(&path) else {
        tree.orphans.push(format!(
            "  {}: a mod leads here and there is no file",
            workspace::relative(&path)
        ));
        return;
    };
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let owns_directory = is_root || path.file_name().is_some_and(|name| name == "mod.rs");
    let below = if owns_directory {
        directory.clone()
    } else {
        directory.join(path.file_stem().unwrap_or_default())
    };
    let declarations = declarations(&text);
    tree.files.push(File {
        path,
        text,
        is_test,
    });
    for declaration in declarations {
        let is_test = is_test || declaration.is_test;
        let path = match declaration.path {
            Some(path) => directory.join(path),
            None => {
                let base = declaration
                    .inside
                    .iter()
                    .fold(below.clone(), |base, module| base.join(module));
                let nested = base.join(&declaration.name).join("mod.rs");
                if nested.exists() {
                    nested
                } else {
                    base.join(format!("{}.rs", declaration.name))
                }
            }
        };
        follow(path, false, is_test, tree);
    }
}

/// A `mod name;`.
#[derive(Debug, PartialEq, Eq)]
struct Declaration {
    name: String,
    /// The inline modules around it.
    inside: Vec<String>,
    /// The value of its `#[path]`.
    path: Option<String>,
    is_test: bool,
}

fn declarations(text: &str) -> Vec<Declaration> {
    let tokens = lexer::read(text).tokens;
    let tests = words::test_regions(&tokens);
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        inline.retain(|(_, end)| at <= *end);
        let [keyword, name, after] = &tokens[at..(at + 3).min(tokens.len())] else {
            break;
        };
        if !keyword.is("mod") || !name.is_word() {
            continue;
        }
        if after.is("{") {
            inline.push((name.text.to_owned(), lexer::closing(&tokens, at + 2)));
        } else if after.is(";") {
            found.push(Declaration {
                name: name.text.to_owned(),
                inside: inline.iter().map(|(name, _)| name.clone()).collect(),
                path: path_attribute(&tokens[..at]),
                is_test: tests.iter().any(|region| region.contains(&at)),
            });
        }
    }
    found
}

/// The `#[path = "..."]` among the attributes that end where `before` ends.
fn path_attribute(before: &[Token<'_>]) -> Option<String> {
    let item_start = before
        .iter()
        .rposition(|token| token.is(";") || token.is("}") || token.is("{"))
        .map_or(0, |at| at + 1);
    let window = before[item_start..]
        .windows(3)
        .find(|window| window[0].is("path") && window[1].is("="))?;
    Some(window[2].text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn self_test_of_declarations() {
        let text = "mod a;\n#[cfg(test)]\nmod b;\nmod c { mod d; mod e { pub(crate) mod f; } }\n#[path = \"x/g.rs\"]\nmod g;\n// mod h;\nmod i;";
        let found = declarations(text);
        let names: Vec<_> = found
            .iter()
            .map(|it| (it.name.as_str(), it.inside.join("/"), it.is_test))
            .collect();
        let expected = [
            ("a", "", false),
            ("b", "", true),
            ("d", "c", false),
            ("f", "c/e", false),
            ("g", "", false),
            ("i", "", false),
        ];
        assert_eq!(
            names,
            expected.map(|(name, inside, is_test)| (name, inside.to_owned(), is_test))
        );
        assert_eq!(found[4].path.as_deref(), Some("x/g.rs"));
        assert_eq!(found[5].path, None);
    }

    #[test]
    fn self_test_of_the_tree() {
        let directory = tempfile::tempdir().unwrap();
        let files = [
            (
                "src/lib.rs",
                "mod a; mod gone; mod b { mod c; } #[cfg(test)] mod tests;",
            ),
            ("src/a.rs", "mod deep;"),
            ("src/a/deep.rs", ""),
            ("src/b/c/mod.rs", ""),
            ("src/tests.rs", "mod more;"),
            ("src/tests/more.rs", ""),
            ("src/lost.rs", ""),
            ("other/lib.rs", ""),
            ("it/main.rs", "mod case;"),
            ("it/case.rs", ""),
            ("nested/Cargo.toml", ""),
            ("nested/src/lib.rs", ""),
        ];
        for (path, text) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let manifest =
            "[lib]\npath = \"other/lib.rs\"\n[[test]]\nname = \"it\"\npath = \"it/main.rs\""
                .parse()
                .unwrap();
        let package = Package {
            name: "p".to_owned(),
            directory: directory.path().to_owned(),
            manifest,
        };
        let tree = tree(&package);
        let of_tests = |wanted: bool| {
            let files = tree.files.iter().filter(|file| file.is_test == wanted);
            let paths = files.map(|file| file.path.strip_prefix(directory.path()).unwrap());
            paths.map(Path::to_owned).collect::<BTreeSet<_>>()
        };
        let product = [
            "other/lib.rs",
            "src/a.rs",
            "src/a/deep.rs",
            "src/b/c/mod.rs",
            "src/lib.rs",
        ];
        assert_eq!(of_tests(false), product.map(PathBuf::from).into());
        let tests = [
            "it/case.rs",
            "it/main.rs",
            "src/tests.rs",
            "src/tests/more.rs",
        ];
        assert_eq!(of_tests(true), tests.map(PathBuf::from).into());
        assert_eq!(tree.orphans.len(), 2, "{:?}", tree.orphans);
        assert!(
            tree.orphans[0].contains("gone.rs") && tree.orphans[1].contains("lost.rs"),
            "{:?}",
            tree.orphans
        );
    }
}
