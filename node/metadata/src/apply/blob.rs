//! Blobs in repositories: commit, mount, touch, unlink.

use std::collections::BTreeSet;

use oci::Digest;

use super::node::{self, Nodes};
use super::{Refusal, Scope, index, review, ticket};
use crate::command::{CommitBlob, MountBlob, TicketKind, TouchBlob, UnlinkBlob};
use crate::ids::{NodeId, RepositoryId, TicketId};
use crate::key;
use crate::record::{BlobRecord, LinkRecord, TicketRecord};
use crate::response::{Rejection, Response};
use crate::scan;

/// How long the nodes that still receive a committed blob have to finish: ten minutes of log time, in
/// milliseconds.
pub const REPAIR_TTL_MS: u64 = 10 * 60 * 1000;

const EVERY_LINK_HAS_A_BLOB: &str = "every link has a blob";

/// Holders are recorded whatever their state: each has pinned the bytes under the open ticket, so its copy is a safe one,
/// and leaving it out would only make it garbage. Towards W those that are down do not count.
pub(super) fn commit(scope: &mut Scope<'_, '_>, command: &CommitBlob) -> Result<Response, Refusal> {
    let cluster = scope.cluster()?;
    let upload = ticket::check_open(scope, command.ticket, TicketKind::Upload)?;
    for holder in &command.holders {
        node::check_registered(scope, *holder)?;
    }
    let before: Option<BlobRecord> = scope.load(&key::blob(&command.digest))?;
    if let Some(known) = &before {
        check_size(command, known)?;
    }
    let mut holders: BTreeSet<NodeId> = command.holders.iter().copied().collect();
    holders.extend(before.iter().flat_map(|known| &known.holders));
    let reached = Nodes::load(scope)?.live_copies(&holders);
    if reached < cluster.write_copies {
        return Err(Rejection::TooFewCopies {
            reached,
            wanted: cluster.write_copies,
        }
        .into());
    }

    let repository = scope.repository_or_new(&command.repository)?;
    let mut after = BlobRecord {
        size_bytes: command.size_bytes,
        holders: holders.into_iter().collect(),
        unlinked_since: before.as_ref().and_then(|known| known.unlinked_since),
        condemned_since: before.as_ref().and_then(|known| known.condemned_since),
    };
    review::link(scope, repository, &command.digest, &mut after)?;
    index::put_blob(scope, &command.digest, before.as_ref(), &after)?;
    index::put_ticket(scope, command.ticket, Some(&upload), None);
    let repair_ticket =
        (command.stragglers > 0).then(|| open_repair_ticket(scope, &upload, command.stragglers));
    Ok(Response::BlobCommitted { repair_ticket })
}

fn check_size(command: &CommitBlob, known: &BlobRecord) -> Result<(), Rejection> {
    if known.size_bytes == command.size_bytes {
        return Ok(());
    }
    Err(Rejection::SizeMismatch {
        digest: command.digest,
        claimed_bytes: command.size_bytes,
        actual_bytes: known.size_bytes,
    })
}

/// One ticket for all stragglers: it closes with the last of them, or when it expires.
fn open_repair_ticket(
    scope: &mut Scope<'_, '_>,
    upload: &TicketRecord,
    stragglers: u32,
) -> TicketId {
    let id = TicketId::new(scope.at, 0);
    let record = TicketRecord {
        kind: TicketKind::Repair,
        node: upload.node,
        expires_at: scope.now.plus_ms(REPAIR_TTL_MS),
        uses: stragglers,
    };
    index::put_ticket(scope, id, None, Some(&record));
    id
}

pub(super) fn mount(scope: &mut Scope<'_, '_>, command: &MountBlob) -> Result<Response, Refusal> {
    let is_linked = match &command.from {
        Some(from) => match scope.repository(from)? {
            Some(from) => scope.exists(&key::link(from, &command.digest))?,
            None => false,
        },
        None => scan::first_key(scope.state, &key::links_of(&command.digest))?.is_some(),
    };
    if !is_linked {
        return Err(Rejection::BlobUnknown.into());
    }
    let before: BlobRecord =
        scope.load_promised(&key::blob(&command.digest), EVERY_LINK_HAS_A_BLOB)?;
    let repository = scope.repository_or_new(&command.repository)?;
    let mut after = before.clone();
    review::link(scope, repository, &command.digest, &mut after)?;
    index::put_blob(scope, &command.digest, Some(&before), &after)?;
    Ok(Response::BlobMounted {
        size_bytes: after.size_bytes,
    })
}

pub(super) fn touch(scope: &mut Scope<'_, '_>, command: &TouchBlob) -> Result<Response, Refusal> {
    let repository = scope.known_repository(&command.repository)?;
    check_linked(scope, repository, &command.digest)?;
    let before: BlobRecord =
        scope.load_promised(&key::blob(&command.digest), EVERY_LINK_HAS_A_BLOB)?;
    let mut after = before.clone();
    review::link(scope, repository, &command.digest, &mut after)?;
    index::put_blob(scope, &command.digest, Some(&before), &after)?;
    Ok(Response::Done)
}

pub(super) fn unlink(scope: &mut Scope<'_, '_>, command: &UnlinkBlob) -> Result<Response, Refusal> {
    let repository = scope.known_repository(&command.repository)?;
    let link = check_linked(scope, repository, &command.digest)?;
    if let Some(manifest) = index::referencing_manifest(scope, repository, &command.digest)? {
        return Err(Rejection::BlobReferenced { manifest }.into());
    }
    index::put_link(scope, repository, &command.digest, Some(link), None);
    review::link_removed(scope, &command.digest)?;
    review::repository_left(scope, repository)?;
    Ok(Response::Done)
}

fn check_linked(
    scope: &Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<LinkRecord, Refusal> {
    Ok(scope
        .load(&key::link(repository, digest))?
        .ok_or(Rejection::BlobUnknown)?)
}
