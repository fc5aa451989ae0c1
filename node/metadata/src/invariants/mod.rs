//! Every law that ties one part of the state to another.
//!
//! They hold after every entry. Tests and the simulation check them all the time; in production the check runs on
//! demand. It reads the whole state once and looks up what each record promises.

mod blobs;
mod deleted;
mod manifests;
mod tickets;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;

use crate::codec::Record;
use crate::ids::{LogIndex, NodeId, RepositoryId};
use crate::key::{self, Reader, Table};
use crate::record::{
    ClusterRecord, GcRecord, HolderSetRecord, NodeRecord, RepositoryRecord, RepositoryStateRecord,
    RevisionRecord, TimeRecord, TotalsRecord,
};
use crate::scan;
use crate::view::{MetadataView, ViewError};

/// A law that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// What should be true.
    pub law: &'static str,
    /// The key at which it is not.
    pub key: Vec<u8>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "violated at key ")?;
        self.key
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ": {}", self.law)
    }
}

/// How many violations one check lists: a broken table must not fill the memory.
pub const MAX_VIOLATIONS: usize = 1000;

/// Checks every law.
///
/// # Errors
/// [`ViewError`] when the state cannot be read or decoded at all.
pub fn check(view: &dyn MetadataView) -> Result<Vec<Violation>, ViewError> {
    let mut checker = Checker {
        view,
        violations: Vec::new(),
        nodes: BTreeSet::new(),
        repositories: BTreeSet::new(),
        totals: TotalsRecord::default(),
        holder_sets: BTreeMap::new(),
    };
    checker.cluster()?;
    checker.tables()?;
    checker.nodes_and_repositories()?;
    manifests::check(&mut checker)?;
    deleted::check(&mut checker)?;
    blobs::check(&mut checker)?;
    tickets::check(&mut checker)?;
    checker.totals()?;
    Ok(checker.violations)
}

struct Checker<'v> {
    view: &'v dyn MetadataView,
    violations: Vec<Violation>,
    nodes: BTreeSet<NodeId>,
    repositories: BTreeSet<RepositoryId>,
    /// Counted again while the tables are read.
    totals: TotalsRecord,
    /// Likewise: keys of `HolderSet`, and how many blobs they should count.
    holder_sets: BTreeMap<Vec<u8>, HolderSetRecord>,
}

impl Checker<'_> {
    fn expect(&mut self, holds: bool, law: &'static str, key: &[u8]) {
        if !holds && self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation {
                law,
                key: key.to_vec(),
            });
        }
    }

    fn expect_key(
        &mut self,
        promised: &[u8],
        law: &'static str,
        key: &[u8],
    ) -> Result<(), ViewError> {
        let holds = scan::exists(self.view, promised)?;
        self.expect(holds, law, key);
        Ok(())
    }

    fn load<R: Record>(&self, key: &[u8]) -> Result<Option<R>, ViewError> {
        scan::load(self.view, key)
    }

    /// Visits the keys of a table with the parts behind the table byte.
    fn each(
        &mut self,
        table: Table,
        visitor: impl Fn(&mut Self, &[u8], Reader<'_>) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        let view = self.view;
        scan::visit(view, &key::table(table), None, &mut |key, _| {
            visitor(self, key, Reader::new(table, key)?)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Visits the records of a table.
    fn each_record<R: Record>(
        &mut self,
        table: Table,
        visitor: impl Fn(&mut Self, &[u8], Reader<'_>, R) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        let view = self.view;
        scan::visit(view, &key::table(table), None, &mut |key, value| {
            let record = R::decode(key, value)?;
            visitor(self, key, Reader::new(table, key)?, record)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    fn cluster(&mut self) -> Result<(), ViewError> {
        let key = key::single(Table::Cluster);
        if let Some(cluster) = self.load::<ClusterRecord>(&key)? {
            let holds = 1 <= cluster.write_copies && cluster.write_copies <= cluster.copies;
            self.expect(holds, "1 <= W <= R", &key);
        }
        self.load::<TimeRecord>(&key::single(Table::Time))?;
        self.load::<GcRecord>(&key::single(Table::Gc))?;
        Ok(())
    }

    /// Tables that are checked by nobody would rot unseen.
    fn tables(&mut self) -> Result<(), ViewError> {
        let known: BTreeSet<u8> = Table::ALL.iter().map(|table| *table as u8).collect();
        let view = self.view;
        view.scan(&[], None, &mut |key, _| {
            let is_known = key.first().is_some_and(|table| known.contains(table));
            self.expect(is_known, "every key belongs to a table", key);
            ControlFlow::Continue(())
        })
    }

    fn nodes_and_repositories(&mut self) -> Result<(), ViewError> {
        self.each_record::<NodeRecord>(Table::Node, |checker, _, _, record| {
            checker.nodes.insert(record.node);
            Ok(())
        })?;
        self.each_record::<RevisionRecord>(
            Table::RemovedNode,
            |checker, key, mut parts, record| {
                let is_gone = !checker.nodes.contains(&NodeId(parts.number()?));
                checker.expect(is_gone, "a removed node is not registered", key);
                let is_past = record.changed_at <= checker.view.applied();
                checker.expect(is_past, "a node was removed by an applied entry", key);
                Ok(())
            },
        )?;
        self.each_record::<RepositoryRecord>(Table::Repository, |checker, key, _, record| {
            let is_new = checker.repositories.insert(record.id);
            checker.expect(is_new, "no two repositories have one id", key);
            let is_past = record.id.0 <= checker.view.applied().0;
            checker.expect(is_past, "a repository's id is an applied index", key);
            checker.totals.repositories += 1;
            let state: Option<RepositoryStateRecord> =
                checker.load(&key::repository_state(record.id))?;
            let is_inverse = state.is_some_and(|state| key::repository(&state.name) == key);
            checker.expect(is_inverse, "every repository is found by its id", key);
            Ok(())
        })?;
        let key = key::single(Table::Catalog);
        let stored = self.load::<RevisionRecord>(&key)?;
        let changed_at = stored.map(|revision| revision.changed_at);
        let newest = self.repositories.last().map(|id| LogIndex(id.0));
        let holds = changed_at >= newest && changed_at <= Some(self.view.applied());
        let law = "the catalog changed when its newest repository came, or later when one went";
        self.expect(holds, law, &key);
        Ok(())
    }

    fn expect_repository(&mut self, repository: RepositoryId, key: &[u8]) {
        let is_known = self.repositories.contains(&repository);
        self.expect(is_known, "every repository in a key exists", key);
    }

    fn totals(&mut self) -> Result<(), ViewError> {
        let key = key::single(Table::Totals);
        let stored: TotalsRecord = self.load(&key)?.unwrap_or_default();
        let holds = stored == self.totals;
        self.expect(holds, "the totals are what a count gives", &key);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
