//! Reading everything back after the faults: each content from each node.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Client, World};
use crate::history::{Action, Content, Outcome};
use crate::report::Check;

/// The first number of the clients that verify; their operations are the last of the history.
pub(crate) const VERIFIER: usize = 10_000;
const THREADS: usize = 6;
/// After the faults a node may be asked again, but not for ever.
const TRIES: usize = 10;

/// Pulls whatever may be there from every node.
pub(crate) fn read_everything(world: &World) {
    let operations = world.history.operations();
    let contents: BTreeSet<Content> = operations
        .into_iter()
        .filter(|operation| *operation.outcome() != Outcome::NotDone)
        .filter_map(|operation| match operation.action {
            Action::Put(content) => Some(content),
            _ => None,
        })
        .collect();
    let tasks: Vec<(&Content, (u64, SocketAddr))> = contents
        .iter()
        .flat_map(|content| world.nodes.iter().map(move |node| (content, *node)))
        .collect();
    println!("reading {} contents from every node", contents.len());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (next, tasks) = (&next, &tasks);
            scope.spawn(move || {
                let mut client = Client::new(VERIFIER + thread, world);
                while let Some((content, node)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    client.read_back(content, *node);
                }
            });
        }
    });
}

impl Client<'_> {
    pub(crate) fn read_back(&mut self, content: &Content, node: (u64, SocketAddr)) {
        for _ in 0..TRIES {
            if let Outcome::Seen(_) = self.pull(content, node) {
                return;
            }
            self.pause(200, 600);
        }
        let text = format!("node {}: {} cannot be read", node.0, content.path());
        self.world.report.found(Check::Durable, text);
    }
}
