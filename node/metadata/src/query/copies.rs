//! How many copies blobs have, and how many they should.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use oci::Digest;

use super::{BlobRecord, blob, cluster, nodes};
use crate::codec::Record;
use crate::command::NodeState;
use crate::ids::NodeId;
use crate::key::{self, Reader, Table};
use crate::record::{HolderSetRecord, TotalsRecord};
use crate::scan;
use crate::view::{MetadataView, ViewError};

/// The blobs of which `node` holds a counted copy, by digest, after `after`.
///
/// # Errors
/// [`ViewError`].
pub fn blobs_of_node(
    view: &dyn MetadataView,
    node: NodeId,
    after: Option<&Digest>,
    limit: usize,
) -> Result<Vec<Digest>, ViewError> {
    let after = after.map(|after| key::placement(node, after));
    scan::page(
        view,
        &key::placements_of(node),
        after.as_deref(),
        limit,
        |key, _| {
            let mut parts = Reader::new(Table::Placement, key)?;
            let _node = parts.number()?;
            Ok(Some(parts.digest()?))
        },
    )
}

/// A blob with fewer lasting copies than it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderReplicated {
    /// Which blob.
    pub digest: Digest,
    /// How many copies it has on nodes that are up and stay.
    pub copies: u32,
}

/// R as far as it can be reached, and what copies count towards it.
struct Target {
    copies: u64,
    nodes: BTreeMap<NodeId, NodeState>,
}

impl Target {
    /// R counts no further than the nodes that are up: a copy that has no place to go is not missing.
    fn load(view: &dyn MetadataView) -> Result<Target, ViewError> {
        let copies = cluster(view)?.map_or(0, |cluster| u64::from(cluster.copies));
        let nodes: BTreeMap<_, _> = nodes(view)?
            .into_iter()
            .map(|node| (node.node, node.state))
            .collect();
        let up = nodes.values().filter(|state| **state == NodeState::Up);
        let copies = copies.min(up.count() as u64);
        Ok(Target { copies, nodes })
    }

    fn lasting_copies(&self, blob: &BlobRecord) -> u32 {
        self.lasting(&blob.holders)
    }

    fn lasting(&self, holders: &[NodeId]) -> u32 {
        let up = holders
            .iter()
            .filter(|node| self.nodes.get(node) == Some(&NodeState::Up));
        u32::try_from(up.count()).unwrap_or(u32::MAX)
    }
}

/// The blobs with fewer holders than R, fewest first. Holders on nodes that are down or draining have their place in
/// this order, so blobs that lack copies only because of those are found with [`under_replicated_of_node`].
///
/// # Errors
/// [`ViewError`].
pub fn under_replicated(
    view: &dyn MetadataView,
    limit: usize,
) -> Result<Vec<UnderReplicated>, ViewError> {
    let target = Target::load(view)?;
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    scan::visit(view, &key::table(Table::Copies), None, &mut |key, _| {
        let mut parts = Reader::new(Table::Copies, key)?;
        if parts.number()? >= target.copies {
            return Ok(ControlFlow::Break(()));
        }
        let digest = parts.digest()?;
        let copies = blob(view, &digest)?.map_or(0, |blob| target.lasting_copies(&blob));
        found.push(UnderReplicated { digest, copies });
        Ok(if found.len() == limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(found)
}

/// How many copies a blob has on nodes that are up, and how many it should have: R, but no more than such nodes.
///
/// # Errors
/// [`ViewError`].
pub fn lasting_copies(view: &dyn MetadataView, blob: &BlobRecord) -> Result<(u32, u32), ViewError> {
    let target = Target::load(view)?;
    let wanted = u32::try_from(target.copies).unwrap_or(u32::MAX);
    Ok((target.lasting_copies(blob), wanted))
}

/// Whether a manifest names the blob.
///
/// # Errors
/// [`ViewError`].
pub fn is_referenced(view: &dyn MetadataView, digest: &Digest) -> Result<bool, ViewError> {
    Ok(scan::first_key(view, &key::of_digest(Table::Edge, digest))?.is_some())
}

/// A page of blobs that lack copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThinBlobs {
    /// Those of the page that lack copies.
    pub blobs: Vec<UnderReplicated>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<Digest>,
}

/// The blobs held by a node, mostly one that is down or draining, that have fewer than R copies on nodes that are up.
/// Looks at `limit` placements after `after`.
///
/// # Errors
/// [`ViewError`].
pub fn under_replicated_of_node(
    view: &dyn MetadataView,
    node: NodeId,
    after: Option<&Digest>,
    limit: usize,
) -> Result<ThinBlobs, ViewError> {
    let target = Target::load(view)?;
    let held = blobs_of_node(view, node, after, limit)?;
    let next = held.last().copied().filter(|_| held.len() == limit);
    let mut blobs = Vec::new();
    for digest in held {
        // Nobody repairs what is condemned.
        let Some(blob) = blob(view, &digest)?.filter(|blob| blob.condemned_since.is_none()) else {
            continue;
        };
        let copies = target.lasting_copies(&blob);
        if u64::from(copies) < target.copies {
            blobs.push(UnderReplicated { digest, copies });
        }
    }
    Ok(ThinBlobs { blobs, next })
}

/// Where a walk over blobs by their number of holders stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobCursor {
    /// How many holders the last one had.
    pub copies: u64,
    /// The last one.
    pub digest: Digest,
}

/// A page of blobs with more copies than they need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SurplusBlobs {
    /// Those of the page with more than R copies on nodes that are up.
    pub blobs: Vec<(Digest, BlobRecord)>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<BlobCursor>,
}

/// Blobs with more than R copies on nodes that are up. Looks at `limit` blobs with more than R holders after `after`.
///
/// # Errors
/// [`ViewError`].
pub fn surplus_blobs(
    view: &dyn MetadataView,
    after: Option<BlobCursor>,
    limit: usize,
) -> Result<SurplusBlobs, ViewError> {
    let wanted = cluster(view)?.map_or(u64::MAX, |cluster| u64::from(cluster.copies));
    let target = Target::load(view)?;
    let start = match after {
        Some(cursor) => key::copies(cursor.copies, &cursor.digest),
        None => key::copies_from(wanted.saturating_add(1)),
    };
    let seen = scan::page(
        view,
        &key::table(Table::Copies),
        Some(&start),
        limit,
        |key, _| {
            let mut parts = Reader::new(Table::Copies, key)?;
            let (copies, digest) = (parts.number()?, parts.digest()?);
            Ok(Some(BlobCursor { copies, digest }))
        },
    )?;
    let mut page = SurplusBlobs {
        blobs: Vec::new(),
        next: seen.last().copied().filter(|_| seen.len() == limit),
    };
    for cursor in seen {
        if let Some(blob) = blob(view, &cursor.digest)?
            && u64::from(target.lasting_copies(&blob)) > wanted
        {
            page.blobs.push((cursor.digest, blob));
        }
    }
    Ok(page)
}

/// Running totals of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Repositories.
    pub repositories: u64,
    /// Tags.
    pub tags: u64,
    /// Manifests, counted once per repository.
    pub manifests: u64,
    /// Their lengths.
    pub manifest_bytes: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their lengths, each blob once.
    pub blob_bytes: u64,
    /// Blobs with fewer copies on nodes that are up than R, or than there are such nodes.
    pub under_replicated_blobs: u64,
    /// Copies to make until every blob has R.
    pub missing_copies: u64,
}

/// Totals without a look at any blob: there are few combinations of nodes that hold one.
///
/// # Errors
/// [`ViewError`].
pub fn stats(view: &dyn MetadataView) -> Result<Stats, ViewError> {
    let totals: TotalsRecord = scan::load(view, &key::single(Table::Totals))?.unwrap_or_default();
    let target = Target::load(view)?;
    let mut stats = Stats {
        repositories: totals.repositories,
        tags: totals.tags,
        manifests: totals.manifests,
        manifest_bytes: totals.manifest_bytes,
        blobs: totals.blobs,
        blob_bytes: totals.blob_bytes,
        under_replicated_blobs: 0,
        missing_copies: 0,
    };
    each_holder_set(view, &mut |holders, held| {
        let missing = target.copies.saturating_sub(target.lasting(holders).into());
        if missing > 0 {
            stats.under_replicated_blobs += held.blobs;
            stats.missing_copies += held.blobs * missing;
        }
    })?;
    Ok(stats)
}

/// The blobs that count a copy on `node`, and their sizes; condemned ones are not among them. Without a look at any blob.
///
/// # Errors
/// [`ViewError`].
pub fn copies_on(view: &dyn MetadataView, node: NodeId) -> Result<HolderSetRecord, ViewError> {
    sum_of(view, |holders| holders.contains(&node))
}

/// Those of [`copies_on`] that must be made elsewhere before the node can go: the nodes that stay have fewer copies of
/// them than R, or than there are such nodes, or than W.
///
/// # Errors
/// [`ViewError`].
pub fn needed_copies_on(
    view: &dyn MetadataView,
    node: NodeId,
) -> Result<HolderSetRecord, ViewError> {
    let write_copies = cluster(view)?.map_or(1, |cluster| u64::from(cluster.write_copies));
    let target = Target::load(view)?;
    let wanted = target.copies.max(write_copies);
    sum_of(view, |holders| {
        holders.contains(&node) && u64::from(target.lasting(holders)) < wanted
    })
}

/// The blobs that count no copy on `node`, and their sizes.
///
/// # Errors
/// [`ViewError`].
pub fn blobs_elsewhere(
    view: &dyn MetadataView,
    node: NodeId,
) -> Result<HolderSetRecord, ViewError> {
    sum_of(view, |holders| !holders.contains(&node))
}

/// The blobs of every combination of holders that is chosen.
fn sum_of(
    view: &dyn MetadataView,
    is_chosen: impl Fn(&[NodeId]) -> bool,
) -> Result<HolderSetRecord, ViewError> {
    let mut sum = HolderSetRecord::default();
    each_holder_set(view, &mut |holders, held| {
        if is_chosen(holders) {
            sum.blobs += held.blobs;
            sum.bytes += held.bytes;
        }
    })?;
    Ok(sum)
}

/// Every combination of nodes that hold a blob, with how many blobs they hold.
fn each_holder_set(
    view: &dyn MetadataView,
    visitor: &mut dyn FnMut(&[NodeId], HolderSetRecord),
) -> Result<(), ViewError> {
    let table = key::table(Table::HolderSet);
    scan::visit(view, &table, None, &mut |key, value| {
        let held = HolderSetRecord::decode(key, value)?;
        let mut parts = Reader::new(Table::HolderSet, key)?;
        let mut holders = Vec::new();
        while !parts.is_at_end() {
            holders.push(NodeId(parts.number()?));
        }
        visitor(&holders, held);
        Ok(ControlFlow::Continue(()))
    })
}
