use super::*;
use std::process::{Command, Stdio};

use tempfile::TempDir;

const NODE: NodeId = NodeId(4);

fn temp() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn open(dir: &TempDir) -> DataDir {
    DataDir::open(dir.path().join("data"), NODE).expect("it opens")
}

/// Why it does not open, with the path.
fn refusal(dir: &TempDir, node_id: NodeId) -> String {
    match DataDir::open(dir.path().join("data"), node_id) {
        Err(error @ StorageError::Refused { .. }) => error.to_string(),
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("it opened"),
    }
}

fn path(dir: &TempDir, name: &str) -> PathBuf {
    dir.path().join("data").join(name)
}

#[test]
fn a_directory_is_created_once() {
    let dir = temp();
    let data = open(&dir);
    assert!(data.is_new());
    for directory in [
        data.raft_dir(),
        data.state_dir(),
        data.blobs_dir(),
        data.uploads_dir(),
        data.snapshots_dir(),
        data.local_dir(),
    ] {
        assert!(directory.is_dir(), "{}", directory.display());
    }
    assert_eq!(data.path(), dir.path().join("data"));
    std::fs::remove_dir(data.uploads_dir()).expect("scratch may be lost");
    let disk_id = data.disk_id();
    assert_eq!(disk_id.len(), 32);
    assert_eq!(data.cluster_id(), None);
    drop(data);
    let data = open(&dir);
    assert!(!data.is_new());
    assert!(data.uploads_dir().is_dir());
    assert_eq!(data.disk_id(), disk_id);
}

#[test]
fn a_cluster_is_bound_for_good() {
    let dir = temp();
    let data = open(&dir);
    assert!(matches!(
        data.bind_cluster("two words"),
        Err(StorageError::Refused { .. })
    ));
    data.bind_cluster("blue").expect("bound");
    data.bind_cluster("blue").expect("bound already");
    let error = data.bind_cluster("green").expect_err("it is blue");
    assert!(
        error
            .to_string()
            .contains("belongs to cluster blue, not green"),
        "{error}"
    );
    drop(data);
    assert_eq!(open(&dir).cluster_id().as_deref(), Some("blue"));
}

#[test]
fn a_crash_between_the_two_halves_of_binding_is_finished() {
    for written in [RAFT, BLOBS] {
        let dir = temp();
        let unbound = Identity::load(&open(&dir).raft_dir())
            .expect("intact")
            .expect("there");
        let bound = Identity {
            cluster_id: Some("blue".to_owned()),
            ..unbound
        };
        bound.save(&path(&dir, written)).expect("written");
        assert_eq!(open(&dir).cluster_id().as_deref(), Some("blue"));
        for name in [RAFT, BLOBS] {
            assert_eq!(
                Identity::load(&path(&dir, name)).expect("intact"),
                Some(bound.clone())
            );
        }
    }
}

#[test]
fn another_node_is_refused() {
    let dir = temp();
    drop(open(&dir));
    assert!(refusal(&dir, NodeId(5)).contains("belongs to node 4, not 5"));
}

#[test]
fn a_second_user_is_refused() {
    let dir = temp();
    let data = open(&dir);
    assert!(refusal(&dir, NODE).contains("another process uses it"));
    drop(data);
    open(&dir);
}

/// The lock is one between processes, not only within this one.
#[test]
fn a_second_process_is_refused() {
    let dir = temp();
    drop(open(&dir));
    let mut other = Command::new("flock")
        .arg(path(&dir, LOCK))
        .args(["-c", "echo locked; read -r _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("flock is part of util-linux");
    let mut line = String::new();
    let stdout = other.stdout.take().expect("it is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)
        .expect("it says that it has the lock");
    assert_eq!(line, "locked\n");
    assert!(refusal(&dir, NODE).contains("another process uses it"));
    // It ends with its input.
    drop(other.stdin.take());
    other.wait().expect("it ends");
    open(&dir);
}

#[test]
fn a_newer_format_is_refused() {
    let dir = temp();
    drop(open(&dir));
    std::fs::write(path(&dir, FORMAT_FILE), "argosy data format 2\n").expect("written");
    assert!(refusal(&dir, NODE).contains("it has format 2, and this version knows up to 1"));
    std::fs::write(path(&dir, FORMAT_FILE), "argosy data format one\n").expect("written");
    let opened = DataDir::open(dir.path().join("data"), NODE);
    assert!(matches!(opened, Err(StorageError::Corrupt { .. })));
}

#[test]
fn a_lost_identity_is_refused() {
    for name in [RAFT, BLOBS] {
        let dir = temp();
        drop(open(&dir));
        std::fs::remove_file(path(&dir, name).join(identity::FILE)).expect("removed");
        let why = refusal(&dir, NODE);
        assert!(
            why.contains(&format!("{name}/IDENTITY")) && why.contains("missing"),
            "{why}"
        );
    }
}

#[test]
fn a_damaged_identity_is_refused() {
    let dir = temp();
    drop(open(&dir));
    std::fs::write(path(&dir, BLOBS).join(identity::FILE), b"node 4").expect("written");
    let opened = DataDir::open(dir.path().join("data"), NODE);
    assert!(matches!(opened, Err(StorageError::Corrupt { .. })));
}

#[test]
fn a_lost_directory_is_refused() {
    for name in KEPT {
        let dir = temp();
        drop(open(&dir));
        std::fs::remove_dir_all(path(&dir, name)).expect("removed");
        let why = refusal(&dir, NODE);
        assert!(
            why.contains(&format!("data/{name} ")) && why.contains("missing"),
            "{why}"
        );
    }
}

#[test]
fn the_disk_of_another_directory_is_refused() {
    let (dir, other) = (temp(), temp());
    drop(open(&dir));
    drop(open(&other));
    std::fs::copy(path(&other, "blobs/IDENTITY"), path(&dir, "blobs/IDENTITY")).expect("copied");
    assert!(refusal(&dir, NODE).contains("they belong to different data directories"));
}

#[test]
fn data_without_a_format_is_refused() {
    let dir = temp();
    drop(open(&dir));
    std::fs::write(path(&dir, "blobs/something"), b"valuable").expect("written");
    std::fs::remove_file(path(&dir, FORMAT_FILE)).expect("removed");
    let why = refusal(&dir, NODE);
    assert!(
        why.contains("data/blobs ") && why.contains("it holds something"),
        "{why}"
    );
    assert!(path(&dir, "blobs/something").exists());
}

/// The order of creation is directories, identities, format: every prefix of it is finished by the next start.
#[test]
fn an_interrupted_creation_is_finished() {
    let whole = temp();
    drop(open(&whole));
    let steps = [
        "raft",
        "state",
        "blobs",
        "local",
        "raft/IDENTITY",
        "blobs/IDENTITY",
    ];
    for done in 0..=steps.len() {
        let dir = temp();
        std::fs::create_dir(dir.path().join("data")).expect("created");
        for step in &steps[..done] {
            let target = path(&dir, step);
            if path(&whole, step).is_dir() {
                std::fs::create_dir(&target).expect("created");
            } else {
                std::fs::copy(path(&whole, step), &target).expect("copied");
            }
        }
        if done > 0 {
            std::fs::create_dir(path(&dir, "raft/lost+found")).expect("created");
            std::fs::write(path(&dir, "raft/IDENTITY.partial"), b"argosy iden").expect("written");
        }
        let data = open(&dir);
        assert!(data.is_new());
        drop(data);
        assert!(!open(&dir).is_new(), "after {done} steps");
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("created");
    for entry in std::fs::read_dir(from).expect("listed").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[test]
fn a_copy_is_refused_until_it_is_accepted() {
    let dir = temp();
    let original = dir.path().join("data");
    let copy = dir.path().join("copy");
    drop(open(&dir));
    copy_tree(&original, &copy);
    let refusal = |path: &Path| match DataDir::open(path, NODE) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it opened"),
    };
    assert!(refusal(&copy).contains("accept-copy"), "{}", refusal(&copy));
    let running = open(&dir);
    assert!(refusal(&copy).contains("is a copy of"));
    let early = accept_copy(&copy).expect_err("the original runs");
    assert!(
        early.to_string().contains("the original is still there"),
        "{early}"
    );
    drop(running);
    assert!(accept_copy(&copy).is_err());
    std::fs::rename(&original, dir.path().join("moved")).expect("moved");
    DataDir::open(dir.path().join("moved"), NODE).expect("a move is no copy");
    assert_eq!(accept_copy(&copy).expect("accepted"), NODE);
    let accepted = DataDir::open(&copy, NODE).expect("it opens");
    assert!(accept_copy(&copy).is_err(), "it is in use");
    drop(accepted);
}

#[test]
fn a_damaged_place_is_refused_and_can_be_made_again() {
    let dir = temp();
    drop(open(&dir));
    let place = path(&dir, "raft/PLACE");
    std::fs::write(&place, b"here").expect("written");
    let refused = DataDir::open(dir.path().join("data"), NODE).expect_err("refused");
    assert!(refused.to_string().contains("accept-copy"), "{refused}");
    accept_copy(&dir.path().join("data")).expect("accepted");
    drop(open(&dir));
    std::fs::remove_file(&place).expect("removed");
    drop(open(&dir));
    assert!(place.is_file(), "it is made again");
}

#[test]
fn uploads_of_an_earlier_version_move_below_the_blobs() {
    let dir = temp();
    drop(open(&dir));
    let former = path(&dir, "uploads");
    std::fs::create_dir(&former).expect("created");
    std::fs::write(former.join("upload-1"), b"bytes").expect("written");
    let data = open(&dir);
    assert!(!former.exists());
    let moved = std::fs::read(data.uploads_dir().join("upload-1")).expect("there");
    assert_eq!(moved, b"bytes");
}
