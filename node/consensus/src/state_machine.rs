//! The apply loop: several entries into one overlay, one commit, then the answers.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use metadata::apply::apply_outcome;
use metadata::changes::{Changes, Overlay};
use metadata::codec;
use metadata::ids::LogIndex;
use metadata::response::Outcome;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use storage::failpoints::hit;
use storage::state::{Applied, StateStore};
use tokio::sync::watch;

use crate::log_store::blocking;
use crate::network::convert;
use crate::snapshot::{self, SnapshotBuilder, SnapshotData};
use crate::types::{
    Answer, LogEntry, LogId, Membership, SnapshotMeta, StoredMembership, TypeConfig,
};

/// Entries that share one commit at most. Bounds what is lost to readers' latency when a node catches up.
const BATCH_ENTRIES: usize = 512;
/// Bytes of entries that share one commit at most.
const BATCH_BYTES: usize = 4 << 20;

/// The replicated state of this node, as openraft wants it.
pub(crate) struct StateMachine {
    state: Arc<dyn StateStore>,
    /// Where received snapshots wait until they are installed.
    snapshot_directory: PathBuf,
    /// The last applied membership: every commit writes it next to the log id it belongs to.
    membership: StoredMembership,
    /// Tells waiters what is readable now.
    applied: watch::Sender<LogIndex>,
}

type Batch = Vec<(LogEntry, Option<ApplyResponder<TypeConfig>>)>;

impl StateMachine {
    pub(crate) fn new(
        state: Arc<dyn StateStore>,
        snapshot_directory: PathBuf,
    ) -> io::Result<StateMachine> {
        let applied = state.applied().map_err(io::Error::other)?;
        let membership = convert::decode_membership(applied.membership)?;
        let (sender, _) = watch::channel(applied.index);
        Ok(StateMachine {
            state,
            snapshot_directory,
            membership,
            applied: sender,
        })
    }

    /// Follows the last applied index.
    pub(crate) fn watch_applied(&self) -> watch::Receiver<LogIndex> {
        self.applied.subscribe()
    }

    async fn apply_batch(&mut self, batch: Batch) -> io::Result<()> {
        let Some((last, _)) = batch.last() else {
            return Ok(());
        };
        let index = LogIndex(last.log_id.index);
        let state = self.state.clone();
        let membership = self.membership.clone();
        let work = move || apply_and_commit(&*state, membership, batch);
        let (membership, answers) = tokio::task::spawn_blocking(work).await??;
        self.membership = membership;
        // Readers first: whoever is answered below may read at once and must find its own write.
        self.applied.send_replace(index);
        hit("apply_before_answer")?;
        for (responder, answer) in answers {
            responder.send(answer);
        }
        Ok(())
    }
}

type Answers = Vec<(ApplyResponder<TypeConfig>, Answer)>;

/// Any error here is fatal: a node that skipped an entry would hold another state than its peers.
fn apply_and_commit(
    state: &dyn StateStore,
    mut membership: StoredMembership,
    batch: Batch,
) -> io::Result<(StoredMembership, Answers)> {
    let Some(last) = batch.last().map(|(entry, _)| entry.log_id) else {
        return Ok((membership, Vec::new()));
    };
    let mut commands = Vec::new();
    let mut responders = Vec::with_capacity(batch.len());
    for (entry, responder) in batch {
        let is_command = match entry.payload {
            EntryPayload::Blank => false,
            EntryPayload::Membership(changed) => {
                hit_half_of_change(membership.membership(), &changed)?;
                membership = StoredMembership::new(Some(entry.log_id), changed);
                false
            }
            EntryPayload::Normal(bytes) => {
                commands.push((LogIndex(entry.log_id.index), bytes.0));
                true
            }
        };
        responders.push((responder, is_command));
    }
    let (changes, outcomes) = apply_commands(state, commands)?;
    let applied = Applied {
        index: LogIndex(last.index),
        log_id: convert::encode_log_id(&last),
        membership: convert::encode_membership(&membership),
    };
    state.commit(changes, applied).map_err(io::Error::other)?;

    let mut outcomes = outcomes.into_iter();
    let mut answers = Vec::new();
    for (responder, is_command) in responders {
        let outcome = if is_command { outcomes.next() } else { None };
        if let Some(responder) = responder {
            answers.push((responder, Answer(outcome)));
        }
    }
    Ok((membership, answers))
}

/// A change of voters takes two entries: one that needs majorities of the old and of the new voters, and one that ends it.
fn hit_half_of_change(before: &Membership, changed: &Membership) -> io::Result<()> {
    let is_joint = |membership: &Membership| membership.get_joint_config().len() > 1;
    match (is_joint(before), is_joint(changed)) {
        (_, true) => hit("member_joint_committed"),
        (true, false) => hit("member_final_committed"),
        (false, false) => Ok(()),
    }
}

fn apply_commands(
    state: &dyn StateStore,
    commands: Vec<(LogIndex, bytes::Bytes)>,
) -> io::Result<(Changes, Vec<Outcome>)> {
    if commands.is_empty() {
        return Ok((Changes::new(), Vec::new()));
    }
    let mut result = Ok((Changes::new(), Vec::new()));
    state
        .read(&mut |view| {
            let mut overlay = Overlay::new(view);
            let mut outcomes = Vec::with_capacity(commands.len());
            for (index, bytes) in &commands {
                match apply_command(&mut overlay, *index, bytes) {
                    Ok(outcome) => outcomes.push(outcome),
                    Err(error) => {
                        tracing::error!(log_index = index.0, %error, "an entry could not be applied");
                        result = Err(error);
                        return Ok(());
                    }
                }
            }
            result = Ok((overlay.into_changes(), outcomes));
            Ok(())
        })
        .map_err(io::Error::other)?;
    result
}

fn apply_command(
    overlay: &mut Overlay<'_>,
    index: LogIndex,
    bytes: &bytes::Bytes,
) -> io::Result<Outcome> {
    let entry = codec::decode_entry(bytes.clone()).map_err(io::Error::other)?;
    apply_outcome(overlay, index, &entry).map_err(io::Error::other)
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let meta = snapshot::meta_of(&self.state.applied().map_err(io::Error::other)?)?;
        Ok((meta.last_log_id, meta.last_membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut batch = Batch::new();
        let mut batch_bytes = 0;
        while let Some((entry, responder)) = entries.try_next().await? {
            if let EntryPayload::Normal(command) = &entry.payload {
                batch_bytes += command.0.len();
            }
            batch.push((entry, responder));
            if batch.len() >= BATCH_ENTRIES || batch_bytes >= BATCH_BYTES {
                self.apply_batch(std::mem::take(&mut batch)).await?;
                batch_bytes = 0;
            }
        }
        self.apply_batch(batch).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder::new(self.state.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let (state, directory) = (self.state.clone(), self.snapshot_directory.clone());
        let applied = blocking(move || snapshot.install(&*state, &directory)).await?;
        let installed = snapshot::meta_of(&applied)?;
        if installed.last_log_id < meta.last_log_id {
            return Err(io::Error::other(
                "the installed state is older than its header says",
            ));
        }
        self.membership = installed.last_membership;
        self.applied.send_replace(applied.index);
        tracing::info!(
            log_index = applied.index.0,
            "installed a snapshot of the state"
        );
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<openraft::alias::SnapshotOf<TypeConfig, SnapshotData>>> {
        snapshot::current(&self.state)
    }
}
