//! `clusterctl member`.

use std::pin::pin;
use std::time::Duration;

use clap::Subcommand;
use proto::admin::{AddMemberRequest, ChangeVoteRequest, StatusReply, StatusRequest};
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::{self, CommandError};
use crate::commands::{removal, status};
use crate::output::Format;

/// How often the new node is asked how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How long a change of votes may take.
const VOTE_TIME: Duration = Duration::from_secs(60);

/// What to do with members.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show who belongs to the cluster, who votes, who leads, and who answers.
    List,
    /// Add a member and wait until it serves. The new node must run with cluster.wait_for_init and an empty data
    /// directory. May be repeated after an error.
    Add {
        /// The new node and its gRPC address.
        #[arg(value_name = "ID=HOST:PORT", value_parser = client::parse_member)]
        member: (u64, String),
        /// Give up after this time; a new voter may have to copy the whole state first.
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        timeout: u64,
        /// Without a vote: it keeps copies and serves, and does not count for the quorum.
        #[arg(long)]
        learner: bool,
    },
    /// Give a member that has none a vote.
    Promote {
        /// The node.
        #[arg(value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
        node: u64,
    },
    /// Take the vote of a member. It keeps its copies and goes on serving.
    Demote {
        /// The node.
        #[arg(value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
        node: u64,
        /// Leave fewer than three voters, which do not survive the loss of one.
        #[arg(long)]
        allow_few: bool,
    },
    /// Put an empty node in the place of another one, which may be dead: add, drain, remove. May be repeated after an error.
    Replace {
        /// The node that goes.
        #[arg(value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
        old: u64,
        /// The new node, with a number that was never used, and its gRPC address.
        #[arg(value_name = "ID=HOST:PORT", value_parser = client::parse_member)]
        new: (u64, String),
        /// Give up after this time; the new node may have to copy everything first.
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
        timeout: u64,
    },
    /// Let a node give its copies away, and wait until it can be removed. It goes on serving.
    Drain(removal::DrainArguments),
    /// Remove a node that drained, or one that is down, for good. Its number is never used again. May be repeated after an
    /// error.
    Remove(removal::RemoveArguments),
}

/// Runs a member command.
pub(crate) async fn run(
    endpoints: &[String],
    format: Format,
    command: Command,
) -> Result<(), CommandError> {
    match command {
        Command::List => status::list_members(endpoints, format).await,
        Command::Drain(drain) => removal::drain(endpoints, format, drain).await,
        Command::Remove(remove) => removal::remove(endpoints, format, remove).await,
        Command::Add {
            member,
            timeout,
            learner,
        } => {
            let deadline = Instant::now() + Duration::from_secs(timeout);
            let id = member.0;
            add(endpoints, member, learner, deadline).await?;
            let role = if learner { "learner" } else { "voter" };
            match format {
                Format::Json => println!("{:#}", json!({ "added": id, "role": role })),
                Format::Table => println!("node {id} is a {role} and serves"),
            }
            Ok(())
        }
        Command::Promote { node } => change_vote(endpoints, format, node, true, false).await,
        Command::Demote { node, allow_few } => {
            change_vote(endpoints, format, node, false, allow_few).await
        }
        Command::Replace { old, new, timeout } => {
            let deadline = Instant::now() + Duration::from_secs(timeout);
            if old == new.0 {
                let reason = "a number is never used again; give the new node another one";
                return Err(CommandError::Usage(reason.to_owned()));
            }
            add(endpoints, new, false, deadline).await?;
            removal::replace(endpoints, format, old, deadline).await
        }
    }
}

async fn change_vote(
    endpoints: &[String],
    format: Format,
    node: u64,
    vote: bool,
    allow_few: bool,
) -> Result<(), CommandError> {
    let mut request = tonic::Request::new(ChangeVoteRequest {
        node_id: node,
        vote,
        allow_few,
    });
    request.set_timeout(VOTE_TIME);
    client::connect(endpoints)
        .await?
        .change_vote(request)
        .await?;
    match (format, vote) {
        (Format::Json, _) => println!("{:#}", json!({ "node": node, "voter": vote })),
        (Format::Table, true) => println!("node {node} votes"),
        (Format::Table, false) => println!("node {node} does not vote"),
    }
    Ok(())
}

async fn add(
    endpoints: &[String],
    (id, address): (u64, String),
    learner: bool,
    deadline: Instant,
) -> Result<(), CommandError> {
    let mut node = NewNode {
        id,
        address,
        learner,
        seen: Seen::Nothing,
    };
    let index = node.add(endpoints, deadline).await?;
    node.wait_until_it_serves(index, deadline).await
}

/// The node on its way into the cluster.
struct NewNode {
    id: u64,
    address: String,
    learner: bool,
    seen: Seen,
}

/// What the new node said last.
#[derive(PartialEq)]
enum Seen {
    /// It was not asked yet.
    Nothing,
    Silent(String),
    Answer(Box<StatusReply>),
}

impl NewNode {
    /// Gives it a vote. Returns what the leader had committed then: the new node must have it, too.
    async fn add(&mut self, endpoints: &[String], deadline: Instant) -> Result<u64, CommandError> {
        let mut client = client::connect(endpoints).await?;
        let mut request = tonic::Request::new(AddMemberRequest {
            id: self.id,
            grpc_address: self.address.clone(),
            learner: self.learner,
        });
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        let mut added = pin!(client.add_member(request));
        loop {
            tokio::select! {
                reply = &mut added => return match reply {
                    Ok(reply) => Ok(reply.into_inner().log_index),
                    Err(status) => Err(CommandError::Refused(match self.seen {
                        Seen::Nothing => status.message().to_owned(),
                        Seen::Silent(_) | Seen::Answer(_) => {
                            format!("{}; node {} {}", status.message(), self.id, self.progress(None))
                        }
                    })),
                },
                () = sleep_until(Instant::now() + PROGRESS_INTERVAL) => self.look(None).await,
            }
            if Instant::now() >= deadline {
                return Err(self.too_late(None));
            }
        }
    }

    /// A vote alone serves nobody: waits until it has applied `index`, knows that it votes, and is ready.
    async fn wait_until_it_serves(
        &mut self,
        index: u64,
        deadline: Instant,
    ) -> Result<(), CommandError> {
        loop {
            let looked = timeout_at(deadline, self.look(Some(index))).await;
            if self.serves(index) {
                return Ok(());
            }
            if looked.is_err() || Instant::now() + PROGRESS_INTERVAL >= deadline {
                return Err(self.too_late(Some(index)));
            }
            tokio::time::sleep(PROGRESS_INTERVAL).await;
        }
    }

    fn serves(&self, index: u64) -> bool {
        match &self.seen {
            Seen::Answer(reply) => {
                let belongs = reply.members.iter().any(|member| member.id == self.id);
                let has_role = belongs && (self.learner || self.is_voter(reply));
                reply.ready && reply.applied_index >= index && has_role
            }
            Seen::Nothing | Seen::Silent(_) => false,
        }
    }

    fn is_voter(&self, reply: &StatusReply) -> bool {
        reply
            .members
            .iter()
            .any(|member| member.id == self.id && member.voter)
    }

    /// Asks the node how far it is, and tells when that is news.
    async fn look(&mut self, index: Option<u64>) {
        let before = self.progress(index);
        self.seen = match self.ask().await {
            Ok(reply) => Seen::Answer(Box::new(reply)),
            Err(error) => Seen::Silent(error.to_string()),
        };
        let now = self.progress(index);
        if now != before {
            eprintln!("node {} {now}", self.id);
        }
    }

    async fn ask(&self) -> Result<StatusReply, CommandError> {
        let mut client = client::connect_one(&self.address).await?;
        Ok(client
            .status(client::request(StatusRequest {}))
            .await?
            .into_inner())
    }

    /// How far it is.
    fn progress(&self, index: Option<u64>) -> String {
        match &self.seen {
            Seen::Nothing => "was not asked yet".to_owned(),
            Seen::Silent(reason) => format!("does not answer ({reason})"),
            Seen::Answer(reply) => {
                let role = if self.is_voter(reply) {
                    "votes"
                } else {
                    "has no vote yet"
                };
                let wanted = index.unwrap_or(reply.committed_index);
                let ready = if reply.ready {
                    "ready".to_owned()
                } else {
                    format!("not ready: {}", reply.reason)
                };
                let applied = reply.applied_index;
                format!("{role}, has applied {applied} of {wanted} log entries, {ready}")
            }
        }
    }

    fn too_late(&self, index: Option<u64>) -> CommandError {
        CommandError::Refused(format!(
            "node {} does not serve yet: it {}. It goes on by itself; `clusterctl status` shows how far it is, and \
             this command may be repeated",
            self.id,
            self.progress(index)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::admin::Member;

    fn node(seen: Seen) -> NewNode {
        NewNode {
            id: 4,
            address: "127.0.0.1:1".to_owned(),
            learner: false,
            seen,
        }
    }

    fn answer(voter: bool, applied_index: u64, ready: bool) -> Seen {
        let member = Member {
            id: 4,
            voter,
            ..Member::default()
        };
        Seen::Answer(Box::new(StatusReply {
            members: vec![member],
            applied_index,
            ready,
            reason: if ready { "" } else { "no leader is known" }.to_owned(),
            ..StatusReply::default()
        }))
    }

    #[test]
    fn only_a_ready_voter_that_has_everything_serves() {
        assert!(node(answer(true, 7, true)).serves(7));
        for seen in [
            answer(false, 7, true),
            answer(true, 6, true),
            answer(true, 7, false),
            Seen::Silent("refused".to_owned()),
            Seen::Nothing,
        ] {
            assert!(!node(seen).serves(7));
        }
        let mut learner = node(answer(false, 7, true));
        learner.learner = true;
        assert!(learner.serves(7));
    }

    #[test]
    fn an_error_says_how_far_it_is() {
        let late = node(answer(false, 6, false)).too_late(Some(7)).to_string();
        for part in ["node 4", "no vote yet", "6 of 7", "no leader is known"] {
            assert!(late.contains(part), "{late}");
        }
    }
}
