//! The points, and what it takes to reach each of them.

use clap::ValueEnum;

/// The table of points, which a test of the house keeps equal to the code.
const DOCUMENT: &str = include_str!("../../../node/docs/failpoints.md");

/// What a point does, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    /// An I/O error.
    Error,
    /// The disk is full.
    NoSpace,
    /// The process dies.
    Panic,
    /// It takes longer.
    Delay,
}

impl Action {
    pub(crate) const ALL: [Action; 4] =
        [Action::Delay, Action::Error, Action::NoSpace, Action::Panic];

    /// In the language of the nodes.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Action::Error => "return(EIO)",
            Action::NoSpace => "return(ENOSPC)",
            Action::Panic => "return(panic)",
            Action::Delay => "return(delay 400)",
        }
    }

    /// Whether a step fails, so that errors are to be expected.
    pub(crate) fn fails(self) -> bool {
        matches!(self, Action::Error | Action::NoSpace)
    }

    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Which node has the point set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Any,
    Leader,
    Follower,
}

/// What reaches a point besides the work of every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nothing: pushes, deletes and collection do.
    Work,
    /// So many log entries that the log is purged.
    Churn,
    /// The leader dies.
    Election,
    /// The node was away for so long that it needs a snapshot.
    Lag,
    /// Another node needs one.
    Send,
    /// A copy of the node is damaged and read.
    Damage,
    /// A copy of another node is damaged and read.
    Serve,
    /// The copies of another node come late.
    Straggler,
    /// Its own copies come late.
    Late,
    /// A scrub.
    Scrub,
    /// A copy is lost.
    Repair,
    /// A copy is lost, and a good file appears in its place.
    Orphan,
    /// A start without the reserve file.
    Reserve,
    /// Another node is silent for so long that it is down.
    Absent,
    /// An upload that takes longer.
    Renew,
    /// A new cluster.
    Form,
    /// A cluster that gets another member.
    Grow,
    /// That too, and both the leader and the member come by.
    GrowBoth,
    /// A cluster that a member leaves.
    Shrink,
    /// A cluster that wants fewer copies.
    Trim,
}

impl Reach {
    /// Whether it needs a cluster of its own.
    pub(crate) fn is_fresh(self) -> bool {
        matches!(
            self,
            Reach::Form | Reach::Grow | Reach::GrowBoth | Reach::Shrink | Reach::Trim
        )
    }

    /// Whether copies of the node are damaged on purpose, so that its directory is not sound before it has mended them.
    pub(crate) fn damages(self) -> bool {
        matches!(
            self,
            Reach::Damage | Reach::Serve | Reach::Repair | Reach::Orphan
        )
    }

    /// Whether it waits for more than a moment.
    pub(crate) fn is_slow(self) -> bool {
        self.is_fresh() || matches!(self, Reach::Repair | Reach::Absent | Reach::Orphan)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) reach: Reach,
}

/// Every point of the document.
pub(crate) fn all() -> Vec<Point> {
    let rows = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with("| point |"));
    rows.filter_map(|row| row.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| plan(name))
        .collect()
}

fn plan(name: &'static str) -> Point {
    let (role, reach) = match name {
        "vote_before_write" | "vote_before_mark" => (Role::Follower, Reach::Election),
        "log_before_change" => (Role::Any, Reach::Churn),
        "snapshot_before_send" | "snapshot_build" => (Role::Leader, Reach::Send),
        "lost_before_propose"
        | "fetch_before_write"
        | "fetch_before_commit"
        | "fetch_before_place" => (Role::Any, Reach::Damage),
        "fetch_before_send" | "blob_before_read" => (Role::Any, Reach::Serve),
        "place_before_propose" => (Role::Any, Reach::Straggler),
        "pin_before_reply" => (Role::Any, Reach::Late),
        "scrub_before_note" => (Role::Any, Reach::Scrub),
        "adopt_before_record" | "adopt_before_place" => (Role::Any, Reach::Orphan),
        "repair_before_copy" => (Role::Any, Reach::Repair),
        "reserve_before_allocate" => (Role::Any, Reach::Reserve),
        "node_state_before_propose" => (Role::Leader, Reach::Absent),
        "tickets_before_renew" => (Role::Any, Reach::Renew),
        "identity_before_write"
        | "form_before_initialize"
        | "name_before_propose"
        | "register_before_propose" => (Role::Any, Reach::Form),
        "member_joint_committed" | "member_final_committed" => (Role::Any, Reach::GrowBoth),
        "member_before_remove" | "member_before_vote_taken" => (Role::Leader, Reach::Shrink),
        _ if name.starts_with("purge_") => (Role::Any, Reach::Churn),
        _ if name.starts_with("snapshot_") => (Role::Follower, Reach::Lag),
        _ if name.starts_with("quarantine_") => (Role::Any, Reach::Damage),
        _ if name.starts_with("member_") => (Role::Any, Reach::Grow),
        _ if name.starts_with("trim_") => (Role::Any, Reach::Trim),
        _ if ["gc_", "forward_", "tick_"]
            .iter()
            .any(|start| name.starts_with(start)) =>
        {
            (Role::Leader, Reach::Work)
        }
        _ => (Role::Any, Reach::Work),
    };
    Point { name, role, reach }
}

/// The cases of a short run: every other point that needs no long wait, each with one action in turn.
pub(crate) fn quick(points: &[Point]) -> Vec<(Point, Action)> {
    let quick = points.iter().filter(|point| !point.reach.is_slow());
    let every_other = quick.step_by(2).enumerate();
    every_other
        .map(|(number, point)| (*point, Action::ALL[number % Action::ALL.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_read() {
        let points = all();
        assert!(points.len() > 60, "{}", points.len());
        assert!(points.iter().any(|point| point.name == "raft_before_sync"));
        let cases = quick(&points);
        assert!((20..50).contains(&cases.len()), "{}", cases.len());
        for action in Action::ALL {
            assert!(cases.iter().any(|(_, used)| *used == action));
        }
    }
}
