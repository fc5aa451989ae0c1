//! What to do about a data directory that a node refuses: the commands, with this node's own paths and addresses.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use consensus::StartError;
use storage::error::{BlobError, StorageError};
use storage::layout;

use crate::assemble::StartupError;
use crate::config::Config;

/// Lines for a shell, in order; comments say what a command cannot. Empty when the error says all there is to say: a
/// process to stop, a configuration to mend.
pub fn commands(error: &StartupError, config: &Config, command_line: &[String]) -> Vec<String> {
    let data = config.raw.node.data_dir.as_path();
    let place = match error {
        StartupError::Storage(error) | StartupError::Blobs(BlobError::Index(error)) => {
            place_of(error)
        }
        StartupError::Consensus(StartError::Storage(error)) => place_of(error),
        StartupError::Blobs(BlobError::Io { path, .. }) => Some(path.as_path()),
        _ => None,
    };
    // What is wrong with the directory as a whole, or with the disk under it, is not cured by a new one.
    if place.is_some_and(|place| place == data) || is_about_the_disk(error) {
        return Vec::new();
    }
    // RocksDB names its directory, whatever it stumbles over there.
    if let Some(lock) = place.map(|place| place.join("LOCK"))
        && lock.symlink_metadata().is_ok_and(|lock| !lock.is_file())
    {
        return vec![format!("rm -r {}", quoted(&lock))];
    }
    let relative = place.and_then(|place| place.strip_prefix(data).ok());
    match relative.and_then(Path::to_str) {
        // Removed first: it may have become a link to another file.
        Some("format") => vec![
            format!("rm -rf {}", quoted(&data.join("format"))),
            format!(
                "echo 'argosy data format 1' > {}    # when this version has used the directory before",
                quoted(&data.join("format"))
            ),
        ],
        Some("lock") => vec![format!("rm -r {}", quoted(&data.join("lock")))],
        Some("raft/PLACE") => accept_copy(data, is_copy(error)),
        Some(bad @ ("raft/IDENTITY" | "blobs/IDENTITY")) => match layout::sound_identity(data) {
            Some(good) => copy_identity(&good, &data.join(bad)),
            None => replace(config, command_line),
        },
        _ => replace(config, command_line),
    }
}

/// Full, not writable for this user, or mounted read-only: the data may be whole.
fn is_about_the_disk(error: &StartupError) -> bool {
    let source = match error {
        StartupError::Storage(StorageError::Io { source, .. })
        | StartupError::Blobs(
            BlobError::Io { source, .. } | BlobError::Index(StorageError::Io { source, .. }),
        )
        | StartupError::Consensus(StartError::Storage(StorageError::Io { source, .. })) => source,
        StartupError::Blobs(BlobError::NoSpace | BlobError::Failed) => return true,
        _ => return false,
    };
    matches!(
        source.kind(),
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
    )
}

fn is_copy(error: &StartupError) -> bool {
    matches!(error, StartupError::Storage(StorageError::Refused { .. }))
}

/// A copy keeps what it knows of its original: that one may still be in use, and then accepting is refused.
fn accept_copy(data: &Path, is_copy: bool) -> Vec<String> {
    let damaged = format!("rm -rf {}", quoted(&data.join("raft/PLACE")));
    let accept = format!(
        "argosy accept-copy --data {}    # when no copy of the directory is in use",
        quoted(data)
    );
    let removed = (!is_copy).then_some(damaged);
    removed.into_iter().chain([accept]).collect()
}

/// The two identities of a directory are equal.
fn copy_identity(good: &Path, bad: &Path) -> Vec<String> {
    vec![
        format!("rm -rf {}", quoted(bad)),
        format!("cp {} {}", quoted(good), quoted(bad)),
    ]
}

fn place_of(error: &StorageError) -> Option<&Path> {
    match error {
        StorageError::Io { path, .. }
        | StorageError::Unopenable { path, .. }
        | StorageError::Corrupt { path, .. }
        | StorageError::Refused { path, .. } => Some(path),
        StorageError::Database { .. }
        | StorageError::NotNext { .. }
        | StorageError::Stream { .. }
        | StorageError::DamagedStream { .. }
        | StorageError::Closed => None,
    }
}

/// The others have everything: this node comes back empty, under a number that was never used.
fn replace(config: &Config, command_line: &[String]) -> Vec<String> {
    let raw = &config.raw;
    let data = raw.node.data_dir.as_path();
    let members = &raw.cluster.members;
    let damaged = PathBuf::from(format!("{}.damaged", data.display()));
    let aside = format!("mv {} {}", quoted(data), quoted(&damaged));
    let when = "when fsck finds it damaged";
    let others: Vec<&str> = members
        .iter()
        .filter(|member| member.id != raw.node.id)
        .map(|member| member.grpc.as_str())
        .collect();
    if others.is_empty() {
        return vec![
            format!(
                "{aside}    # {when}, and no other node has its data: else see deploy/README.md, Damaged files"
            ),
            format!("cp -a BACKUP {}", quoted(data)),
            format!("argosy accept-copy --data {}", quoted(data)),
        ];
    }
    let new = members.iter().map(|member| member.id).max().unwrap_or(0) + 1;
    let own = members.iter().find(|member| member.id == raw.node.id);
    let address = own.map_or(raw.grpc.listen.as_str(), |member| member.grpc.as_str());
    vec![
        format!("{aside}    # {when}"),
        format!(
            "ARGOSY__CLUSTER__MEMBERS='[]' ARGOSY__CLUSTER__WAIT_FOR_INIT=true {} --node-id {new} &    # a number that was \
             never used; put it into the configuration",
            without_node_id(command_line)
        ),
        format!(
            "clusterctl --endpoints {} member replace {} {new}={address}",
            others.join(","),
            raw.node.id
        ),
    ]
}

/// The command that started this process, for a shell, without the number of the node.
fn without_node_id(command_line: &[String]) -> String {
    let mut words = Vec::new();
    let mut given = command_line.iter();
    while let Some(word) = given.next() {
        if word == "--node-id" {
            given.next();
        } else if !word.starts_with("--node-id=") {
            words.push(quoted(&PathBuf::from(word)));
        }
    }
    words.join(" ")
}

/// One word for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:=,@+".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn words_with_blanks_and_quotes_stay_one_word() {
        assert_eq!(quoted(Path::new("/var/lib/argosy")), "/var/lib/argosy");
        assert_eq!(quoted(Path::new("/my data")), "'/my data'");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
        assert_eq!(quoted(Path::new("")), "''");
    }

    #[test]
    fn the_number_of_the_node_is_left_out_of_its_command_line() {
        let line = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        for given in [
            "argosy serve --node-id 3 --data /d",
            "argosy serve --node-id=3 --data /d",
            "argosy serve --data /d",
        ] {
            assert_eq!(without_node_id(&line(given)), "argosy serve --data /d");
        }
    }

    fn io(kind: ErrorKind) -> StartupError {
        StartupError::Storage(StorageError::Io {
            action: "open",
            path: PathBuf::from("/data/raft/log"),
            source: kind.into(),
        })
    }

    #[test]
    fn a_full_or_read_only_disk_is_no_reason_to_move_the_data_away() {
        let mut config = config::load(None, std::iter::empty(), &[])
            .expect("defaults")
            .config;
        config.raw.node.data_dir = PathBuf::from("/data");
        let told = |error: &StartupError| commands(error, &config, &["argosy".to_owned()]);
        for kind in [
            ErrorKind::StorageFull,
            ErrorKind::PermissionDenied,
            ErrorKind::ReadOnlyFilesystem,
        ] {
            assert!(told(&io(kind)).is_empty(), "{kind:?}");
        }
        let missing = told(&io(ErrorKind::NotFound));
        assert!(
            missing[0].starts_with("mv /data /data.damaged"),
            "{missing:?}"
        );
        assert_eq!(missing[1], "cp -a BACKUP /data");
        let blobs = told(&StartupError::Blobs(BlobError::NoSpace));
        assert!(blobs.is_empty(), "{blobs:?}");
    }
}
