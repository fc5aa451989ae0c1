//! What `use` declarations and paths may name.

use crate::lexer::{self, Token};

/// Glob imports of another workspace crate: they hide where a name comes from, and a new name below breaks code
/// above.
pub(crate) fn across_crates(text: &str, crates: &[String]) -> Vec<String> {
    let globs = imported_paths(text)
        .into_iter()
        .filter(|(_, path)| path.last().is_some_and(|last| last == "*"));
    let foreign = globs.filter(|(_, path)| path.len() > 1 && crates.contains(&path[0]));
    foreign
        .map(|(line, path)| format!("{line}: use {}", path.join("::")))
        .collect()
}

/// Every mention of a module directly below the crate root, imported or written in place.
pub(crate) fn naming(text: &str, module: &str) -> Vec<String> {
    let names_it = |path: &[String]| {
        let below = path
            .iter()
            .position(|segment| !["crate", "super", "self", "node"].contains(&segment.as_str()));
        below.is_some_and(|below| below > 0 && path[below] == module)
    };
    let imported = imported_paths(text)
        .into_iter()
        .filter(|(_, path)| names_it(path))
        .map(|(line, _)| line);
    let tokens = lexer::read(text).tokens;
    let in_place = tokens.windows(4).filter(|window| {
        let from_root = ["crate", "super", "node"]
            .iter()
            .any(|root| window[0].is(root));
        from_root && window[1].is(":") && window[2].is(":") && window[3].is(module)
    });
    let mut lines: Vec<usize> = imported
        .chain(in_place.map(|window| window[0].line))
        .collect();
    lines.sort_unstable();
    lines.dedup();
    lines
        .into_iter()
        .map(|line| format!("{line}: names the {module} front"))
        .collect()
}

/// Every path a file imports, one per leaf, with the line of its `use`.
fn imported_paths(text: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = lexer::read(text).tokens;
    let mut paths = Vec::new();
    for (at, token) in tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| token.is("use"))
    {
        let end = tokens[at..]
            .iter()
            .position(|token| token.is(";"))
            .map_or(tokens.len(), |length| at + length);
        let mut leaves = Vec::new();
        tree(&tokens[at + 1..end], &[], &mut leaves);
        paths.extend(leaves.into_iter().map(|path| (token.line, path)));
    }
    paths
}

/// Flattens one use tree: `a::{b, c::*}` becomes `a::b` and `a::c::*`.
fn tree(tokens: &[Token<'_>], prefix: &[String], leaves: &mut Vec<Vec<String>>) {
    let mut path = prefix.to_vec();
    for (at, token) in tokens.iter().enumerate() {
        if token.is("{") {
            let close = lexer::closing(tokens, at);
            for branch in branches(&tokens[at + 1..close]) {
                tree(branch, &path, leaves);
            }
            return;
        }
        if token.is("as") {
            break;
        }
        if token.is_word() || token.is("*") {
            path.push(token.text.to_owned());
        }
    }
    if path.len() > prefix.len() {
        leaves.push(path);
    }
}

/// The branches between the braces of a group, split at its own commas only.
fn branches<'t, 's>(tokens: &'t [Token<'s>]) -> Vec<&'t [Token<'s>]> {
    let (mut branches, mut start, mut at) = (Vec::new(), 0, 0);
    while at < tokens.len() {
        if tokens[at].is("{") {
            at = lexer::closing(tokens, at);
        } else if tokens[at].is(",") {
            branches.push(&tokens[start..at]);
            start = at + 1;
        }
        at += 1;
    }
    branches.push(&tokens[start..]);
    branches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn self_test_of_globs() {
        let crates = ["oci", "metadata"].map(str::to_owned);
        let bad = [
            "use oci::*;",
            "pub use ::oci::*;",
            "use metadata::command::Command::*;",
            "use {std::fmt, oci::*};",
            "use metadata::{ids::NodeId, command::{self, *}};",
            "mod a { pub(crate) use oci::*; }",
        ];
        for text in bad {
            assert_eq!(across_crates(text, &crates).len(), 1, "{text}");
        }
        let good = [
            "use super::*;",
            "use crate::oci::*;",
            "use oci::{Digest, Tag};",
            "use proptest::prelude::*;",
            "// use oci::*;",
        ];
        for text in good {
            assert_eq!(across_crates(text, &crates), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn self_test_of_fronts() {
        let bad = [
            "use crate::grpc::admin;",
            "use crate::{config::Config, grpc};",
            "use super::super::grpc;",
            "fn f() { crate::grpc::start() }",
            "fn f() { let x: super::grpc::X = y; }",
        ];
        for text in bad {
            assert_eq!(naming(text, "grpc"), ["1: names the grpc front"], "{text}");
        }
        let good = [
            "use crate::http::blobs;",
            "use grpc::X;",
            "let grpc = 1;",
            "use proto::grpc;",
            "// crate::grpc",
            "use crate::config::grpc;",
        ];
        for text in good {
            assert_eq!(naming(text, "grpc"), Vec::<String>::new(), "{text}");
        }
        // The http library is no front.
        assert_eq!(
            naming("use http::Request; fn f() { http::StatusCode::OK }", "http"),
            Vec::<String>::new()
        );
    }
}
