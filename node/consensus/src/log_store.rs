//! openraft's log storage over [`storage::log::LogStore`].

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use metadata::ids::LogIndex;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use storage::error::StorageError;
use storage::failpoints::hit;
use storage::log::{LogEnds, LogStore};
use storage::state::{Applied, StateStore};

use crate::error::StartError;
use crate::network::convert;
use crate::types::{LogEntry, LogId, TypeConfig, Vote};

/// Bytes of entries read at once: a message stays below 8 MiB unless a single entry is larger, and
/// replaying a long log never holds more than this and one entry.
const READ_BYTES: usize = 4 << 20;

/// Appends below this many bytes go to the log on the caller's thread: handing them over would cost more
/// than the copy into the memtable and the page cache.
const INLINE_APPEND_BYTES: usize = 256 << 10;

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";

/// The log of this node, as openraft wants it. Clones share the log.
#[derive(Clone)]
pub(crate) struct LogAdapter {
    log: Arc<dyn LogStore>,
    state: Arc<dyn StateStore>,
}

impl LogAdapter {
    /// `state` is flushed before entries are purged.
    pub(crate) fn new(log: Arc<dyn LogStore>, state: Arc<dyn StateStore>) -> LogAdapter {
        LogAdapter { log, state }
    }

    /// How long the sync that runs now has taken.
    pub(crate) fn sync_age(&self) -> Duration {
        self.log.sync_age()
    }

    /// Whether nothing was ever written: no entry, no vote, no purge marker.
    pub(crate) fn is_empty(&self) -> Result<bool, StorageError> {
        let ends = self.log.ends()?;
        Ok(ends.purged.is_none() && ends.last.is_none() && self.log.hard_state(VOTE)?.is_none())
    }

    /// Refuses a state that lacks entries which the log no longer has: nothing here could bring them back, and
    /// a state with a hole would look like any other. Refuses also a log that is gone or older than the state: votes
    /// went with it, and a node that forgot a vote can elect a second leader.
    pub(crate) fn check_covered_by_state(&self) -> Result<(), StartError> {
        let applied = self.state.applied()?;
        let ends = self.log.ends()?;
        if self.voted_before(&applied)? || self.lacks_its_beginning(&ends)? {
            return Err(StartError::LogLost {
                applied: applied.index,
            });
        }
        let Some((purged, _)) = ends.purged else {
            return Ok(());
        };
        if !applied.log_id.is_empty() && applied.index.0 >= purged {
            return Ok(());
        }
        let (applied, purged) = (applied.index, LogIndex(purged));
        Err(StartError::StateTooOld { applied, purged })
    }

    /// Whether the vote is older than what was applied. A node votes, or follows a leader, before it applies anything
    /// of a term.
    fn voted_before(&self, applied: &Applied) -> Result<bool, StorageError> {
        let unreadable = |source| StorageError::Stream {
            action: "read the vote",
            source,
        };
        let Some(applied) = convert::decode_log_id(&applied.log_id).map_err(unreadable)? else {
            return Ok(false);
        };
        let vote = self.log.hard_state(VOTE)?.map(convert::decode_vote);
        let term = (vote.transpose().map_err(unreadable)?).map_or(0, |vote| vote.leader_id.term);
        Ok(term < applied.leader_id.term)
    }

    /// A log that was never purged begins with the entry that formed the cluster.
    fn lacks_its_beginning(&self, ends: &LogEnds) -> Result<bool, StorageError> {
        let (None, Some((last, _))) = (&ends.purged, &ends.last) else {
            return Ok(false);
        };
        let first = self.log.read(0..last + 1, 1)?;
        Ok(first.first().is_some_and(|(index, _)| *index > 0))
    }

    fn read_chunk(&self, range: Range<u64>) -> io::Result<Vec<LogEntry>> {
        let entries = self.log.read(range, READ_BYTES).map_err(io::Error::other)?;
        entries
            .into_iter()
            .map(|(_, bytes)| convert::decode_entry(bytes))
            .collect()
    }
}

/// Runs what waits for a disk away from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await?
        .map_err(io::Error::other)
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogAdapter {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<LogEntry>> {
        let mut range = bounds(&range);
        let mut entries = Vec::new();
        while !range.is_empty() {
            let chunk = self.read_chunk(range.clone())?;
            let Some(last) = chunk.last() else { break };
            range.start = last.index() + 1;
            entries.extend(chunk);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        self.read_chunk(start..end)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<LogEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let log = self.clone();
        let chunks = stream::unfold(Some(bounds(&range)), move |range| {
            let log = log.clone();
            async move {
                let range = range.filter(|range| !range.is_empty())?;
                match log.read_chunk(range.clone()) {
                    Ok(chunk) => {
                        let rest = chunk.last().map(|last| last.index() + 1..range.end);
                        Some((chunk.into_iter().map(Ok).collect::<Vec<_>>(), rest))
                    }
                    Err(error) => Some((vec![Err(error)], None)),
                }
            }
        });
        Box::pin(futures::StreamExt::flat_map(chunks, stream::iter))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let vote = self.log.hard_state(VOTE).map_err(io::Error::other)?;
        vote.map(convert::decode_vote).transpose()
    }
}

impl RaftLogStorage<TypeConfig> for LogAdapter {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let ends = self.log.ends().map_err(io::Error::other)?;
        let purged = match ends.purged {
            Some((_, marker)) => convert::decode_log_id(&marker)?,
            None => None,
        };
        let last = ends
            .last
            .map(|(_, bytes)| convert::decode_entry(bytes))
            .transpose()?;
        let last = last.map(|entry| entry.log_id);
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last.or(purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        hit("vote_before_write")?;
        let log = self.log.clone();
        let vote = convert::encode_vote(vote);
        blocking(move || log.set_hard_state(VOTE, vote, true)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // Not synced: losing it only means that a restarted node learns it again from the leader.
        let committed = committed.map_or_else(Bytes::new, |id| convert::encode_log_id(&id));
        self.log
            .set_hard_state(COMMITTED, committed, false)
            .map_err(io::Error::other)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let committed = self.log.hard_state(COMMITTED).map_err(io::Error::other)?;
        convert::decode_log_id(&committed.unwrap_or_default())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<(u64, Bytes)> = entries
            .into_iter()
            .map(|entry| (entry.index(), convert::encode_entry(&entry)))
            .collect();
        let size_bytes: usize = entries.iter().map(|(_, bytes)| bytes.len()).sum();
        let synced = Box::new(move |result: Result<(), StorageError>| {
            callback.io_completed(result.map_err(io::Error::other));
        });
        if size_bytes < INLINE_APPEND_BYTES {
            return self.log.append(entries, synced).map_err(io::Error::other);
        }
        let log = self.log.clone();
        blocking(move || log.append(entries, synced)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let log = self.log.clone();
        blocking(move || log.truncate_from(last.map_or(0, |last| last.index + 1))).await
    }

    async fn purge(&mut self, through: LogId) -> io::Result<()> {
        let (log, state) = (self.log.clone(), self.state.clone());
        blocking(move || {
            // openraft purges only what the state has applied. Until the state is durable the entries are the
            // only durable copy of it (protocols.md 10.4), so this order must not change.
            state.flush()?;
            log.purge_through(through.index, convert::encode_log_id(&through))
        })
        .await
    }
}
