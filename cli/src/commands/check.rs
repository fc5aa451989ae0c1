//! `clusterctl check`.

use std::time::Duration;

use proto::admin::{CheckReply, CheckRequest, StatusRequest};
use serde_json::{Value, json};

use crate::client::{self, CommandError};
use crate::output::{self, Format};

/// How often the nodes are asked until they stand at one index: writes go on meanwhile.
const ROUNDS: usize = 20;
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(250);
/// Reading a large state takes a while.
const ANSWER_TIME: Duration = Duration::from_secs(600);

/// Asks every member for its state's fingerprint until all stand at one index, and fails when they differ there or
/// when a law of the state is violated.
pub(crate) async fn run(endpoints: &[String], format: Format) -> Result<(), CommandError> {
    let mut first = client::connect(endpoints).await?;
    let members = first
        .status(client::request(StatusRequest {}))
        .await?
        .into_inner()
        .members;
    let mut replies = Vec::new();
    for round in 0..ROUNDS {
        if round > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        replies.clear();
        let asked: Vec<_> = members
            .iter()
            .map(|member| tokio::spawn(ask(member.grpc_address.clone())))
            .collect();
        for answer in asked {
            let answer = answer
                .await
                .map_err(|error| CommandError::Refused(error.to_string()))?;
            replies.push(answer?);
        }
        if at_one_index(&replies) {
            break;
        }
    }
    match format {
        Format::Json => println!("{:#}", as_json(&replies)),
        Format::Table => print_table(&replies),
    }
    judge(&replies)
}

async fn ask(address: String) -> Result<CheckReply, CommandError> {
    let mut client = client::connect_one(&address).await?;
    let mut request = tonic::Request::new(CheckRequest {});
    request.set_timeout(ANSWER_TIME);
    Ok(client.check(request).await?.into_inner())
}

fn at_one_index(replies: &[CheckReply]) -> bool {
    replies
        .windows(2)
        .all(|pair| pair[0].applied_index == pair[1].applied_index)
}

/// The verdict: violated laws, then different states at one index, then states that could not be compared.
fn judge(replies: &[CheckReply]) -> Result<(), CommandError> {
    let refused = |text: String| Err(CommandError::Refused(text));
    if let Some(reply) = replies.iter().find(|reply| !reply.violations.is_empty()) {
        return refused(format!(
            "node {}: {} laws of the state are violated, the first: {}",
            reply.node_id,
            reply.violations.len(),
            reply.violations[0]
        ));
    }
    for (number, one) in replies.iter().enumerate() {
        let other = replies[number + 1..].iter().find(|other| {
            other.applied_index == one.applied_index && other.fingerprint != one.fingerprint
        });
        if let Some(other) = other {
            return refused(format!(
                "nodes {} and {} differ at index {}: the state of one of them is damaged",
                one.node_id, other.node_id, one.applied_index
            ));
        }
    }
    if !at_one_index(replies) {
        return refused("the nodes were never at one index; try again under less load".into());
    }
    Ok(())
}

fn as_json(replies: &[CheckReply]) -> Value {
    let nodes: Vec<Value> = replies
        .iter()
        .map(|reply| {
            json!({
                "id": reply.node_id, "applied_index": reply.applied_index,
                "fingerprint": reply.fingerprint, "violations": reply.violations,
            })
        })
        .collect();
    json!({ "nodes": nodes })
}

fn print_table(replies: &[CheckReply]) {
    let mut table = output::table(&["NODE", "APPLIED", "VIOLATIONS", "FINGERPRINT"]);
    for reply in replies {
        table.add_row(vec![
            reply.node_id.to_string(),
            reply.applied_index.to_string(),
            reply.violations.len().to_string(),
            reply.fingerprint.clone(),
        ]);
    }
    println!("{table}");
    for reply in replies {
        for violation in &reply.violations {
            println!("node {}: {violation}", reply.node_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(node_id: u64, applied_index: u64, fingerprint: &str) -> CheckReply {
        CheckReply {
            node_id,
            applied_index,
            fingerprint: fingerprint.into(),
            violations: Vec::new(),
        }
    }

    #[test]
    fn equal_states_pass_and_everything_else_is_named() {
        let text = |replies: &[CheckReply]| judge(replies).map_err(|error| error.to_string());
        assert_eq!(text(&[reply(1, 7, "a"), reply(2, 7, "a")]), Ok(()));
        let differ = text(&[reply(1, 7, "a"), reply(2, 8, "b"), reply(3, 7, "c")]).unwrap_err();
        assert!(
            differ.starts_with("nodes 1 and 3 differ at index 7"),
            "{differ}"
        );
        let moving = text(&[reply(1, 7, "a"), reply(2, 8, "b")]).unwrap_err();
        assert!(moving.contains("never at one index"), "{moving}");
        let mut broken = reply(2, 7, "a");
        broken.violations.push("law".into());
        let violated = text(&[reply(1, 7, "a"), broken]).unwrap_err();
        assert!(violated.starts_with("node 2: 1 laws"), "{violated}");
    }
}
