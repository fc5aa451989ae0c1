//! What clients asked and what came back: in memory for the checks, and in a synced file for whoever looks into a
//! failure. One JSON object a line; the last line of an id counts, and one without an outcome never returned.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Lines on their way to the file.
const LINES_MAX: usize = 4096;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub(crate) enum Action {
    /// Push content: a blob, or a manifest under its digest or a tag of its own.
    Put(Content),
    /// Pull it by digest.
    Pull(Content),
    /// Delete a manifest by digest.
    Delete(Content),
    /// Read a tag.
    GetTag { register: String },
    /// Move a tag.
    PutTag { register: String, digest: String },
    /// Move it if it points where it is expected to (`None`: if it does not exist).
    SwapTag {
        register: String,
        expected: Option<String>,
        digest: String,
    },
    /// Delete a tag.
    DeleteTag { register: String },
}

/// Something addressed by its digest in one repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) repository: String,
    pub(crate) digest: String,
    pub(crate) is_blob: bool,
}

impl Content {
    pub(crate) fn path(&self) -> String {
        let kind = if self.is_blob { "blobs" } else { "manifests" };
        format!("/v2/{}/{kind}/{}", self.repository, self.digest)
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// 2xx of a write.
    Done,
    /// 200 or 404 of a read: the digest of the bytes that came.
    Seen(Option<String>),
    /// 412, or 404 of a delete.
    Refused,
    /// Surely not carried out: no connection, or a 4xx that is about the request.
    NotDone,
    /// A timeout, a broken connection, a 5xx.
    Unknown,
}

/// One request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Operation {
    pub(crate) id: usize,
    pub(crate) client: usize,
    pub(crate) node: u64,
    #[serde(flatten)]
    pub(crate) action: Action,
    pub(crate) called_at_ns: u64,
    pub(crate) returned_at_ns: u64,
    /// `None`: not returned yet.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) revision: Option<u64>,
    /// The status, or why there was none.
    pub(crate) answer: String,
}

impl Operation {
    /// What is known of the outcome; an operation that never returned may have been carried out.
    pub(crate) fn outcome(&self) -> &Outcome {
        self.outcome.as_ref().unwrap_or(&Outcome::Unknown)
    }

    /// Whether it pushed, read or deleted a blob.
    pub(crate) fn is_of_blob(&self) -> bool {
        match &self.action {
            Action::Put(content) | Action::Pull(content) | Action::Delete(content) => {
                content.is_blob
            }
            Action::GetTag { .. }
            | Action::PutTag { .. }
            | Action::SwapTag { .. }
            | Action::DeleteTag { .. } => false,
        }
    }

    /// When it was over; an operation of unknown outcome may take effect at any later time.
    pub(crate) fn end_ns(&self) -> u64 {
        if *self.outcome() == Outcome::Unknown {
            u64::MAX
        } else {
            self.returned_at_ns
        }
    }
}

/// All operations of a run.
pub(crate) struct History {
    started: Instant,
    operations: Mutex<Vec<Operation>>,
    file: Mutex<Option<Lines>>,
}

/// The way to the thread that writes the file, and its end.
type Lines = (SyncSender<String>, JoinHandle<io::Result<()>>);

impl History {
    pub(crate) fn create(path: &Path) -> io::Result<History> {
        let file = File::create(path)?;
        let (lines, incoming) = mpsc::sync_channel(LINES_MAX);
        let writer = std::thread::spawn(move || write(file, &incoming));
        Ok(History {
            started: Instant::now(),
            operations: Mutex::default(),
            file: Mutex::new(Some((lines, writer))),
        })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Call this before the request is sent.
    pub(crate) fn call(&self, client: usize, node: u64, action: Action) -> usize {
        let mut operations = self
            .operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let id = operations.len();
        let operation = Operation {
            id,
            client,
            node,
            action,
            called_at_ns: self.now_ns(),
            returned_at_ns: 0,
            outcome: None,
            revision: None,
            answer: String::new(),
        };
        let line = serde_json::to_string(&operation).unwrap_or_default();
        operations.push(operation);
        drop(operations);
        self.write_line(line);
        id
    }

    /// Call this after the answer is read.
    pub(crate) fn returned(
        &self,
        id: usize,
        outcome: Outcome,
        revision: Option<u64>,
        answer: String,
    ) {
        let mut operations = self
            .operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let operation = &mut operations[id];
        operation.returned_at_ns = self.now_ns();
        operation.outcome = Some(outcome);
        operation.revision = revision;
        operation.answer = answer;
        let line = serde_json::to_string(operation).unwrap_or_default();
        drop(operations);
        self.write_line(line);
    }

    fn write_line(&self, line: String) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = file.as_ref().map(|(lines, _)| lines.clone());
        drop(file);
        if let Some(lines) = lines {
            // A writer that failed says so at the end.
            let _ = lines.send(line);
        }
    }

    /// How many operations there are so far.
    pub(crate) fn count(&self) -> usize {
        let operations = self.operations.lock();
        operations.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Everything so far.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Writes out the file.
    pub(crate) fn close(&self) -> io::Result<()> {
        let file = self
            .file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((lines, writer)) = file else {
            return Ok(());
        };
        drop(lines);
        writer
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
    }
}

/// Writes and syncs whatever has come together meanwhile.
fn write(file: File, lines: &Receiver<String>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    while let Ok(first) = lines.recv() {
        writeln!(out, "{first}")?;
        for line in lines.try_iter().take(LINES_MAX) {
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        out.get_ref().sync_data()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let history = History::create(&path).unwrap();
        let register = "a".to_owned();
        let id = history.call(1, 2, Action::GetTag { register });
        history.returned(id, Outcome::Seen(None), Some(4), "404".into());
        history.call(
            1,
            3,
            Action::DeleteTag {
                register: "b".into(),
            },
        );
        history.close().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let read: Vec<Operation> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read.len(), 3);
        assert_eq!(read[1].outcome, Some(Outcome::Seen(None)));
        assert_eq!(read[1].revision, Some(4));
        assert_eq!(read[2].outcome(), &Outcome::Unknown);
        assert_eq!(read[2].end_ns(), u64::MAX);
    }
}
