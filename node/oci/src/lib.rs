//! The OCI specifications as types.
//!
//! Values of this crate cannot be wrong: a `Digest`, a `RepositoryName` or a `Manifest` exists only after its
//! grammar was checked, so nobody above checks again. Parsers are pure, bounded and never panic; they accept one
//! spelling of each value and refuse what two readers could understand differently.
//!
//! This crate must not know: tasks, clocks, randomness, files, HTTP libraries, or anything about clusters.

mod descriptor;
mod digest;
mod error;
mod error_code;
mod manifest;
pub mod media_type;
mod page;
mod percent;
mod query;
mod range;
mod reference;
mod repository;
mod route;
mod strict;
mod tag;
mod upload_id;

pub use descriptor::{Descriptor, Platform};
pub use digest::{Algorithm, Digest, Hasher};
pub use error::{EXCERPT_CHARS, ParseError};
pub use error_code::ErrorCode;
pub use manifest::{Manifest, ManifestKind};
pub use media_type::MediaType;
pub use page::{Page, link_next};
pub use range::{ByteRange, ContentRange, RangeOutcome, RangeRequest};
pub use reference::Reference;
pub use repository::RepositoryName;
pub use route::{MAX_TAGS, MAX_URI_BYTES, Mount, Route, RouteError};
pub use tag::Tag;
pub use upload_id::UploadId;
