//! Referrers: the manifests that refer to a manifest.
//!
//! Two sources make one list: manifests with a `subject`, and the image index that clients maintain under a tag
//! where they believe that a registry has no referrers API ("Referrers Tag Schema" of the distribution spec). A
//! registry that has the API must list the latter too ("Enabling the Referrers API").

use metadata::query;
use metadata::view::{MetadataView, ViewError};
use oci::{Descriptor, Digest, Manifest, MediaType, RepositoryName, Tag};

pub use metadata::query::Referrer;

use crate::lists::PageOf;
use crate::{Caller, Registry, Result, Seen};

/// Annotations decide how long a referrer is. A page ends after this many bytes of them, so that clients with a
/// limit on manifests (4 MiB is common) can read it.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Referrers read from the state at once: few, because each can be long.
const BATCH: usize = 16;

/// What is asked of the list.
struct Wanted<'a> {
    repository: &'a RepositoryName,
    subject: &'a Digest,
    artifact_type: Option<&'a MediaType>,
    after: Option<&'a Digest>,
    limit: usize,
}

impl Registry {
    /// Manifests of the repository that refer to `subject`, in the order of their digests, after `after` (end-12).
    /// Unknown repositories and subjects have none. A page is cut by count and by length.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn referrers(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
        after: Option<&Digest>,
    ) -> Result<Seen<PageOf<Referrer>>> {
        let wanted = Wanted {
            repository,
            subject,
            artifact_type,
            after,
            limit: self.options.page_max,
        };
        self.read_names(caller, |view| {
            let page = native(view, &wanted)?;
            match fallback(view, &wanted)? {
                listed if listed.is_empty() => Ok(page),
                listed => merge(view, &wanted, page, listed),
            }
        })
        .await
    }
}

/// One page of the manifests that name the subject themselves.
fn native(
    view: &dyn MetadataView,
    wanted: &Wanted<'_>,
) -> std::result::Result<PageOf<Referrer>, ViewError> {
    let mut page = Filling::new(wanted.limit);
    let mut after = wanted.after.copied();
    loop {
        let Wanted {
            repository,
            subject,
            artifact_type,
            ..
        } = wanted;
        let batch = query::referrers(
            view,
            repository,
            subject,
            *artifact_type,
            after.as_ref(),
            BATCH,
        )?;
        let is_last = batch.len() < BATCH;
        after = batch.last().map(|referrer| referrer.digest);
        for referrer in batch {
            if !page.push(referrer) {
                return Ok(page.with_more());
            }
        }
        if is_last {
            return Ok(page.whole());
        }
    }
}

/// What the index under the fallback tag lists after `wanted.after`, in order. Something else under that tag, or
/// something that is no index, lists nothing.
fn fallback(
    view: &dyn MetadataView,
    wanted: &Wanted<'_>,
) -> std::result::Result<Vec<Descriptor>, ViewError> {
    let Some(tag) = fallback_tag(wanted.subject) else {
        return Ok(Vec::new());
    };
    let Some(record) = query::tag(view, wanted.repository, &tag)? else {
        return Ok(Vec::new());
    };
    let Some(manifest) = query::manifest(view, wanted.repository, &record.digest)? else {
        return Ok(Vec::new());
    };
    if !manifest.is_index {
        return Ok(Vec::new());
    }
    let body = query::manifest_body(view, wanted.repository, &record.digest)?.unwrap_or_default();
    let Ok(index) = Manifest::parse(Some(&manifest.media_type), &body) else {
        return Ok(Vec::new());
    };
    let is_wanted = |descriptor: &&Descriptor| {
        wanted.after.is_none_or(|after| descriptor.digest > *after)
            && wanted
                .artifact_type
                .is_none_or(|wanted| descriptor.artifact_type.as_ref() == Some(wanted))
    };
    let mut listed: Vec<Descriptor> = index.manifests().filter(is_wanted).cloned().collect();
    listed.sort_by_key(|descriptor| descriptor.digest);
    listed.dedup_by_key(|descriptor| descriptor.digest);
    Ok(listed)
}

/// One page of both. A manifest that the repository does not have is not listed, whatever the index says.
fn merge(
    view: &dyn MetadataView,
    wanted: &Wanted<'_>,
    native: PageOf<Referrer>,
    listed: Vec<Descriptor>,
) -> std::result::Result<PageOf<Referrer>, ViewError> {
    let end = native
        .more
        .then(|| native.items.last().map(|referrer| referrer.digest))
        .flatten();
    let mut page = Filling::new(wanted.limit);
    let mut natives = native.items.into_iter().peekable();
    for descriptor in listed {
        if end.is_some_and(|end| descriptor.digest > end) {
            // Further ones of the first kind may come before this one.
            break;
        }
        while let Some(referrer) = natives.next_if(|referrer| referrer.digest < descriptor.digest) {
            if !page.push(referrer) {
                return Ok(page.with_more());
            }
        }
        if natives
            .peek()
            .is_some_and(|referrer| referrer.digest == descriptor.digest)
        {
            continue;
        }
        let exists = query::manifest(view, wanted.repository, &descriptor.digest)?.is_some();
        if exists && !page.push(referrer_of(descriptor)) {
            return Ok(page.with_more());
        }
    }
    for referrer in natives {
        if !page.push(referrer) {
            return Ok(page.with_more());
        }
    }
    Ok(if native.more {
        page.with_more()
    } else {
        page.whole()
    })
}

fn referrer_of(descriptor: Descriptor) -> Referrer {
    Referrer {
        digest: descriptor.digest,
        media_type: descriptor.media_type,
        size_bytes: descriptor.size_bytes,
        artifact_type: descriptor.artifact_type,
        annotations: descriptor.annotations,
    }
}

/// `algorithm-hex`, the hex cut to 64 characters (distribution spec, "Referrers Tag Schema").
fn fallback_tag(subject: &Digest) -> Option<Tag> {
    let hex = subject.hex();
    let hex = hex.get(..64).unwrap_or(&hex);
    Tag::parse(&format!("{}-{hex}", subject.algorithm())).ok()
}

/// A page while it fills.
struct Filling {
    items: Vec<Referrer>,
    limit: usize,
    bytes: usize,
}

impl Filling {
    fn new(limit: usize) -> Filling {
        Filling {
            items: Vec::new(),
            limit,
            bytes: 0,
        }
    }

    /// Whether there was room. The first one always has: a page must get somewhere.
    fn push(&mut self, referrer: Referrer) -> bool {
        let text = |(key, value): (&String, &String)| key.len() + value.len();
        let bytes: usize = referrer.annotations.iter().map(text).sum();
        let is_full = self.items.len() >= self.limit || self.bytes + bytes > PAGE_BYTES;
        if is_full && !self.items.is_empty() {
            return false;
        }
        self.bytes += bytes;
        self.items.push(referrer);
        true
    }

    fn with_more(self) -> PageOf<Referrer> {
        PageOf {
            items: self.items,
            more: true,
        }
    }

    fn whole(self) -> PageOf<Referrer> {
        PageOf {
            items: self.items,
            more: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Algorithm;

    #[test]
    fn the_fallback_tag_is_the_one_of_the_specification() {
        let sha256 = Digest::of(Algorithm::Sha256, b"");
        let expected = "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(fallback_tag(&sha256).unwrap().as_str(), expected);
        let sha512 = fallback_tag(&Digest::of(Algorithm::Sha512, b"")).unwrap();
        assert_eq!(sha512.as_str().len(), "sha512-".len() + 64);
        assert!(sha512.as_str().starts_with("sha512-cf83e1357eefb8bd"));
    }
}
