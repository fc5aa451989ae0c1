//! One of everything that is encoded, with no field at its default.

mod gc;

use std::collections::BTreeMap;

use bytes::Bytes;
use oci::MediaType;

use super::super::Record;
use crate::command::{
    AddPlacement, CloseTickets, Command, DeleteManifest, DeleteTag, DropPlacement, MountBlob,
    NodeState, Precondition, PutManifest, RenewTickets, ReportLost, SetReplication, Tick,
    TicketKind, TouchBlob, UnlinkBlob,
};
use crate::entry::Entry;
use crate::ids::{LogIndex, LogTime, NodeId, RepositoryId, RequestId, TicketId, Timestamp};
use crate::key;
use crate::record::{
    AnswerRecord, BlobRecord, ClusterRecord, LinkRecord, ManifestRecord, NodeRecord,
    ReferencesRecord, Referrer, RepositoryRecord, RevisionRecord, SessionRecord, TagChange,
    TagRecord, TicketRecord, TimeRecord, TotalsRecord,
};
use crate::response::{Outcome, Rejection, Response};
use crate::testing::{self, digest, repository, tag};

const NODE: NodeId = NodeId(3);

fn ticket() -> TicketId {
    TicketId::new(LogIndex(9), 5)
}

pub(super) fn entry(command: Command) -> Entry {
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

pub(super) fn commands() -> Vec<(&'static str, Command)> {
    [
        cluster_commands(),
        blob_commands(),
        manifest_commands(),
        gc::commands(),
    ]
    .concat()
}

fn cluster_commands() -> Vec<(&'static str, Command)> {
    let digest = digest("blob");
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
                tickets: vec![ticket(), ticket()],
                ttl_ms: 1000,
            }),
        ),
        (
            "close_tickets",
            Command::CloseTickets(CloseTickets {
                tickets: vec![ticket()],
            }),
        ),
        (
            "add_placement",
            Command::AddPlacement(AddPlacement {
                ticket: ticket(),
                node: NODE,
                digest,
            }),
        ),
        (
            "drop_placement",
            Command::DropPlacement(DropPlacement { node: NODE, digest }),
        ),
        (
            "report_lost",
            Command::ReportLost(ReportLost {
                node: NODE,
                digest,
                is_gone: false,
            }),
        ),
        (
            "report_gone",
            Command::ReportLost(ReportLost {
                node: NODE,
                digest,
                is_gone: true,
            }),
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

fn blob_commands() -> Vec<(&'static str, Command)> {
    let (repository, digest) = (repository("a/b"), digest("blob"));
    let mut commit = testing::commit(ticket(), "a/b", "blob", &[1, 300]);
    commit.stragglers = 1;
    let mount = |from: Option<&str>| {
        let (from, repository) = (from.map(testing::repository), testing::repository("a/b"));
        Command::MountBlob(MountBlob {
            from,
            repository,
            digest,
        })
    };
    vec![
        ("commit_blob", Command::CommitBlob(commit)),
        ("mount_blob from", mount(Some("c"))),
        ("mount_blob", mount(None)),
        (
            "touch_blob",
            Command::TouchBlob(TouchBlob {
                repository: repository.clone(),
                digest,
            }),
        ),
        (
            "unlink_blob",
            Command::UnlinkBlob(UnlinkBlob { repository, digest }),
        ),
    ]
}

fn manifest_commands() -> Vec<(&'static str, Command)> {
    let (repository, digest) = (repository("a/b"), digest("blob"));
    let delete = |precondition| {
        let (repository, tag) = (testing::repository("a/b"), tag("v1"));
        Command::DeleteTag(DeleteTag {
            repository,
            tag,
            precondition,
        })
    };
    let sparse = PutManifest {
        allows_missing_manifests: true,
        ..put_manifest()
    };
    vec![
        ("put_manifest", Command::PutManifest(put_manifest())),
        ("put_manifest sparse", Command::PutManifest(sparse)),
        (
            "delete_manifest",
            Command::DeleteManifest(DeleteManifest { repository, digest }),
        ),
        ("delete_tag", delete(Precondition::None)),
        ("delete_tag exists", delete(Precondition::Exists)),
        ("delete_tag absent", delete(Precondition::Absent)),
    ]
}

fn put_manifest() -> PutManifest {
    let mut put = testing::manifest("a/b", "manifest", &["blob"], &["v1", "v2"]);
    put.facts.is_index = true;
    put.facts.manifests = vec![testing::reference("child")];
    put.facts.subject = Some(digest("subject"));
    put.facts.artifact_type = Some(MediaType::octet_stream());
    put.facts.annotations = BTreeMap::from([
        ("b".to_owned(), "2".to_owned()),
        ("a".to_owned(), String::new()),
    ]);
    put.precondition = Precondition::Matches(vec![digest("old")]);
    put
}

pub(super) fn responses() -> Vec<(&'static str, Response)> {
    let accepted = [
        ("done", Response::Done),
        (
            "tickets_opened",
            Response::TicketsOpened {
                first: ticket(),
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
                repair_ticket: Some(ticket()),
            },
        ),
        ("blob_mounted", Response::BlobMounted { size_bytes: 5 }),
        ("manifest_put", Response::ManifestPut),
    ];
    let rejected = rejections().map(|(name, rejection)| (name, Response::Rejected(rejection)));
    accepted
        .into_iter()
        .chain(rejected)
        .chain(gc::responses())
        .collect()
}

fn rejections() -> impl Iterator<Item = (&'static str, Rejection)> {
    let digest = digest("blob");
    [
        ("already_initialized", Rejection::AlreadyInitialized),
        ("not_initialized", Rejection::NotInitialized),
        ("repository_unknown", Rejection::RepositoryUnknown),
        ("blob_unknown", Rejection::BlobUnknown),
        ("manifest_unknown", Rejection::ManifestUnknown),
        ("tag_unknown", Rejection::TagUnknown),
        (
            "references_unknown",
            Rejection::ReferencesUnknown(vec![digest, digest]),
        ),
        (
            "size_mismatch",
            Rejection::SizeMismatch {
                digest,
                claimed_bytes: 1,
                actual_bytes: 2,
            },
        ),
        (
            "blob_referenced",
            Rejection::BlobReferenced { manifest: digest },
        ),
        (
            "precondition",
            Rejection::PreconditionFailed {
                current: Some(digest),
            },
        ),
        (
            "precondition none",
            Rejection::PreconditionFailed { current: None },
        ),
        ("ticket_closed", Rejection::TicketClosed(ticket())),
        (
            "too_few_copies",
            Rejection::TooFewCopies {
                reached: 1,
                wanted: 2,
            },
        ),
        ("node_unknown", Rejection::NodeUnknown(NODE)),
        ("disk_mismatch", Rejection::DiskMismatch(NODE)),
        ("not_a_holder", Rejection::NotAHolder(NODE)),
        ("out_of_bounds", Rejection::OutOfBounds),
        ("request_too_old", Rejection::RequestTooOld),
    ]
    .into_iter()
}

/// Encodes a record, and sees that it decodes to itself.
fn stored<R: Record + PartialEq + std::fmt::Debug>(key: &[u8], record: &R) -> Vec<u8> {
    let bytes = record.encode();
    assert_eq!(&R::decode(key, &bytes).unwrap(), record);
    bytes
}

pub(super) fn records() -> Vec<(&'static str, Vec<u8>)> {
    [
        cluster_records(),
        repository_records(),
        blob_records(),
        gc::records(),
    ]
    .concat()
}

fn cluster_records() -> Vec<(&'static str, Vec<u8>)> {
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
        deleted_manifests: 7,
        deleted_manifest_bytes: 8,
    };
    let node = NodeRecord {
        node: NODE,
        http_address: "h".to_owned(),
        grpc_address: "g".to_owned(),
        disk_id: "d".to_owned(),
        registered_at: LogIndex(4),
        state: NodeState::Draining,
        state_since: LogTime(77),
    };
    let session = SessionRecord {
        due_at: LogTime(77),
        floor: 8,
        is_retired: true,
    };
    let outcome = Outcome {
        index: LogIndex(4),
        response: Response::Done,
    };
    vec![
        ("cluster", stored(&[], &cluster)),
        (
            "time",
            stored(
                &[],
                &TimeRecord {
                    now: LogTime(77),
                    sequence: 3,
                },
            ),
        ),
        ("totals", stored(&[], &totals)),
        ("node", stored(&key::node(NODE), &node)),
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

fn repository_records() -> Vec<(&'static str, Vec<u8>)> {
    let (one, child) = (RepositoryId(1), digest("child"));
    let media_type = MediaType::octet_stream();
    let manifest = ManifestRecord {
        media_type: media_type.clone(),
        size_bytes: 5,
        subject: Some(child),
        is_index: true,
        pushed_at: LogIndex(4),
        unneeded_since: Some(LogTime(77)),
        allows_missing_manifests: true,
    };
    let references = ReferencesRecord {
        blobs: vec![digest("blob")],
        manifests: vec![child],
    };
    let change = TagChange {
        index: LogIndex(4),
        digest: None,
        proposed_at: Timestamp(5),
        subject: "me".to_owned(),
        number: 7,
    };
    let referrer = Referrer {
        digest: digest("blob"),
        media_type: media_type.clone(),
        size_bytes: 5,
        artifact_type: Some(media_type),
        annotations: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
    };
    let tag_change = key::tag_change(one, &tag("v1"), LogIndex(4));
    vec![
        ("repository", stored(&[], &RepositoryRecord { id: one })),
        (
            "revision",
            stored(
                &[],
                &RevisionRecord {
                    changed_at: LogIndex(300),
                },
            ),
        ),
        ("manifest", stored(&[], &manifest)),
        ("references", stored(&[], &references)),
        (
            "tag",
            stored(
                &[],
                &TagRecord {
                    digest: digest("blob"),
                    index: LogIndex(4),
                },
            ),
        ),
        ("tag_change", stored(&tag_change, &change)),
        (
            "referrer",
            stored(&key::referrer(one, &child, &digest("blob")), &referrer),
        ),
    ]
}

fn blob_records() -> Vec<(&'static str, Vec<u8>)> {
    let blob = BlobRecord {
        size_bytes: 5,
        holders: vec![NodeId(1), NodeId(300)],
        unlinked_since: Some(LogTime(77)),
        condemned_since: Some(LogTime(0)),
    };
    let kind = TicketKind::Repair;
    let ticket = TicketRecord {
        kind,
        node: NODE,
        expires_at: LogTime(77),
        uses: 2,
    };
    vec![
        ("blob", stored(&[], &blob)),
        (
            "link",
            stored(
                &[],
                &LinkRecord {
                    unreferenced_since: Some(LogTime(0)),
                    touched_at: LogTime(77),
                },
            ),
        ),
        (
            "link referenced",
            stored(
                &[],
                &LinkRecord {
                    unreferenced_since: None,
                    touched_at: LogTime(0),
                },
            ),
        ),
        ("ticket", stored(&[], &ticket)),
    ]
}
