//! What a registry does: uploads, blobs, manifests, tags, lists.

pub mod error;
