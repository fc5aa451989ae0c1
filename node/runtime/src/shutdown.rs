//! Stopping: tell everybody, wait for everybody, name who did not come.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::request_scope::RequestScope;

/// A group of tasks that stop together. Clones belong to the same group.
///
/// The stages of a shutdown (accept, drain, workers, consensus) each have their own, closed one after another.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    token: CancellationToken,
    tracker: TaskTracker,
    /// How many tasks of each name are running.
    inside: Mutex<BTreeMap<&'static str, usize>>,
}

impl Shutdown {
    /// A group without tasks, open.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Runs a future that [`Shutdown::close_and_wait`] will wait for. The task runs to its end even when the handle
    /// is dropped, which is what a mutation needs whose client has gone away.
    ///
    /// Also possible after closing: a request being drained may still owe a cleanup. What the task does
    /// and logs stays part of the request, or the span, of the caller, whose work it is.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let presence = self.enter(name);
        let task = async move {
            // Moved into the task so that it leaves on return, on panic and on abort alike.
            let _presence = presence;
            future.await
        };
        self.0.tracker.spawn(RequestScope::inherit(task))
    }

    /// Completes (`cancelled().await`) when the group is closed.
    pub fn token(&self) -> CancellationToken {
        self.0.token.clone()
    }

    /// True from the moment the group is closed.
    pub fn is_closing(&self) -> bool {
        self.0.token.is_cancelled()
    }

    /// Tells the tasks to stop and waits until none is left, at most `deadline` long.
    ///
    /// # Errors
    /// [`StillInside`] when the deadline passed first. The tasks go on; they are named in the log.
    pub async fn close_and_wait(&self, deadline: Duration) -> Result<(), StillInside> {
        self.0.token.cancel();
        self.0.tracker.close();
        if tokio::time::timeout(deadline, self.0.tracker.wait())
            .await
            .is_ok()
        {
            return Ok(());
        }
        let late = StillInside {
            tasks: self.0.with_inside(|inside| inside.clone()),
        };
        tracing::warn!(tasks = %late, elapsed_ms = deadline.as_millis(), "tasks kept the door open past the deadline");
        Err(late)
    }

    fn enter(&self, name: &'static str) -> Presence {
        self.0
            .with_inside(|inside| *inside.entry(name).or_default() += 1);
        Presence {
            inner: self.0.clone(),
            name,
        }
    }
}

impl Inner {
    fn with_inside<T>(&self, body: impl FnOnce(&mut BTreeMap<&'static str, usize>) -> T) -> T {
        // The map only counts names for a log line; a panic elsewhere is no reason to lose it.
        body(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One running task, counted under its name until dropped.
struct Presence {
    inner: Arc<Inner>,
    name: &'static str,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.inner.with_inside(|inside| {
            if let Some(count) = inside.get_mut(self.name) {
                *count -= 1;
                if *count == 0 {
                    inside.remove(self.name);
                }
            }
        });
    }
}

/// The deadline of a shutdown passed and these tasks were still running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StillInside {
    /// How many tasks of each name.
    pub tasks: BTreeMap<&'static str, usize>,
}

impl fmt::Display for StillInside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (name, count)) in self.tasks.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{name} ({count})")?;
        }
        Ok(())
    }
}

impl std::error::Error for StillInside {}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn closing_tells_the_tasks_and_waits_for_them() {
        let shutdown = Shutdown::new();
        let token = shutdown.token();
        let task = shutdown.spawn("worker", async move {
            token.cancelled().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            "cleaned up"
        });
        assert!(!shutdown.is_closing());
        shutdown.close_and_wait(DEADLINE).await.unwrap();
        assert!(shutdown.is_closing());
        assert_eq!(task.await.unwrap(), "cleaned up");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_late_is_named_with_a_count() {
        let shutdown = Shutdown::new();
        for _ in 0..2 {
            shutdown.spawn("push", std::future::pending::<()>());
        }
        shutdown.spawn("sweeper", std::future::pending::<()>());
        shutdown.spawn("quick", async {});
        let late = shutdown.close_and_wait(DEADLINE).await.unwrap_err();
        assert_eq!(late.to_string(), "push (2), sweeper (1)");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_outlives_its_dropped_handle() {
        let shutdown = Shutdown::new();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        drop(shutdown.spawn("mutation", async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sender.send("done")
        }));
        shutdown.close_and_wait(DEADLINE).await.unwrap();
        assert_eq!(receiver.await.unwrap(), "done");
    }

    #[tokio::test(start_paused = true)]
    async fn panicked_and_aborted_tasks_do_not_hold_the_door() {
        let shutdown = Shutdown::new();
        let broken = shutdown.spawn("broken", async { panic!("expected in this test") });
        let aborted = shutdown.spawn("aborted", std::future::pending::<()>());
        aborted.abort();
        assert!(broken.await.unwrap_err().is_panic());
        shutdown.close_and_wait(DEADLINE).await.unwrap();
        assert!(shutdown.0.with_inside(|inside| inside.is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_without_tasks_closes_at_once_and_twice() {
        let shutdown = Shutdown::new();
        shutdown.close_and_wait(Duration::ZERO).await.unwrap();
        shutdown
            .clone()
            .close_and_wait(Duration::ZERO)
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_cleanup_spawned_while_draining_is_waited_for() {
        let shutdown = Shutdown::new();
        let (inner, token) = (shutdown.clone(), shutdown.token());
        shutdown.spawn("request", async move {
            token.cancelled().await;
            inner.spawn("cleanup", tokio::time::sleep(Duration::from_secs(2)));
        });
        let started = tokio::time::Instant::now();
        shutdown.close_and_wait(DEADLINE).await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_secs(2));
    }
}
