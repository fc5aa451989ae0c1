//! The request that a piece of work belongs to, wherever in the cluster it runs.

use std::sync::Arc;

use tracing::{Instrument as _, Span};

/// The header with the id of a request, in HTTP and between the nodes.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// Longest id taken from a client, in bytes.
const ID_MAX_BYTES: usize = 64;

tokio::task_local! {
    static CURRENT: Option<RequestScope>;
}

/// A request: its id, and the span its log lines stand in. Clones are the same request.
///
/// What runs inside knows it by [`RequestScope::current`]; so do the tasks it spawns by `Shutdown::spawn`. Calls to other
/// nodes pass the id on, so that one id finds the lines of all nodes.
#[derive(Clone, Debug)]
pub struct RequestScope {
    id: Arc<str>,
    span: Span,
}

impl RequestScope {
    /// The request that a client or another node names, if the name is harmless in logs and headers: 1 to 64 letters,
    /// digits and `-_.`.
    pub fn named(id: &str) -> Option<RequestScope> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_harmless = !id.is_empty() && id.len() <= ID_MAX_BYTES && id.bytes().all(allowed);
        is_harmless.then(|| RequestScope::new(id))
    }

    /// A request that nobody has named.
    pub fn fresh() -> RequestScope {
        RequestScope::new(&format!("{:016x}", rand::random::<u64>()))
    }

    fn new(id: &str) -> RequestScope {
        RequestScope {
            id: id.into(),
            // As important as the gravest line in it: whatever is logged at all carries the id.
            span: tracing::error_span!("request", request_id = id),
        }
    }

    /// The request that the running code belongs to; none for work that no request asked for.
    pub fn current() -> Option<RequestScope> {
        CURRENT.try_with(Clone::clone).ok().flatten()
    }

    /// Names the request.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Runs a future as part of the request.
    pub async fn run<F: Future>(self, work: F) -> F::Output {
        let span = self.span.clone();
        CURRENT.scope(Some(self), work).instrument(span).await
    }

    /// Runs what does not wait, such as one poll of a body, as part of the request.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span
            .in_scope(|| CURRENT.sync_scope(Some(self.clone()), work))
    }

    /// Makes a future that will run elsewhere part of the request, or of the span, that is current here.
    pub(crate) fn inherit<F: Future>(work: F) -> impl Future<Output = F::Output> {
        CURRENT
            .scope(RequestScope::current(), work)
            .in_current_span()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shutdown;

    fn current() -> Option<String> {
        RequestScope::current().map(|scope| scope.id().to_owned())
    }

    #[test]
    fn only_harmless_names_are_taken() {
        let longest = "x".repeat(ID_MAX_BYTES);
        for id in ["a", "0af7651916cd43dd-8448.eb_211c", &longest] {
            assert_eq!(RequestScope::named(id).expect("harmless").id(), id);
        }
        let too_long = "x".repeat(ID_MAX_BYTES + 1);
        for id in ["", "a b", "a\nb", "a\"b", "a/b", "é", &too_long] {
            assert!(RequestScope::named(id).is_none(), "{id:?}");
        }
        let fresh = RequestScope::fresh();
        assert!(RequestScope::named(fresh.id()).is_some());
        assert_ne!(fresh.id(), RequestScope::fresh().id());
    }

    #[tokio::test]
    async fn the_request_is_known_inside_and_in_the_tasks_it_spawns() {
        assert_eq!(current(), None);
        let scope = RequestScope::named("r-1").expect("harmless");
        assert_eq!(scope.enter(current).as_deref(), Some("r-1"));
        let shutdown = Shutdown::new();
        let seen = scope.run(async {
            tokio::task::yield_now().await;
            assert_eq!(current().as_deref(), Some("r-1"));
            shutdown.spawn("work", async { current() }).await
        });
        assert_eq!(seen.await.expect("ended").as_deref(), Some("r-1"));
        assert_eq!(current(), None);
        let task = shutdown.spawn("work of nobody", async { current() });
        assert_eq!(task.await.expect("ended"), None);
    }
}
