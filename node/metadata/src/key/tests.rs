use oci::{Algorithm, Digest};

use super::*;
use crate::codec::CodecError;
use crate::testing::{digest, repository as name, tag as tag_name};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha512(content: &str) -> Digest {
    Digest::of(Algorithm::Sha512, content.as_bytes())
}

/// The layout is a disk format. A failure here means: no, find another way.
#[test]
fn golden_keys() {
    const D: &str = "01ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    const R: &str = "0000000000000005";
    let (a, five, t) = (digest("a"), RepositoryId(5), tag_name("v1"));
    let (node_2, time_3, ticket_9) = (NodeId(2), LogTime(3), TicketId::from_u64(9));
    let two = "0000000000000002";
    let three = "0000000000000003";
    let nine = "0000000000000009";
    for (key, wanted) in [
        (single(Table::Cluster), "01".to_owned()),
        (single(Table::Time), "02".to_owned()),
        (single(Table::Totals), "03".to_owned()),
        (node(node_2), format!("04{two}")),
        (single(Table::Catalog), "05".to_owned()),
        (single(Table::Gc), "06".to_owned()),
        (repository(&name("a/b")), "10612f62".to_owned()),
        (manifest(five, &a), format!("11{R}{D}")),
        (manifest_body(five, &a), format!("12{R}{D}")),
        (references(five, &a), format!("13{R}{D}")),
        (tag(five, &t), format!("14{R}7631")),
        (tag_of(five, &a, &t), format!("15{R}{D}7631")),
        (
            tag_change(five, &t, LogIndex(9)),
            format!("16{R}00027631fffffffffffffff6"),
        ),
        (referrer(five, &a, &a), format!("17{R}{D}{D}")),
        (of_repository(Table::TagList, five), format!("18{R}")),
        (repository_state(five), format!("19{R}")),
        (deleted_manifest(five, &a), format!("1a{R}{D}")),
        (removed_repository(five), format!("1b{R}")),
        (blob(&a), format!("20{D}")),
        (link(five, &a), format!("21{R}{D}")),
        (linked_by(&a, five), format!("22{D}{R}")),
        (edge(&a, five, &a), format!("23{D}{R}{D}")),
        (placement(node_2, &a), format!("24{two}{D}")),
        (deleted_edge(&a, five, &a), format!("26{D}{R}{D}")),
        (deleted_blob(&a), format!("27{D}")),
        (purged_manifest(&a, five), format!("29{D}{R}")),
        (holder_set(&[node_2, NodeId(3)]), format!("28{two}{three}")),
        (ticket(ticket_9), format!("30{nine}")),
        (ticket_expiry(time_3, ticket_9), format!("31{three}{nine}")),
        (
            unreferenced_link(time_3, five, &a),
            format!("40{three}{R}{D}"),
        ),
        (unlinked_blob(time_3, &a), format!("41{three}{D}")),
        (condemned_blob(time_3, &a), format!("42{three}{D}")),
        (copies(2, &a), format!("43{two}{D}")),
        (deleted_at(time_3, five, &a), format!("44{three}{R}{D}")),
        (
            unneeded_manifest(time_3, five, &a),
            format!("45{three}{R}{D}"),
        ),
        (empty_repository(time_3, five), format!("46{three}{R}")),
        (referrer_review(five, &a), format!("47{R}{D}")),
        (deleted_blob_at(LogIndex(9), &a), format!("48{nine}{D}")),
        (
            purged_manifest_at(LogIndex(9), &a, five),
            format!("49{nine}{D}{R}"),
        ),
        (session(node_2, 3), format!("50{two}{three}")),
        (answer(node_2, 3, 9), format!("51{two}{three}{nine}")),
        (
            session_due(time_3, node_2, 9),
            format!("52{three}{two}{nine}"),
        ),
    ] {
        assert_eq!(hex(&key), wanted);
    }
}

#[test]
fn tables_are_in_order() {
    let bytes: Vec<u8> = Table::ALL.iter().map(|table| *table as u8).collect();
    assert!(
        bytes.is_sorted_by(|a, b| a < b),
        "tables have distinct bytes, in order"
    );
}

#[test]
fn names_and_tags_sort_as_their_bytes() {
    let names = ["a", "a-b", "a/b", "a0", "ab", "b"];
    let keys: Vec<_> = names.iter().map(|text| repository(&name(text))).collect();
    assert!(names.is_sorted() && keys.is_sorted());
    let tags = ["1.0", "1.0-rc", "1.01", "A", "_a", "a"];
    let keys: Vec<_> = tags
        .iter()
        .map(|text| tag(RepositoryId(1), &tag_name(text)))
        .collect();
    assert!(tags.is_sorted() && keys.is_sorted());
}

#[test]
fn numbers_sort_as_numbers() {
    let keys: Vec<_> = [0, 1, 255, 256, u64::MAX].map(|n| node(NodeId(n))).to_vec();
    assert!(keys.is_sorted());
    let history: Vec<_> = [9, 256, 255, 1]
        .map(|n| tag_change(RepositoryId(1), &tag_name("v"), LogIndex(n)))
        .to_vec();
    assert!(history[1] < history[2] && history[2] < history[0] && history[0] < history[3]);
}

/// What one scan covers, no key of another tag, digest or repository may lie in.
#[test]
fn no_prefix_reaches_into_its_neighbour() {
    let one = RepositoryId(1);
    let longer = tag_change(one, &tag_name("v10"), LogIndex(4));
    assert!(!longer.starts_with(&tag_history(one, &tag_name("v1"))));
    let (short, long) = (digest("a"), sha512("a"));
    assert!(!edge(&long, one, &short).starts_with(&edges_of(&short, one)));
    assert!(!linked_by(&long, one).starts_with(&links_of(&short)));
    assert!(!tag(RepositoryId(256), &tag_name("v")).starts_with(&of_repository(Table::Tag, one)));
}

#[test]
fn a_reader_takes_apart_what_was_written() {
    for subject in [digest("s"), sha512("s")] {
        for manifest in [digest("m"), sha512("m")] {
            let key = referrer(RepositoryId(3), &subject, &manifest);
            let mut parts = Reader::new(Table::Referrer, &key).unwrap();
            assert_eq!(parts.number(), Ok(3));
            assert_eq!(parts.digest(), Ok(subject));
            assert_eq!(parts.digest(), Ok(manifest));
            assert_eq!(parts.text(), Ok(""));
        }
    }
    let key = tag_change(RepositoryId(3), &tag_name("v1"), LogIndex(4));
    let mut parts = Reader::new(Table::TagHistory, &key).unwrap();
    assert_eq!((parts.number(), parts.counted_text()), (Ok(3), Ok("v1")));
    assert_eq!(parts.number(), Ok(!4));
}

#[test]
fn a_reader_refuses_what_is_cut_off_or_foreign() {
    let key = link(RepositoryId(3), &digest("a"));
    assert_eq!(Reader::new(Table::Edge, &key).unwrap_err(), CodecError::Key);
    assert_eq!(Reader::new(Table::Edge, &[]).unwrap_err(), CodecError::Key);
    let mut parts = Reader::new(Table::Link, &key[..key.len() - 1]).unwrap();
    assert_eq!(parts.number(), Ok(3));
    assert_eq!(parts.digest(), Err(CodecError::Key));
    let mut parts = Reader::new(Table::Link, &key[..4]).unwrap();
    assert_eq!(parts.number(), Err(CodecError::Key));
    let mut parts = Reader::new(Table::TagHistory, &[0x16, 0, 5, b'v']).unwrap();
    assert_eq!(parts.counted_text(), Err(CodecError::Key));
}
