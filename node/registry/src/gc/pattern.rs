//! Patterns of repository names, by which an operator says where untagged manifests go.

use oci::RepositoryName;

/// A repository name in which `*` stands for any characters, `/` included, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryPattern(Box<str>);

/// Untagged manifests of matching repositories are collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UntaggedRule {
    /// Which repositories.
    pub pattern: RepositoryPattern,
    /// How long a manifest must have been without a tag, in milliseconds of log time.
    pub min_age_ms: u64,
}

/// Longer patterns than the longest name with a star between all its characters match nothing more.
const LONGEST: usize = 512;

impl RepositoryPattern {
    /// `None` when no name could match: a character that names do not have, or nothing at all.
    pub fn parse(text: &str) -> Option<RepositoryPattern> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "*/._-".contains(c);
        let is_pattern = !text.is_empty() && text.len() <= LONGEST && text.chars().all(allowed);
        is_pattern.then(|| RepositoryPattern(text.into()))
    }

    /// Whether the whole name matches.
    pub fn matches(&self, name: &RepositoryName) -> bool {
        let name = name.as_str();
        let mut pieces = self.0.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = pieces.next_back() else {
            return rest.is_empty();
        };
        // The leftmost place of each piece leaves the most for those behind it.
        for piece in pieces {
            match rest.find(piece) {
                Some(at) => rest = &rest[at + piece.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        RepositoryPattern::parse(pattern)
            .unwrap()
            .matches(&RepositoryName::parse(name).unwrap())
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name) in [
            ("*", "a/b"),
            ("ci/*", "ci/a"),
            ("ci/*", "ci/a/b"),
            ("*/cache", "team/app/cache"),
            ("a*b*c", "a-b-b-c"),
            ("a**c", "ac"),
            ("team/app", "team/app"),
            ("*a*", "banana"),
            ("ab*ba", "abba"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_name_must_match_as_a_whole() {
        for (pattern, name) in [
            ("ci/*", "xci/a"),
            ("ci/*", "ci"),
            ("team/app", "team/app2"),
            ("team/app", "team/ap"),
            ("a*b*c", "a-c-b"),
            ("ab*ba", "aba"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_no_name_can_match_is_no_pattern() {
        for text in ["", "Team/*", "a b", "a?", "ä"] {
            assert_eq!(RepositoryPattern::parse(text), None, "{text:?}");
        }
    }
}
