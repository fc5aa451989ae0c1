//! The import table: which package may depend on what.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::workspace::library;

/// What one package may import.
struct Room {
    package: &'static str,
    /// Packages of the workspace.
    floors_below: &'static [&'static str],
    /// Libraries, where the whole list is fixed. Elsewhere [`HOMES`] says what is forbidden.
    libraries: Option<&'static [&'static str]>,
    /// May use the generated gRPC code of `proto`, and with it the network.
    grpc: bool,
}

const fn room(package: &'static str, floors_below: &'static [&'static str]) -> Room {
    Room {
        package,
        floors_below,
        libraries: None,
        grpc: false,
    }
}

/// Lowest floor first. A package that is not here does not pass: a new one needs a decision.
const ROOMS: &[Room] = &[
    Room {
        libraries: Some(&[
            "bytes",
            "prost",
            "tonic",
            "tonic-prost",
            "protox",
            "tonic-prost-build",
        ]),
        ..room("proto", &[])
    },
    Room {
        libraries: Some(&["base64", "hmac", "serde", "serde_json", "sha2", "thiserror"]),
        ..room("oci", &[])
    },
    Room {
        libraries: Some(&["rand", "tokio", "tokio-util", "tracing"]),
        ..room("runtime", &[])
    },
    Room {
        libraries: Some(&["async-trait", "bytes", "prost", "sha2", "thiserror"]),
        ..room("metadata", &["oci", "proto"])
    },
    room("storage", &["oci", "metadata", "runtime"]),
    Room {
        grpc: true,
        ..room(
            "consensus",
            &["oci", "metadata", "storage", "runtime", "proto"],
        )
    },
    Room {
        grpc: true,
        ..room(
            "replication",
            &["oci", "metadata", "storage", "runtime", "proto"],
        )
    },
    room(
        "registry",
        &["oci", "metadata", "storage", "replication", "runtime"],
    ),
    room("access", &["oci", "metadata", "runtime"]),
    room("mirror", &["oci", "registry", "metadata", "runtime"]),
    Room {
        grpc: true,
        ..room("node", &ALL_OF_THE_NODE)
    },
    Room {
        grpc: true,
        ..room("cli", &["oci", "proto"])
    },
    Room {
        grpc: true,
        ..room("tests", &ALL)
    },
    Room {
        grpc: true,
        ..room("container-tests", &ALL)
    },
    // An abstraction of the protocols: it shares no code with what it judges.
    room("model-tests", &[]),
];

const ALL_OF_THE_NODE: [&str; 10] = [
    "oci",
    "runtime",
    "proto",
    "metadata",
    "storage",
    "consensus",
    "replication",
    "registry",
    "access",
    "mirror",
];
const ALL: [&str; 12] = [
    "oci",
    "runtime",
    "proto",
    "metadata",
    "storage",
    "consensus",
    "replication",
    "registry",
    "access",
    "mirror",
    "node",
    "cli",
];

/// Packages that are nothing but tests: any library may be used there, and unfinished work is no product.
pub(crate) const TEST_PACKAGES: [&str; 3] = ["tests", "container-tests", "model-tests"];

/// Libraries that live in few rooms, so that replacing one changes few crates.
const HOMES: &[(&str, &[&str])] = &[
    ("openraft", &["consensus"]),
    ("rocksdb", &["storage"]),
    ("librocksdb-sys", &[]),
    (
        "tonic",
        &["proto", "consensus", "replication", "node", "cli"],
    ),
    ("tonic-prost", &["proto"]),
    ("axum", &["node"]),
    (
        "hyper",
        &["node", "consensus", "replication", "mirror", "cli"],
    ),
    (
        "http",
        &["node", "consensus", "replication", "mirror", "cli"],
    ),
    ("reqwest", &["mirror", "access"]),
    ("clap", &["node", "cli"]),
    ("toml", &["node"]),
    ("anyhow", &["node", "cli"]),
    ("tracing-subscriber", &["node"]),
];

/// Bans that `node/metadata/clippy.toml` must hold: what differs between two processes.
const BANS: [&str; 6] = [
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::time::SystemTime",
    "std::time::Instant::now",
    "rand::random",
    "rand::rng",
];

/// One dependency of a manifest.
struct Dependency {
    /// The library, whatever it is called here.
    library: String,
    features: Vec<String>,
    /// From `[dev-dependencies]`.
    is_dev: bool,
}

/// Every dependency that the table does not allow.
pub(crate) fn violations(
    package: &str,
    manifest: &Table,
    shared: &BTreeMap<String, String>,
) -> Vec<String> {
    let Some(room) = ROOMS.iter().find(|room| room.package == package) else {
        return vec!["is not in the import table".to_owned()];
    };
    let dependencies = dependencies(manifest, shared);
    dependencies
        .iter()
        .flat_map(|dependency| judge(room, dependency))
        .collect()
}

fn judge(room: &Room, dependency: &Dependency) -> Vec<String> {
    let library = dependency.library.as_str();
    let mut found = Vec::new();
    if ROOMS.iter().any(|other| other.package == library) {
        // A package may name itself to test with its own optional features.
        if library != room.package && !room.floors_below.contains(&library) {
            found.push(format!("must not import {library}"));
        }
        if library == "proto"
            && !room.grpc
            && dependency.features.iter().any(|feature| feature == "grpc")
        {
            found.push("must not enable the grpc feature of proto".to_owned());
        }
        return found;
    }
    let home = HOMES.iter().find(|(name, _)| *name == library);
    if !TEST_PACKAGES.contains(&room.package)
        && home.is_some_and(|(_, rooms)| !rooms.contains(&room.package))
    {
        found.push(format!("must not use {library}"));
    } else if !dependency.is_dev
        && room
            .libraries
            .is_some_and(|libraries| !libraries.contains(&library))
    {
        found.push(format!(
            "must not use {library}: the list of this crate is fixed"
        ));
    }
    found
}

/// Every dependency table of a manifest, those per target included.
fn dependencies(manifest: &Table, shared: &BTreeMap<String, String>) -> Vec<Dependency> {
    let targets = manifest
        .get("target")
        .and_then(Value::as_table)
        .into_iter()
        .flatten();
    let tables = targets
        .filter_map(|(_, target)| target.as_table())
        .chain([manifest]);
    let mut found = Vec::new();
    for table in tables {
        for (kind, is_dev) in [
            ("dependencies", false),
            ("build-dependencies", false),
            ("dev-dependencies", true),
        ] {
            let listed = table
                .get(kind)
                .and_then(Value::as_table)
                .into_iter()
                .flatten();
            found.extend(listed.map(|(name, value)| {
                let is_shared = value.get("workspace").is_some();
                let library = if is_shared {
                    shared.get(name).cloned()
                } else {
                    None
                };
                let features = value
                    .get("features")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten();
                Dependency {
                    library: library.unwrap_or_else(|| self::library(name, value)),
                    features: features
                        .filter_map(Value::as_str)
                        .map(str::to_owned)
                        .collect(),
                    is_dev,
                }
            }));
        }
    }
    found
}

/// True when the manifest takes `[workspace.lints]`.
pub(crate) fn has_workspace_lints(manifest: &Table) -> bool {
    manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(Value::as_bool)
        == Some(true)
}

/// What a `clippy.toml` of the state machine fails to ban.
pub(crate) fn missing_bans(clippy: &str) -> Vec<String> {
    let Ok(table) = clippy.parse::<Table>() else {
        return vec!["  is not TOML".to_owned()];
    };
    let lists = ["disallowed-types", "disallowed-methods"]
        .map(|list| table.get(list).and_then(Value::as_array));
    let entries = lists.into_iter().flatten().flatten();
    let banned: Vec<&str> = entries
        .filter_map(|entry| entry.get("path").unwrap_or(entry).as_str())
        .collect();
    BANS.iter()
        .filter(|ban| !banned.contains(ban))
        .map(|ban| format!("  does not ban {ban}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge_text(package: &str, manifest: &str) -> Vec<String> {
        let shared = [("raft", "openraft"), ("tonic", "tonic")]
            .map(|(name, library)| (name.to_owned(), library.to_owned()));
        violations(package, &manifest.parse().unwrap(), &shared.into())
    }

    #[test]
    fn self_test_of_what_is_caught() {
        let bad = [
            ("oci", "[dependencies]\nproto.workspace = true"),
            ("oci", "[dependencies]\ntokio = \"1\""),
            ("runtime", "[dependencies]\noci.workspace = true"),
            ("metadata", "[dependencies]\ntracing = \"1\""),
            (
                "metadata",
                "[dependencies]\nproto = { workspace = true, features = [\"grpc\"] }",
            ),
            ("storage", "[dependencies]\nopenraft = \"1\""),
            ("storage", "[dev-dependencies]\nconsensus.workspace = true"),
            ("consensus", "[dependencies]\nreplication.workspace = true"),
            ("consensus", "[dependencies]\nrocksdb = \"1\""),
            ("replication", "[dependencies]\nconsensus.workspace = true"),
            ("registry", "[dependencies]\nconsensus.workspace = true"),
            ("registry", "[dependencies]\ntonic.workspace = true"),
            (
                "registry",
                "[dependencies]\naccess = { path = \"../access\" }",
            ),
            ("registry", "[build-dependencies]\naxum = \"1\""),
            (
                "registry",
                "[target.'cfg(unix)'.dependencies]\nrocksdb = \"1\"",
            ),
            ("node", "[dependencies]\nopenraft = \"1\""),
            (
                "node",
                "[dependencies]\ninnocent = { package = \"rocksdb\", version = \"1\" }",
            ),
            ("node", "[dependencies]\nraft.workspace = true"),
            ("cli", "[dependencies]\nmetadata.workspace = true"),
            ("newcomer", ""),
        ];
        for (package, manifest) in bad {
            assert_eq!(
                judge_text(package, manifest).len(),
                1,
                "{package}: {manifest}"
            );
        }
    }

    #[test]
    fn self_test_of_what_is_allowed() {
        let good = [
            (
                "oci",
                "[dependencies]\nserde = \"1\"\n[dev-dependencies]\nproptest = \"1\"",
            ),
            (
                "metadata",
                "[dependencies]\nproto.workspace = true\noci.workspace = true",
            ),
            (
                "storage",
                "[dependencies]\nrocksdb = \"1\"\nmetadata.workspace = true",
            ),
            (
                "consensus",
                "[dependencies]\nraft.workspace = true\nproto = { workspace = true, features = [\"grpc\"] }",
            ),
            (
                "node",
                "[dependencies]\naxum = \"1\"\nregistry.workspace = true",
            ),
            (
                "tests",
                "[dependencies]\nnode.workspace = true\nrocksdb = \"1\"\nreqwest = \"1\"",
            ),
        ];
        for (package, manifest) in good {
            assert_eq!(
                judge_text(package, manifest),
                Vec::<String>::new(),
                "{package}: {manifest}"
            );
        }
    }

    #[test]
    fn self_test_of_the_table() {
        for (at, room) in ROOMS.iter().enumerate() {
            let lower: Vec<&str> = ROOMS[..at].iter().map(|room| room.package).collect();
            assert!(
                room.floors_below.iter().all(|floor| lower.contains(floor)),
                "{} imports upwards",
                room.package
            );
        }
    }

    #[test]
    fn self_test_of_lints() {
        assert!(has_workspace_lints(
            &"[lints]\nworkspace = true".parse().unwrap()
        ));
        assert!(!has_workspace_lints(
            &"[lints]\nworkspace = false".parse().unwrap()
        ));
        assert!(!has_workspace_lints(&Table::new()));
        let all = BANS.map(|ban| format!("\"{ban}\"")).join(",");
        assert_eq!(
            missing_bans(&format!("disallowed-types = [{all}]")),
            Vec::<String>::new()
        );
        assert_eq!(
            missing_bans(&format!(
                "disallowed-methods = [{}]",
                all.replace("HashSet", "BTreeSet")
            ))
            .len(),
            1
        );
        assert_eq!(missing_bans("").len(), BANS.len());
        assert_eq!(missing_bans("[").len(), 1);
    }
}
