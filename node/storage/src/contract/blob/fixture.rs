//! What the cases share.

use bytes::Bytes;
use metadata::command::{
    AddPlacement, CloseTickets, Command, CommitBlob, OpenTickets, ReportLost, TicketKind,
};
use metadata::ids::{LogIndex, NodeId, TicketId};
use metadata::memory::MemoryLog;
use metadata::query;
use metadata::response::Response;
use oci::{Algorithm, Digest, RepositoryName};

use crate::blob::{BlobOptions, BlobReader, BlobStat, BlobStore, DirectoryBlobs, StagedBlob};

pub(crate) fn on_disk() -> (DirectoryBlobs, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = DirectoryBlobs::open(directory.path(), BlobOptions::default()).expect("opens");
    (store, directory)
}

/// Bytes that differ from chunk to chunk and from seed to seed.
pub(crate) fn bytes(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// A ticket for cases in which no log has a say.
pub(crate) fn ticket(index: u64) -> TicketId {
    TicketId::new(LogIndex(index), 0)
}

/// Stages `bytes` as a socket would deliver them.
pub(crate) async fn stage(store: &dyn BlobStore, name: &str, bytes: &Bytes) -> StagedBlob {
    let mut staged = store.stage(name).await.expect("staged");
    for piece in bytes.chunks(60_000) {
        staged
            .append(bytes.slice_ref(piece))
            .await
            .expect("appended");
    }
    staged
}

/// Stages and commits.
pub(crate) async fn put(store: &dyn BlobStore, bytes: &Bytes, ticket: TicketId) -> BlobStat {
    let digest = digest(bytes);
    let staged = stage(
        store,
        &format!("put-{}-{}", ticket.as_u64(), &digest.hex()[..8]),
        bytes,
    )
    .await;
    store
        .commit(staged, &digest, ticket)
        .await
        .map_err(|(error, _)| error)
        .expect("committed")
}

pub(crate) async fn read_all(reader: &BlobReader) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let next = reader
            .read_at(all.len() as u64, 300_000)
            .await
            .expect("verified");
        if next.is_empty() {
            return all;
        }
        all.extend_from_slice(&next);
    }
}

/// A cluster of two nodes with W = 1, seen from node 1, whose store is under test.
pub(crate) struct Cluster {
    pub log: MemoryLog,
}

pub(crate) const HERE: NodeId = NodeId(1);
pub(crate) const THERE: NodeId = NodeId(2);

impl Cluster {
    pub(crate) fn new() -> Self {
        Cluster {
            log: MemoryLog::with_nodes(&[HERE, THERE], 2, 1).expect("a cluster"),
        }
    }

    pub(crate) fn open(&self, kind: TicketKind) -> TicketId {
        let command = OpenTickets {
            kind,
            node: HERE,
            count: 1,
            ttl_ms: 3_600_000,
        };
        match self.apply(Command::OpenTickets(command)) {
            Response::TicketsOpened { first, .. } => first,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn close(&self, ticket: TicketId) {
        self.apply(Command::CloseTickets(CloseTickets {
            tickets: vec![ticket],
        }));
    }

    /// The state counts copies of `stat` on `holders` from here on. Closes the ticket.
    pub(crate) fn count(&self, stat: BlobStat, ticket: TicketId, holders: &[NodeId]) -> Response {
        self.apply(Command::CommitBlob(CommitBlob {
            ticket,
            repository: RepositoryName::parse("library/busybox").expect("a name"),
            digest: stat.digest,
            size_bytes: stat.size_bytes,
            holders: holders.to_vec(),
            stragglers: 0,
        }))
    }

    pub(crate) fn add(&self, digest: Digest, ticket: TicketId) -> Response {
        self.apply(Command::AddPlacement(AddPlacement {
            ticket,
            node: HERE,
            digest,
        }))
    }

    /// The state does not count the copy of this node any more.
    pub(crate) fn uncount(&self, digest: Digest) {
        self.apply(Command::ReportLost(ReportLost {
            node: HERE,
            digest,
            is_gone: true,
        }));
    }

    pub(crate) fn is_counted(&self, digest: &Digest) -> bool {
        let blob = query::blob(&self.log.snapshot(), digest).expect("readable");
        blob.is_some_and(|blob| blob.holders.contains(&HERE))
    }

    fn apply(&self, command: Command) -> Response {
        self.log.apply(command).expect("applied").response
    }
}
