//! Files without a reason: copies that the state does not count here and no open ticket protects, files that no record
//! knows, uploads whose ticket is closed, and names that a node never makes. A running node counts or removes what is its
//! own in time (protocols.md section 6.2), so it is wrong only when it had that time.

use std::collections::BTreeSet;
use std::path::Path;

use metadata::ids::TicketId;
use metadata::query::{self, TicketState};
use metadata::view::ViewError;
use oci::Digest;
use storage::blob::offline::OfflineBlobs;
use storage::rocks::offline::OfflineState;

use super::directory::LISTED;
use super::report::Report;

/// What to compare.
pub(super) struct Unaccounted<'a> {
    pub(super) path: &'a Path,
    pub(super) state: &'a OfflineState,
    pub(super) blobs: &'a OfflineBlobs,
    /// Blobs that have a record and a whole file here.
    pub(super) whole: &'a BTreeSet<Digest>,
    /// Those that the state counts here.
    pub(super) counted: &'a BTreeSet<Digest>,
}

impl Unaccounted<'_> {
    /// Reports them, as wrong when the node had time to remove them.
    pub(super) fn check(&self, is_settled: bool, report: &mut Report) {
        match self.find() {
            Ok(found) => self.tell(&found, is_settled, report),
            Err(error) => report.error(self.path, format!("blobs: {error}")),
        }
    }

    fn find(&self) -> Result<Found, Box<dyn std::error::Error>> {
        let strays = self.blobs.strays()?;
        let mut blobs = BTreeSet::new();
        for digest in self.whole.difference(self.counted) {
            if !self.is_open(self.blobs.pins(digest)?)? {
                blobs.insert(*digest);
            }
        }
        blobs.extend(strays.orphans.iter().map(|orphan| orphan.digest));
        let mut others = Vec::new();
        for name in &strays.staged {
            if !self.is_open(registry::ticket_of_name(name))? {
                let why = "is staged, and no open ticket protects it";
                others.push(format!("uploads/{name}: it {why}"));
            }
        }
        for path in &strays.foreign {
            others.push(format!("{}: a node makes no such file", path.display()));
        }
        Ok(Found {
            blobs,
            others,
            staged: strays.staged.len(),
        })
    }

    /// Whether one of the tickets may still make a blob of what it protects.
    fn is_open(&self, tickets: impl IntoIterator<Item = TicketId>) -> Result<bool, ViewError> {
        let tickets = Vec::from_iter(tickets);
        self.state.read(|view| {
            for ticket in &tickets {
                if query::ticket(view, *ticket)? != TicketState::Closed {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    fn tell(&self, found: &Found, is_settled: bool, report: &mut Report) {
        let staged = format!("{} uploads are staged", found.staged);
        report.note(self.path, staged);
        let count = found.blobs.len() + found.others.len();
        if count == 0 {
            return report.note(self.path, "every file has a reason to be here");
        }
        let why = "neither does the state count it here nor does an open ticket protect it";
        let blobs = found.blobs.iter();
        let blobs = blobs.map(|digest| format!("blob {digest}: {why}"));
        let listed = blobs.chain(found.others.iter().cloned());
        let listed = listed.take(LISTED).filter(|_| is_settled);
        let sum = format!(
            "{count} files have no reason to be here; what is a blob or an upload the node counts or removes when it runs"
        );
        for text in listed.chain([sum]) {
            match is_settled {
                true => report.error(self.path, text),
                false => report.warning(self.path, text),
            }
        }
    }
}

/// What is here without a reason.
struct Found {
    blobs: BTreeSet<Digest>,
    /// Files that are no blobs, each with what is wrong with it.
    others: Vec<String>,
    /// Uploads, with a reason or without.
    staged: usize,
}
