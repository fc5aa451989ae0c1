//! The schema of everything that leaves a process: log entries, stored records, messages between nodes,
//! and what `clusterctl` speaks.
//!
//! **Promises**: one module per schema (`proto::log` is package `argosy.log.v1`, and so on), generated when
//! this crate is built; `bytes` fields are [`bytes::Bytes`], so decoding a large manifest copies nothing.
//! Field numbers are never reused; a change of a schema that stores bytes touches a golden test of `metadata`.
//!
//! **Must not know** any other crate of the workspace: conversions to domain types live with those types.
//!
//! With feature `grpc` the clients and servers of the services are there as well.

/// Wraps the code generated for package `argosy.<topic>.v1`. The nesting follows the package, because
/// generated code names other packages by relative paths.
macro_rules! schema {
    ($(#[$meta:meta])* $topic:ident, $file:literal) => {
        $(#[$meta])*
        pub mod $topic {
            /// Version 1 of the schema.
            #[allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all)]
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/", $file));
            }
            pub use v1::*;
        }
    };
}

schema! {
    /// Entries of the Raft log and the outcomes of commands.
    log, "argosy.log.v1.rs"
}
schema! {
    /// Values in the key space of the replicated state.
    record, "argosy.record.v1.rs"
}
schema! {
    /// Messages of consensus between nodes.
    raft, "argosy.raft.v1.rs"
}
schema! {
    /// Movement of blobs between nodes.
    blob, "argosy.blob.v1.rs"
}
schema! {
    /// What `clusterctl` speaks.
    admin, "argosy.admin.v1.rs"
}
