//! What a pushed manifest says, read once so that the log need not (law 3 of the state machine: apply never parses
//! what users sent).

use std::collections::BTreeMap;

use metadata::command::{ManifestFacts, ManifestReference};
use oci::{Algorithm, Descriptor, Digest, Manifest, ManifestKind, MediaType, ParseError};

use crate::Result;
use crate::error::RegistryError;

/// A manifest ready to be proposed.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) digest: Digest,
    pub(crate) media_type: MediaType,
    pub(crate) facts: ManifestFacts,
}

/// Reads a body pushed under `expected`, or under a tag, which means the canonical algorithm.
pub(crate) fn parse(
    expected: Option<Digest>,
    content_type: Option<&MediaType>,
    body: &[u8],
) -> Result<Parsed> {
    let algorithm = expected.map_or(Algorithm::Sha256, |digest| digest.algorithm());
    let digest = Digest::of(algorithm, body);
    if expected.is_some_and(|expected| expected != digest) {
        return Err(RegistryError::DigestInvalid);
    }
    let manifest = Manifest::parse(content_type, body).map_err(RegistryError::ManifestInvalid)?;
    Ok(Parsed {
        digest,
        media_type: manifest.media_type().clone(),
        facts: facts_of(&manifest)?,
    })
}

fn facts_of(manifest: &Manifest) -> Result<ManifestFacts> {
    let subject = manifest.subject().map(|subject| subject.digest);
    // Only manifests with a subject are ever listed with what follows it.
    let (artifact_type, annotations) = match subject {
        Some(_) => (
            manifest.artifact_type().cloned(),
            manifest.annotations().clone(),
        ),
        None => (None, BTreeMap::new()),
    };
    Ok(ManifestFacts {
        is_index: manifest.kind() == ManifestKind::Index,
        blobs: distinct(manifest.blobs())?,
        manifests: distinct(manifest.manifests())?,
        subject,
        artifact_type,
        annotations,
    })
}

/// Each digest once, in the order of the manifest. Images may repeat a layer, but not with two lengths.
fn distinct<'a>(
    descriptors: impl Iterator<Item = &'a Descriptor>,
) -> Result<Vec<ManifestReference>> {
    let mut sizes = BTreeMap::new();
    let mut references = Vec::new();
    for descriptor in descriptors {
        match sizes.insert(descriptor.digest, descriptor.size_bytes) {
            None => references.push(ManifestReference::from(descriptor)),
            Some(size_bytes) if size_bytes == descriptor.size_bytes => {}
            Some(_) => {
                let reason = format!("{} is named with two sizes", descriptor.digest);
                return Err(RegistryError::ManifestInvalid(ParseError::Manifest {
                    reason,
                }));
            }
        }
    }
    Ok(references)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::media_type;

    fn manifest(layers: &[(&Digest, u64)], extra: &str) -> String {
        let layers: Vec<String> = layers
            .iter()
            .map(|(digest, size)| {
                format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":{size}}}"#)
            })
            .collect();
        let config = Digest::of(Algorithm::Sha256, b"{}");
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"c/d","digest":"{config}","size":2}},"layers":[{}]{extra}}}"#,
            media_type::OCI_MANIFEST,
            layers.join(",")
        )
    }

    #[test]
    fn a_repeated_layer_is_referenced_once_in_order() {
        let (first, second) = (
            Digest::of(Algorithm::Sha256, b"1"),
            Digest::of(Algorithm::Sha256, b"2"),
        );
        let body = manifest(&[(&second, 1), (&first, 1), (&second, 1)], "");
        let parsed = parse(None, None, body.as_bytes()).unwrap();
        let digests: Vec<Digest> = parsed.facts.blobs.iter().map(|blob| blob.digest).collect();
        assert_eq!(
            digests,
            [Digest::of(Algorithm::Sha256, b"{}"), second, first]
        );
        assert_eq!(
            parsed.digest,
            Digest::of(Algorithm::Sha256, body.as_bytes())
        );
    }

    #[test]
    fn one_digest_with_two_sizes_is_refused() {
        let digest = Digest::of(Algorithm::Sha256, b"1");
        let body = manifest(&[(&digest, 1), (&digest, 2)], "");
        assert!(matches!(
            parse(None, None, body.as_bytes()),
            Err(RegistryError::ManifestInvalid(_))
        ));
    }

    #[test]
    fn what_referrers_lists_show_is_carried_only_with_a_subject() {
        let extra = r#","artifactType":"x/y","annotations":{"a":"b"}"#;
        let plain = parse(None, None, manifest(&[], extra).as_bytes())
            .unwrap()
            .facts;
        assert_eq!((plain.artifact_type, plain.annotations.len()), (None, 0));
        let subject = Digest::of(Algorithm::Sha256, b"subject");
        let extra =
            format!(r#"{extra},"subject":{{"mediaType":"e/f","digest":"{subject}","size":7}}"#);
        let referrer = parse(None, None, manifest(&[], &extra).as_bytes())
            .unwrap()
            .facts;
        assert_eq!(referrer.subject, Some(subject));
        assert_eq!(referrer.artifact_type.unwrap().as_str(), "x/y");
        assert_eq!(referrer.annotations["a"], "b");
    }

    #[test]
    fn the_algorithm_of_the_reference_decides() {
        let body = manifest(&[], "");
        let digest = Digest::of(Algorithm::Sha512, body.as_bytes());
        assert_eq!(
            parse(Some(digest), None, body.as_bytes()).unwrap().digest,
            digest
        );
        let other = Digest::of(Algorithm::Sha512, b"other");
        assert!(matches!(
            parse(Some(other), None, body.as_bytes()),
            Err(RegistryError::DigestInvalid)
        ));
    }
}
