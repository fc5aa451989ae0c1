//! The workspace on disk: its packages and its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// One package: where it is and what its manifest says.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) manifest: Table,
}

/// All packages, and `[workspace.dependencies]`: the name used in manifests to the name of the library.
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    pub(crate) dependencies: BTreeMap<String, String>,
}

impl Workspace {
    /// Reads the root manifest and that of every member.
    pub(crate) fn read() -> Workspace {
        let root = read_manifest(&root().join("Cargo.toml"));
        let members = root["workspace"]["members"]
            .as_array()
            .expect("the root lists its members");
        let members = members.iter().filter_map(Value::as_str);
        let packages = members.map(|member| {
            let directory = self::root().join(member);
            let manifest = read_manifest(&directory.join("Cargo.toml"));
            let name = manifest["package"]["name"]
                .as_str()
                .expect("a package has a name")
                .to_owned();
            Package {
                name,
                directory,
                manifest,
            }
        });
        let shared = root["workspace"]["dependencies"]
            .as_table()
            .expect("the root shares versions");
        let dependencies = shared
            .iter()
            .map(|(name, value)| (name.clone(), library(name, value)));
        Workspace {
            packages: packages.collect(),
            dependencies: dependencies.collect(),
        }
    }
}

/// The library behind a dependency, which may be renamed.
pub(crate) fn library(name: &str, dependency: &Value) -> String {
    let renamed = dependency.get("package").and_then(Value::as_str);
    renamed.unwrap_or(name).to_owned()
}

fn read_manifest(path: &Path) -> Table {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The root of the workspace: the parent of this package.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("this package is not the root")
}

/// A path as seen from the root, for messages.
pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Every file below a directory, without hidden and build directories, in a stable order. `enter` decides about
/// each directory.
pub(crate) fn files_below(directory: &Path, enter: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut entries: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    entries.sort();
    let mut files = Vec::new();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_file() {
            files.push(path);
        } else if path.is_dir() && !name.starts_with('.') && name != "target" && enter(&path) {
            files.extend(files_below(&path, enter));
        }
    }
    files
}

/// Code, configuration and documents of the whole workspace.
pub(crate) fn text_files() -> Vec<PathBuf> {
    const EXTENSIONS: [&str; 11] = [
        "rs", "toml", "proto", "md", "yaml", "yml", "json", "cfg", "service", "sh", "py",
    ];
    let is_text = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default();
        EXTENSIONS.iter().any(|known| extension == *known)
    };
    files_below(root(), &|_| true)
        .into_iter()
        .filter(is_text)
        .collect()
}

#[test]
fn self_test_of_the_workspace() {
    let workspace = Workspace::read();
    let names: Vec<&str> = workspace
        .packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    assert!(
        names.contains(&"oci") && names.contains(&"tests"),
        "{names:?}"
    );
    assert_eq!(workspace.dependencies["openraft"], "openraft");
    assert!(
        text_files()
            .iter()
            .any(|path| path.ends_with("node/oci/src/lib.rs"))
    );
    let renamed: Table = "raft = { package = \"openraft\" }".parse().unwrap();
    assert_eq!(library("raft", &renamed["raft"]), "openraft");
}
