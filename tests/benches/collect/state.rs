//! A replicated state on disk that is filled and changed by applying entries, as a node does it.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use metadata::apply::apply_outcome;
use metadata::changes::Overlay;
use metadata::command::{
    Command, CommitBlob, InitializeCluster, ManifestFacts, ManifestReference, OpenTickets,
    Precondition, PutManifest, RegisterNode, TicketKind,
};
use metadata::entry::Entry;
use metadata::ids::{LogIndex, NodeId, TICKETS_PER_ENTRY, TicketId, Timestamp};
use metadata::response::Response;
use metadata::view::{Counted, MetadataView, ViewError};
use oci::{Algorithm, Digest, MediaType, RepositoryName, Tag};
use storage::rocks::{RocksState, StorageOptions};
use storage::state::{Applied, StateStore as _};

/// Layers and config of one image; no two images share one, so that deleting one frees all of them.
pub(crate) const BLOBS_PER_IMAGE: usize = 5;

/// Images of one repository.
const IMAGES_PER_REPOSITORY: usize = 1_000;

/// Images pushed in one batch: about as many entries as a busy node applies at once.
const IMAGES_PER_BATCH: usize = 32;

/// Tickets opened by one entry.
const TICKETS_OPENED: usize = 32;

/// Nodes, all of which hold every blob.
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// What applying entries took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    pub(crate) entries: u64,
    /// Keys looked up, and keys passed in scans.
    pub(crate) reads: u64,
    pub(crate) writes: u64,
}

pub(crate) struct State {
    rocks: RocksState,
    index: u64,
    pub(crate) work: Work,
}

impl State {
    pub(crate) fn create(directory: &Path) -> Result<State> {
        std::fs::create_dir_all(directory)?;
        let options = StorageOptions {
            block_cache_bytes: 16 << 20,
            ..StorageOptions::default()
        };
        let mut state = State {
            rocks: RocksState::open(directory, &options)?,
            index: 0,
            work: Work::default(),
        };
        state.apply(vec![Command::InitializeCluster(InitializeCluster {
            cluster_id: "0123456789abcdef0123456789abcdef".into(),
            upload_key: Bytes::from_static(&[7; 32]),
            copies: 3,
            write_copies: 2,
        })])?;
        let register = |node: NodeId| {
            Command::RegisterNode(RegisterNode {
                node,
                http_address: format!("node-{node}:5000"),
                grpc_address: format!("node-{node}:5100"),
                disk_id: format!("disk-{node}"),
            })
        };
        state.apply(NODES.into_iter().map(register).collect())?;
        Ok(state)
    }

    /// Applies the commands as one batch; a refusal is an error.
    pub(crate) fn apply(&mut self, commands: Vec<Command>) -> Result<Vec<Response>> {
        let first = self.index + 1;
        let mut applied = Ok(Vec::new());
        let (mut changes, mut reads) = (None, 0);
        self.work.entries += commands.len() as u64;
        self.rocks.read(&mut |view| {
            let counted = Counted::new(view);
            let mut overlay = Overlay::new(&counted);
            applied = commands
                .iter()
                .zip(first..)
                .map(|(command, at)| apply_one(&mut overlay, LogIndex(at), command))
                .collect();
            changes = Some(overlay.into_changes());
            reads = counted.reads();
            Ok(())
        })?;
        let (responses, changes) = (applied?, changes.context("nothing was read")?);
        self.index += responses.len() as u64;
        self.work.reads += reads;
        self.work.writes += changes.len() as u64;
        let applied = Applied {
            index: LogIndex(self.index),
            ..Applied::default()
        };
        self.rocks.commit(changes, applied)?;
        Ok(responses)
    }

    /// Pushes images `0..count`, each in its repository under a tag of its own.
    pub(crate) fn fill(&mut self, count: usize) -> Result<()> {
        for first in (0..count).step_by(IMAGES_PER_BATCH) {
            let images = first..count.min(first + IMAGES_PER_BATCH);
            let tickets = images.len() * BLOBS_PER_IMAGE;
            let mut commands = Vec::new();
            let mut ids = Vec::new();
            for (at, opened) in (self.index + 1..).zip((0..tickets).step_by(TICKETS_OPENED)) {
                let block = (tickets - opened).min(TICKETS_OPENED);
                let of_block = (0..TICKETS_PER_ENTRY).take(block);
                ids.extend(of_block.map(|number| TicketId::new(LogIndex(at), number)));
                commands.push(Command::OpenTickets(OpenTickets {
                    kind: TicketKind::Upload,
                    node: NODES[0],
                    count: u32::try_from(block)?,
                    ttl_ms: 3_600_000,
                }));
            }
            let mut ids = ids.into_iter();
            for image in images {
                commands.extend(push(image, &mut ids)?);
            }
            self.apply(commands)?;
        }
        Ok(self.rocks.flush()?)
    }

    pub(crate) fn look<T>(
        &mut self,
        query: impl FnOnce(&dyn MetadataView) -> Result<T, ViewError>,
    ) -> Result<T> {
        let (mut query, mut found, mut reads) = (Some(query), None, 0);
        self.rocks.read(&mut |view| {
            let counted = Counted::new(view);
            if let Some(query) = query.take() {
                found = Some(query(&counted)?);
            }
            reads = counted.reads();
            Ok(())
        })?;
        self.work.reads += reads;
        found.context("nothing was read")
    }
}

fn apply_one(overlay: &mut Overlay<'_>, at: LogIndex, command: &Command) -> Result<Response> {
    let entry = Entry {
        proposed_at: Timestamp(at.0),
        subject: String::new(),
        request: None,
        command: command.clone(),
    };
    match apply_outcome(overlay, at, &entry)?.response {
        Response::Rejected(rejection) => bail!("entry {at} was refused: {rejection}"),
        response => Ok(response),
    }
}

pub(crate) fn repository(image: usize) -> Result<RepositoryName> {
    let name = format!("bench/{:04}", image / IMAGES_PER_REPOSITORY);
    Ok(RepositoryName::parse(&name)?)
}

/// The manifest of an image: real JSON, because the second opinion parses it.
pub(crate) fn manifest(image: usize) -> (Digest, Bytes) {
    let describe = |kind: &str, blob: usize| {
        let (digest, size) = blob_of(image, blob);
        format!(r#"{{"mediaType":"{kind}","size":{size},"digest":"{digest}"}}"#)
    };
    let layers: Vec<String> = (1..BLOBS_PER_IMAGE)
        .map(|blob| describe("application/vnd.oci.image.layer.v1.tar+gzip", blob))
        .collect();
    let body = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        describe("application/vnd.oci.image.config.v1+json", 0),
        layers.join(",")
    );
    (Digest::of(Algorithm::Sha256, body.as_bytes()), body.into())
}

fn blob_of(image: usize, blob: usize) -> (Digest, u64) {
    let name = format!("{image}/{blob}");
    let digest = Digest::of(Algorithm::Sha256, name.as_bytes());
    (digest, 1_000_000 + (image + blob) as u64)
}

fn push(image: usize, tickets: &mut impl Iterator<Item = TicketId>) -> Result<Vec<Command>> {
    let repository = repository(image)?;
    let mut commands = Vec::with_capacity(BLOBS_PER_IMAGE + 1);
    let mut facts = ManifestFacts::default();
    for blob in 0..BLOBS_PER_IMAGE {
        let (digest, size_bytes) = blob_of(image, blob);
        facts.blobs.push(ManifestReference { digest, size_bytes });
        commands.push(Command::CommitBlob(CommitBlob {
            ticket: tickets.next().context("too few tickets")?,
            repository: repository.clone(),
            digest,
            size_bytes,
            holders: NODES.to_vec(),
            stragglers: 0,
        }));
    }
    let (digest, body) = manifest(image);
    commands.push(Command::PutManifest(PutManifest {
        repository,
        digest,
        media_type: MediaType::oci_manifest(),
        body,
        facts,
        tags: vec![Tag::parse(&format!("image-{image}"))?],
        precondition: Precondition::None,
        allows_missing_manifests: false,
    }));
    Ok(commands)
}
