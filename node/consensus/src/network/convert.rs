//! Wire and stored messages to and from Raft's types.

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId;
use prost::Message;
use proto::raft as wire;
use std::collections::{BTreeMap, BTreeSet};

use crate::types::{
    EntryBytes, LogEntry, LogId, Membership, NodeAddress, StoredMembership, TypeConfig, Vote,
};

type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;

/// A message lacks a part or contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub(crate) struct Malformed(&'static str);

pub(crate) fn log_id_to_wire(id: &LogId) -> wire::LogId {
    wire::LogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id,
        index: id.index,
    }
}

pub(crate) fn log_id_from_wire(id: wire::LogId) -> LogId {
    LogId::new(LeaderId::new(id.term, id.node).to_committed(), id.index)
}

fn optional_log_id(id: &Option<LogId>) -> Option<wire::LogId> {
    id.as_ref().map(log_id_to_wire)
}

pub(crate) fn vote_to_wire(vote: &Vote) -> wire::Vote {
    wire::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_wire(vote: Option<wire::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or(Malformed("no vote"))?;
    Ok(match vote.committed {
        true => Vote::new_committed(vote.term, vote.node),
        false => Vote::new(vote.term, vote.node),
    })
}

pub(crate) fn membership_to_wire(membership: &Membership) -> wire::Membership {
    wire::Membership {
        configurations: membership
            .get_joint_config()
            .iter()
            .map(|voters| wire::Voters {
                nodes: voters.iter().copied().collect(),
            })
            .collect(),
        members: membership
            .nodes()
            .map(|(node, address)| wire::Member {
                node: *node,
                grpc_address: address.grpc_address.clone(),
            })
            .collect(),
    }
}

pub(crate) fn membership_from_wire(membership: wire::Membership) -> Result<Membership, Malformed> {
    if membership.configurations.is_empty() && membership.members.is_empty() {
        return Ok(Membership::default());
    }
    let configurations: Vec<BTreeSet<u64>> = membership
        .configurations
        .into_iter()
        .map(|voters| voters.nodes.into_iter().collect())
        .collect();
    let members: BTreeMap<u64, NodeAddress> = membership
        .members
        .into_iter()
        .map(|member| {
            (
                member.node,
                NodeAddress {
                    grpc_address: member.grpc_address,
                },
            )
        })
        .collect();
    Membership::new(configurations, members).map_err(|_| Malformed("membership"))
}

pub(crate) fn stored_membership_to_wire(stored: &StoredMembership) -> wire::StoredMembership {
    wire::StoredMembership {
        log_id: optional_log_id(stored.log_id()),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

pub(crate) fn stored_membership_from_wire(
    stored: Option<wire::StoredMembership>,
) -> Result<StoredMembership, Malformed> {
    let stored = stored.unwrap_or_default();
    let membership = membership_from_wire(stored.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(
        stored.log_id.map(log_id_from_wire),
        membership,
    ))
}

pub(crate) fn entry_to_wire(entry: &LogEntry) -> wire::LogEntry {
    use wire::log_entry::Payload;
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(wire::Empty {}),
        EntryPayload::Normal(command) => Payload::Command(command.0.clone()),
        EntryPayload::Membership(membership) => Payload::Membership(membership_to_wire(membership)),
    };
    wire::LogEntry {
        log_id: Some(log_id_to_wire(&entry.log_id)),
        payload: Some(payload),
    }
}

pub(crate) fn entry_from_wire(entry: wire::LogEntry) -> Result<LogEntry, Malformed> {
    use wire::log_entry::Payload;
    let log_id = entry
        .log_id
        .map(log_id_from_wire)
        .ok_or(Malformed("entry without log id"))?;
    let payload = match entry.payload.ok_or(Malformed("entry without payload"))? {
        Payload::Blank(_) => EntryPayload::Blank,
        Payload::Command(command) => EntryPayload::Normal(EntryBytes(command)),
        Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_wire(membership)?)
        }
    };
    Ok(LogEntry { log_id, payload })
}

pub(crate) fn append_to_wire(request: AppendEntriesRequest<TypeConfig>) -> wire::AppendRequest {
    wire::AppendRequest {
        vote: Some(vote_to_wire(&request.vote)),
        previous: optional_log_id(&request.prev_log_id),
        entries: request.entries.iter().map(entry_to_wire).collect(),
        committed: optional_log_id(&request.leader_commit),
    }
}

pub(crate) fn append_from_wire(
    request: wire::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(request.vote)?,
        prev_log_id: request.previous.map(log_id_from_wire),
        entries: request
            .entries
            .into_iter()
            .map(entry_from_wire)
            .collect::<Result<_, _>>()?,
        leader_commit: request.committed.map(log_id_from_wire),
    })
}

pub(crate) fn append_response_to_wire(
    response: AppendEntriesResponse<TypeConfig>,
) -> wire::AppendResponse {
    use wire::append_response::Result as Wire;
    let result = match response {
        AppendEntriesResponse::Success => Wire::Success(wire::Empty {}),
        AppendEntriesResponse::PartialSuccess(matched) => Wire::Partial(wire::PartialSuccess {
            matched: optional_log_id(&matched),
        }),
        AppendEntriesResponse::Conflict => Wire::Conflict(wire::Empty {}),
        AppendEntriesResponse::HigherVote(vote) => Wire::HigherVote(vote_to_wire(&vote)),
    };
    wire::AppendResponse {
        result: Some(result),
    }
}

pub(crate) fn append_response_from_wire(
    response: wire::AppendResponse,
) -> Result<AppendEntriesResponse<TypeConfig>, Malformed> {
    use wire::append_response::Result as Wire;
    Ok(match response.result.ok_or(Malformed("append response"))? {
        Wire::Success(_) => AppendEntriesResponse::Success,
        Wire::Partial(partial) => {
            AppendEntriesResponse::PartialSuccess(partial.matched.map(log_id_from_wire))
        }
        Wire::Conflict(_) => AppendEntriesResponse::Conflict,
        Wire::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_from_wire(Some(vote))?),
    })
}

pub(crate) fn vote_request_to_wire(request: &VoteRequest<TypeConfig>) -> wire::VoteRequest {
    wire::VoteRequest {
        vote: Some(vote_to_wire(&request.vote)),
        last: optional_log_id(&request.last_log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from_wire(
    request: wire::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, Malformed> {
    Ok(VoteRequest {
        vote: vote_from_wire(request.vote)?,
        last_log_id: request.last.map(log_id_from_wire),
        leadership_transfer: request.leadership_transfer,
    })
}

pub(crate) fn vote_response_to_wire(response: &VoteResponse<TypeConfig>) -> wire::VoteResponse {
    wire::VoteResponse {
        vote: Some(vote_to_wire(&response.vote)),
        granted: response.vote_granted,
        last: optional_log_id(&response.last_log_id),
    }
}

pub(crate) fn vote_response_from_wire(
    response: wire::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, Malformed> {
    let vote = vote_from_wire(response.vote)?;
    Ok(VoteResponse::new(
        vote,
        response.last.map(log_id_from_wire),
        response.granted,
    ))
}

pub(crate) fn transfer_to_wire(
    request: &TransferLeaderRequest<TypeConfig>,
) -> wire::TransferLeaderRequest {
    wire::TransferLeaderRequest {
        from: Some(vote_to_wire(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(log_id_to_wire),
    }
}

pub(crate) fn transfer_from_wire(
    request: wire::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, Malformed> {
    let from = vote_from_wire(request.from)?;
    Ok(TransferLeaderRequest::new(
        from,
        request.to,
        request.last.map(log_id_from_wire),
    ))
}

pub(crate) fn transfer_response_to_wire(
    response: TransferLeaderResponse<TypeConfig>,
) -> wire::TransferLeaderResponse {
    use openraft::raft::TransferLeaderError as Error;
    use wire::transfer_leader_response::Result as Wire;
    let result = match response {
        Ok(()) => Wire::Accepted(wire::Empty {}),
        Err(Error::VoteChanged { expected, actual }) => Wire::VoteChanged(wire::VoteChanged {
            expected: Some(vote_to_wire(&expected)),
            actual: Some(vote_to_wire(&actual)),
        }),
        Err(Error::LogNotFlushed { expected, actual }) => {
            Wire::LogNotFlushed(wire::LogNotFlushed {
                expected: optional_log_id(&expected),
                actual: optional_log_id(&actual),
            })
        }
    };
    wire::TransferLeaderResponse {
        result: Some(result),
    }
}

pub(crate) fn transfer_response_from_wire(
    response: wire::TransferLeaderResponse,
) -> Result<TransferLeaderResponse<TypeConfig>, Malformed> {
    use openraft::raft::TransferLeaderError as Error;
    use wire::transfer_leader_response::Result as Wire;
    Ok(
        match response.result.ok_or(Malformed("transfer response"))? {
            Wire::Accepted(_) => Ok(()),
            Wire::VoteChanged(votes) => Err(Error::VoteChanged {
                expected: vote_from_wire(votes.expected)?,
                actual: vote_from_wire(votes.actual)?,
            }),
            Wire::LogNotFlushed(ends) => Err(Error::LogNotFlushed {
                expected: ends.expected.map(log_id_from_wire),
                actual: ends.actual.map(log_id_from_wire),
            }),
        },
    )
}

// ---- Stored forms: the same messages, as bytes ----

fn damaged(what: &'static str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, Malformed(what))
}

pub(crate) fn encode_entry(entry: &LogEntry) -> Bytes {
    entry_to_wire(entry).encode_to_vec().into()
}

pub(crate) fn decode_entry(bytes: Bytes) -> std::io::Result<LogEntry> {
    let entry = wire::LogEntry::decode(bytes).map_err(|_| damaged("stored log entry"))?;
    entry_from_wire(entry).map_err(|_| damaged("stored log entry"))
}

/// 24 bytes. Not the message: prost encodes the very first log id, all zeros, as nothing, and nothing means
/// "no log id" where these bytes are stored.
pub(crate) fn encode_log_id(id: &LogId) -> Bytes {
    let mut bytes = Vec::with_capacity(24);
    for part in [id.leader_id.term, id.leader_id.node_id, id.index] {
        bytes.extend_from_slice(&part.to_be_bytes());
    }
    bytes.into()
}

/// The inverse of [`encode_log_id`]; empty bytes are no log id.
pub(crate) fn decode_log_id(bytes: &[u8]) -> std::io::Result<Option<LogId>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let bytes: [u8; 24] = bytes.try_into().map_err(|_| damaged("stored log id"))?;
    let (parts, _) = bytes.as_chunks::<8>();
    let [term, node, index] = [0, 1, 2].map(|part| u64::from_be_bytes(parts[part]));
    Ok(Some(log_id_from_wire(wire::LogId { term, node, index })))
}

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    vote_to_wire(vote).encode_to_vec().into()
}

pub(crate) fn decode_vote(bytes: Bytes) -> std::io::Result<Vote> {
    let vote = wire::Vote::decode(bytes).map_err(|_| damaged("stored vote"))?;
    vote_from_wire(Some(vote)).map_err(|_| damaged("stored vote"))
}

pub(crate) fn encode_membership(stored: &StoredMembership) -> Bytes {
    stored_membership_to_wire(stored).encode_to_vec().into()
}

/// The inverse of [`encode_membership`]; empty bytes are the membership of a node that has none.
pub(crate) fn decode_membership(bytes: Bytes) -> std::io::Result<StoredMembership> {
    let stored = wire::StoredMembership::decode(bytes).map_err(|_| damaged("stored membership"))?;
    stored_membership_from_wire(Some(stored)).map_err(|_| damaged("stored membership"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, node: u64, index: u64) -> LogId {
        log_id_from_wire(wire::LogId { term, node, index })
    }

    fn membership() -> Membership {
        let address = |port| NodeAddress {
            grpc_address: format!("host:{port}"),
        };
        let members = BTreeMap::from([(1, address(1)), (2, address(2)), (3, address(3))]);
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2])], members).unwrap()
    }

    #[test]
    fn what_is_stored_comes_back() {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(EntryBytes(Bytes::from_static(b"command"))),
            EntryPayload::Normal(EntryBytes(Bytes::new())),
            EntryPayload::Membership(membership()),
        ];
        for payload in payloads {
            let entry = LogEntry {
                log_id: id(3, 2, 7),
                payload,
            };
            assert_eq!(decode_entry(encode_entry(&entry)).unwrap(), entry);
        }
        for vote in [Vote::new(0, 0), Vote::new(4, 2), Vote::new_committed(4, 2)] {
            assert_eq!(decode_vote(encode_vote(&vote)).unwrap(), vote);
        }
        for stored in [
            StoredMembership::default(),
            StoredMembership::new(Some(id(0, 0, 0)), membership()),
        ] {
            assert_eq!(
                decode_membership(encode_membership(&stored)).unwrap(),
                stored
            );
        }
    }

    #[test]
    fn the_first_log_id_is_not_none() {
        let first = id(0, 0, 0);
        assert_eq!(decode_log_id(&encode_log_id(&first)).unwrap(), Some(first));
        assert_eq!(decode_log_id(&[]).unwrap(), None);
        assert!(decode_log_id(&[0; 23]).is_err());
    }

    #[test]
    fn a_message_without_its_parts_is_refused() {
        assert!(append_from_wire(wire::AppendRequest::default()).is_err());
        assert!(append_response_from_wire(wire::AppendResponse::default()).is_err());
        assert!(vote_request_from_wire(wire::VoteRequest::default()).is_err());
        assert!(transfer_response_from_wire(wire::TransferLeaderResponse::default()).is_err());
        assert!(entry_from_wire(wire::LogEntry::default()).is_err());
        assert!(decode_entry(Bytes::from_static(b"\xff")).is_err());
        let voter_without_address = wire::Membership {
            configurations: vec![wire::Voters { nodes: vec![1] }],
            members: Vec::new(),
        };
        assert!(membership_from_wire(voter_without_address).is_err());
    }
}
