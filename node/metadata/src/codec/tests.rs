use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::command::{
    AddPlacement, CloseTickets, Command, DeleteManifest, DeleteTag, DropPlacement, MountBlob,
    Precondition, RenewTickets, ReportLost, SetReplication, Tick, TicketKind, TouchBlob,
    UnlinkBlob,
};
use crate::ids::{LogIndex, LogTime, RepositoryId, TicketId};
use crate::key::{self, Table};
use crate::record::{
    AnswerRecord, BlobRecord, ClusterRecord, LinkRecord, ManifestRecord, NodeRecord,
    ReferencesRecord, Referrer, RepositoryRecord, SessionRecord, TagChange, TagRecord,
    TicketRecord, TimeRecord, TotalsRecord,
};
use crate::response::{Rejection, Response};
use crate::testing::{self, digest as digest_of, repository as name, tag as tag_name};

/// One of every command, with no field at its default.
fn commands() -> Vec<(&'static str, Command)> {
    let (repository, digest, node) = (name("a/b"), digest_of("blob"), NodeId(3));
    let ticket = TicketId::new(LogIndex(9), 5);
    let mut commit = testing::commit(ticket, "a/b", "blob", &[1, 300]);
    commit.stragglers = 1;
    let mut put = testing::manifest("a/b", "manifest", &["blob"], &["v1", "v2"]);
    put.facts.is_index = true;
    put.facts.manifests = vec![testing::reference("child")];
    put.facts.subject = Some(digest_of("subject"));
    put.facts.artifact_type = Some(MediaType::octet_stream());
    put.facts.annotations = BTreeMap::from([
        ("b".to_owned(), "2".to_owned()),
        ("a".to_owned(), String::new()),
    ]);
    put.precondition = Precondition::Matches(vec![digest_of("old")]);
    let from = Some(name("c"));
    let delete = |precondition| {
        let (repository, tag) = (name("a/b"), tag_name("v1"));
        Command::DeleteTag(DeleteTag {
            repository,
            tag,
            precondition,
        })
    };
    vec![
        ("initialize_cluster", testing::initialize(3, 2)),
        (
            "set_replication",
            Command::SetReplication(SetReplication {
                copies: 3,
                write_copies: 2,
            }),
        ),
        ("register_node", testing::register(3, "disk")),
        ("open_tickets upload", testing::open(TicketKind::Upload, 64)),
        ("open_tickets repair", testing::open(TicketKind::Repair, 64)),
        ("open_tickets import", testing::open(TicketKind::Import, 64)),
        (
            "renew_tickets",
            Command::RenewTickets(RenewTickets {
                tickets: vec![ticket, ticket],
                ttl_ms: 1000,
            }),
        ),
        (
            "close_tickets",
            Command::CloseTickets(CloseTickets {
                tickets: vec![ticket],
            }),
        ),
        ("commit_blob", Command::CommitBlob(commit)),
        (
            "mount_blob from",
            Command::MountBlob(MountBlob {
                from,
                repository: repository.clone(),
                digest,
            }),
        ),
        (
            "mount_blob",
            Command::MountBlob(MountBlob {
                from: None,
                repository: repository.clone(),
                digest,
            }),
        ),
        (
            "touch_blob",
            Command::TouchBlob(TouchBlob {
                repository: repository.clone(),
                digest,
            }),
        ),
        (
            "unlink_blob",
            Command::UnlinkBlob(UnlinkBlob {
                repository: repository.clone(),
                digest,
            }),
        ),
        ("put_manifest", Command::PutManifest(put)),
        (
            "delete_manifest",
            Command::DeleteManifest(DeleteManifest { repository, digest }),
        ),
        ("delete_tag", delete(Precondition::None)),
        ("delete_tag exists", delete(Precondition::Exists)),
        ("delete_tag absent", delete(Precondition::Absent)),
        (
            "add_placement",
            Command::AddPlacement(AddPlacement {
                ticket,
                node,
                digest,
            }),
        ),
        (
            "drop_placement",
            Command::DropPlacement(DropPlacement { node, digest }),
        ),
        (
            "report_lost",
            Command::ReportLost(ReportLost { node, digest }),
        ),
        (
            "tick",
            Command::Tick(Tick {
                previous_sequence: 7,
                elapsed_ms: 10_000,
            }),
        ),
    ]
}

fn entry(command: Command) -> Entry {
    Entry {
        proposed_at: Timestamp(1_700_000_000_000),
        subject: "me".to_owned(),
        request: Some(RequestId {
            node: NodeId(1),
            boot: u64::MAX,
            sequence: 4,
        }),
        command,
    }
}

fn responses() -> Vec<(&'static str, Response)> {
    let (digest, node) = (digest_of("blob"), NodeId(3));
    let ticket = TicketId::new(LogIndex(9), 5);
    let rejected = Response::Rejected;
    vec![
        ("done", Response::Done),
        (
            "tickets_opened",
            Response::TicketsOpened {
                first: ticket,
                count: 2,
            },
        ),
        (
            "blob_committed",
            Response::BlobCommitted {
                repair_ticket: None,
            },
        ),
        (
            "blob_committed repair",
            Response::BlobCommitted {
                repair_ticket: Some(ticket),
            },
        ),
        ("blob_mounted", Response::BlobMounted { size_bytes: 5 }),
        ("manifest_put", Response::ManifestPut),
        (
            "already_initialized",
            rejected(Rejection::AlreadyInitialized),
        ),
        ("not_initialized", rejected(Rejection::NotInitialized)),
        ("repository_unknown", rejected(Rejection::RepositoryUnknown)),
        ("blob_unknown", rejected(Rejection::BlobUnknown)),
        ("manifest_unknown", rejected(Rejection::ManifestUnknown)),
        ("tag_unknown", rejected(Rejection::TagUnknown)),
        (
            "references_unknown",
            rejected(Rejection::ReferencesUnknown(vec![digest, digest])),
        ),
        (
            "size_mismatch",
            rejected(Rejection::SizeMismatch {
                digest,
                claimed_bytes: 1,
                actual_bytes: 2,
            }),
        ),
        (
            "blob_referenced",
            rejected(Rejection::BlobReferenced { manifest: digest }),
        ),
        (
            "precondition",
            rejected(Rejection::PreconditionFailed {
                current: Some(digest),
            }),
        ),
        (
            "precondition none",
            rejected(Rejection::PreconditionFailed { current: None }),
        ),
        ("ticket_closed", rejected(Rejection::TicketClosed(ticket))),
        (
            "too_few_copies",
            rejected(Rejection::TooFewCopies {
                reached: 1,
                wanted: 2,
            }),
        ),
        ("node_unknown", rejected(Rejection::NodeUnknown(node))),
        ("disk_mismatch", rejected(Rejection::DiskMismatch(node))),
        ("not_a_holder", rejected(Rejection::NotAHolder(node))),
        ("out_of_bounds", rejected(Rejection::OutOfBounds)),
        ("request_too_old", rejected(Rejection::RequestTooOld)),
    ]
}

/// Encodes a record, and sees that it decodes to itself.
fn stored<R: Record + PartialEq + std::fmt::Debug>(key: &[u8], record: &R) -> Vec<u8> {
    let bytes = record.encode();
    assert_eq!(&R::decode(key, &bytes).unwrap(), record);
    bytes
}

fn records() -> Vec<(&'static str, Vec<u8>)> {
    let (digest, one, other) = (digest_of("blob"), RepositoryId(1), digest_of("child"));
    let (since, media_type) = (LogTime(77), MediaType::octet_stream());
    let cluster = ClusterRecord {
        cluster_id: "c".to_owned(),
        upload_key: Bytes::from_static(b"key"),
        copies: 3,
        write_copies: 2,
    };
    let totals = TotalsRecord {
        repositories: 1,
        tags: 2,
        manifests: 3,
        manifest_bytes: 4,
        blobs: 5,
        blob_bytes: 6,
        blobs_by_copies: vec![0, 300],
    };
    let node = NodeRecord {
        node: NodeId(3),
        http_address: "h".to_owned(),
        grpc_address: "g".to_owned(),
        disk_id: "d".to_owned(),
        registered_at: LogIndex(4),
    };
    let manifest = ManifestRecord {
        media_type: media_type.clone(),
        size_bytes: 5,
        subject: Some(other),
        is_index: true,
        pushed_at: LogIndex(4),
    };
    let references = ReferencesRecord {
        blobs: vec![digest],
        manifests: vec![other],
    };
    let change = TagChange {
        index: LogIndex(4),
        digest: None,
        proposed_at: Timestamp(5),
        subject: "me".to_owned(),
    };
    let referrer = Referrer {
        digest,
        media_type: media_type.clone(),
        size_bytes: 5,
        artifact_type: Some(media_type),
        annotations: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
    };
    let blob = BlobRecord {
        size_bytes: 5,
        holders: vec![NodeId(1), NodeId(300)],
        unlinked_since: Some(since),
        condemned_since: Some(LogTime(0)),
    };
    let ticket = TicketRecord {
        kind: TicketKind::Repair,
        node: NodeId(3),
        expires_at: since,
        uses: 2,
    };
    let session = SessionRecord {
        due_at: since,
        floor: 8,
        is_retired: true,
    };
    let outcome = Outcome {
        index: LogIndex(4),
        response: Response::Done,
    };
    let tag_change = key::tag_change(one, &tag_name("v1"), LogIndex(4));
    vec![
        ("cluster", stored(&[], &cluster)),
        (
            "time",
            stored(
                &[],
                &TimeRecord {
                    now: since,
                    sequence: 3,
                },
            ),
        ),
        ("totals", stored(&[], &totals)),
        ("node", stored(&key::node(NodeId(3)), &node)),
        ("repository", stored(&[], &RepositoryRecord { id: one })),
        ("manifest", stored(&[], &manifest)),
        ("references", stored(&[], &references)),
        (
            "tag",
            stored(
                &[],
                &TagRecord {
                    digest,
                    index: LogIndex(4),
                },
            ),
        ),
        ("tag_change", stored(&tag_change, &change)),
        (
            "referrer",
            stored(&key::referrer(one, &other, &digest), &referrer),
        ),
        ("blob", stored(&[], &blob)),
        (
            "link",
            stored(
                &[],
                &LinkRecord {
                    unreferenced_since: Some(LogTime(0)),
                },
            ),
        ),
        (
            "link referenced",
            stored(
                &[],
                &LinkRecord {
                    unreferenced_since: None,
                },
            ),
        ),
        ("ticket", stored(&[], &ticket)),
        ("session", stored(&[], &session)),
        (
            "answer",
            stored(
                &[],
                &AnswerRecord {
                    sequence: 9,
                    outcome,
                },
            ),
        ),
    ]
}

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
        which in 0_usize..22,
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
