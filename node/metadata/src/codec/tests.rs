mod samples;

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;

use self::samples::{commands, entry, records, responses};
use super::*;
use crate::command::Command;
use crate::ids::LogIndex;
use crate::key::{self, Table};
use crate::record::NodeRecord;
use crate::testing::{self, digest as digest_of};

/// Logs and states live longer than binaries. When this fails, the format changed: find another way, or
/// write a decision record and change the file by hand.
#[test]
fn golden_bytes() {
    let mut golden = String::new();
    let mut line = |kind: &str, name: &str, bytes: &[u8]| {
        let _ = write!(golden, "{kind} {name}: ");
        bytes.iter().for_each(|byte| {
            let _ = write!(golden, "{byte:02x}");
        });
        golden.push('\n');
    };
    for (name, command) in commands() {
        line("entry", name, &encode_entry(&entry(command)));
    }
    for (name, response) in responses() {
        line(
            "outcome",
            name,
            &encode_outcome(&Outcome {
                index: LogIndex(300),
                response,
            }),
        );
    }
    for (name, bytes) in records() {
        line("record", name, &bytes);
    }
    for (now, then) in golden.lines().zip(include_str!("golden.txt").lines()) {
        assert_eq!(now, then);
    }
    assert_eq!(golden, include_str!("golden.txt"));
}

#[test]
fn everything_comes_back_as_it_went() {
    for (_, command) in commands() {
        let entry = entry(command);
        assert_eq!(decode_entry(encode_entry(&entry)).unwrap(), entry);
        let bare = Entry {
            request: None,
            subject: String::new(),
            ..entry
        };
        assert_eq!(decode_entry(encode_entry(&bare)).unwrap(), bare);
    }
    for (_, response) in responses() {
        let outcome = Outcome {
            index: LogIndex(300),
            response,
        };
        assert_eq!(decode_outcome(encode_outcome(&outcome)).unwrap(), outcome);
    }
}

#[test]
fn the_body_of_a_decoded_manifest_is_a_slice_of_the_entry() {
    let put = testing::manifest("a", "a manifest", &[], &[]);
    let bytes = encode_entry(&entry(Command::PutManifest(put)));
    let (start, end) = (
        bytes.as_ptr() as usize,
        bytes.as_ptr() as usize + bytes.len(),
    );
    let Command::PutManifest(put) = decode_entry(bytes).unwrap().command else {
        panic!("another command")
    };
    let body = put.body.as_ptr() as usize;
    assert!(start <= body && body + put.body.len() <= end);
}

#[test]
fn an_unknown_command_or_answer_is_an_error() {
    // Field 999 with an empty message: what a newer binary may send.
    let unknown = Bytes::from_static(&[0xba, 0x3e, 0]);
    let missing = decode_entry(unknown.clone()).unwrap_err();
    assert_eq!(missing, CodecError::Missing { field: "command" });
    let missing = decode_outcome(unknown).unwrap_err();
    assert_eq!(missing, CodecError::Missing { field: "response" });
    let garbage = decode_entry(Bytes::from_static(&[0xff; 4])).unwrap_err();
    assert!(matches!(garbage, CodecError::Message(_)));
}

#[test]
fn a_field_that_breaks_its_grammar_is_an_error() {
    let decode = |command: pb::entry::Command| {
        let message = pb::Entry {
            command: Some(command),
            ..pb::Entry::default()
        };
        decode_entry(message.encode_to_vec().into()).unwrap_err()
    };
    let digest = digest_bytes(&digest_of("blob"));
    let touch = |repository: &str, digest: &Bytes| {
        let (repository, digest) = (repository.to_owned(), digest.clone());
        pb::entry::Command::TouchBlob(pb::TouchBlob { repository, digest })
    };
    let invalid = |field| CodecError::Invalid { field };
    assert_eq!(decode(touch("A", &digest)), invalid("repository"));
    assert_eq!(decode(touch("a", &digest.slice(..9))), invalid("digest"));
    let tickets = pb::OpenTickets {
        kind: 9,
        ..pb::OpenTickets::default()
    };
    let error = decode(pb::entry::Command::OpenTickets(tickets));
    assert_eq!(
        error,
        CodecError::Missing {
            field: "ticket kind"
        }
    );
}

/// Taking an absent precondition for "none" would make a conditional write blind.
#[test]
fn a_precondition_is_never_guessed() {
    for precondition in [
        None,
        Some(pb::Precondition {
            kind: 9,
            digests: Vec::new(),
        }),
    ] {
        let (repository, tag) = ("a".to_owned(), "v1".to_owned());
        let delete = pb::DeleteTag {
            repository,
            tag,
            precondition,
        };
        let command = Some(pb::entry::Command::DeleteTag(delete));
        let message = pb::Entry {
            command,
            ..pb::Entry::default()
        };
        let error = decode_entry(message.encode_to_vec().into()).unwrap_err();
        assert_eq!(
            error,
            CodecError::Missing {
                field: "precondition"
            }
        );
    }
}

#[test]
fn a_record_behind_a_foreign_key_is_an_error() {
    let node = NodeRecord {
        node: NodeId(3),
        http_address: String::new(),
        grpc_address: String::new(),
        disk_id: String::new(),
        registered_at: LogIndex(4),
        state: crate::command::NodeState::Up,
        state_since: crate::ids::LogTime(0),
    };
    let error = NodeRecord::decode(&key::table(Table::Blob), &node.encode()).unwrap_err();
    assert_eq!(error, CodecError::Key);
}

proptest! {
    /// Whatever arrives: an error or a value, never a panic, and a value survives another round.
    #[test]
    fn garbage_is_refused_or_read(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(entry) = decode_entry(bytes.clone().into()) {
            prop_assert_eq!(decode_entry(encode_entry(&entry)).unwrap(), entry);
        }
        if let Ok(outcome) = decode_outcome(bytes.into()) {
            prop_assert_eq!(decode_outcome(encode_outcome(&outcome)).unwrap(), outcome);
        }
    }

    /// Valid entries with a few bytes changed get deeper than garbage.
    #[test]
    fn damaged_entries_are_refused_or_read(
        which in 0..commands().len(),
        damage in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode_entry(&entry(commands()[which].1.clone())).to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(entry) = decode_entry(bytes.into()) {
            prop_assert_eq!(decode_entry(encode_entry(&entry)).unwrap(), entry);
        }
    }
}
