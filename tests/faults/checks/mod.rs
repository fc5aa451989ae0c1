//! What must hold, judged from the history and from the nodes.

pub(crate) mod content;
pub(crate) mod fsck;
pub(crate) mod logs;
pub(crate) mod state;
pub(crate) mod tags;
