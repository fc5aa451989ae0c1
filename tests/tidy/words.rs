//! What may not stand outside tests.

use std::ops::Range;

use crate::lexer::{self, Token};

/// Macros that say "not finished".
const MACROS: [&str; 3] = ["todo", "dbg", "unimplemented"];

/// Notes to oneself that were never meant to be merged.
const NOTES: [&str; 2] = ["FIXME", "XXX"];

/// Every `.unwrap()`, unfinished macro and note outside the test code of a file.
pub(crate) fn banned(text: &str) -> Vec<String> {
    let source = lexer::read(text);
    let tests = test_regions(&source.tokens);
    let mut violations = Vec::new();
    for (at, window) in source.tokens.windows(3).enumerate() {
        let [before, word, after] = window else {
            continue;
        };
        let is_unwrap = before.is(".") && word.is("unwrap") && after.is("(");
        let is_macro = MACROS.iter().any(|name| word.is(name)) && after.is("!");
        if (is_unwrap || is_macro) && !tests.iter().any(|region| region.contains(&at)) {
            violations.push(format!("{}: {}", word.line, word.text));
        }
    }
    for (line, comment) in source.comments {
        let notes = NOTES.iter().filter(|note| comment.contains(**note));
        violations.extend(notes.map(|note| format!("{line}: {note}")));
    }
    violations
}

/// The parts of a file that are compiled for tests only, as ranges of token indexes.
pub(crate) fn test_regions(tokens: &[Token<'_>]) -> Vec<Range<usize>> {
    let mut regions = Vec::new();
    for at in 0..tokens.len() {
        let inner = tokens[at].is("#") && tokens.get(at + 1).is_some_and(|token| token.is("!"));
        let open = at + 1 + usize::from(inner);
        if !tokens[at].is("#") || !tokens.get(open).is_some_and(|token| token.is("[")) {
            continue;
        }
        let close = lexer::closing(tokens, open);
        if is_test_attribute(&tokens[open + 1..close]) {
            let end = if inner {
                tokens.len()
            } else {
                item_end(tokens, close + 1)
            };
            regions.push(at..end);
        }
    }
    regions
}

/// `cfg(test)` and its combinations, `test`, `tokio::test` and the like. `cfg(not(test))` is not one.
fn is_test_attribute(inside: &[Token<'_>]) -> bool {
    let names_test = inside.iter().any(|token| token.is("test"));
    let is_cfg = inside.first().is_some_and(|token| token.is("cfg"));
    let path_end = inside
        .iter()
        .position(|token| token.is("("))
        .unwrap_or(inside.len());
    let is_path = path_end > 0 && inside[path_end - 1].is("test");
    names_test && (is_path || is_cfg && !inside.iter().any(|token| token.is("not")))
}

/// One past the last token of the item, field or arm that an attribute belongs to.
fn item_end(tokens: &[Token<'_>], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|token| token.is("#")) {
        at = lexer::closing(tokens, at + 1) + 1;
    }
    const ITEMS: [&str; 17] = [
        "fn",
        "mod",
        "impl",
        "struct",
        "enum",
        "union",
        "use",
        "const",
        "static",
        "trait",
        "type",
        "async",
        "unsafe",
        "pub",
        "let",
        "extern",
        "macro_rules",
    ];
    let is_item = tokens
        .get(at)
        .is_some_and(|token| ITEMS.iter().any(|keyword| token.is(keyword)));
    if is_item {
        let end = lexer::head_end(tokens, at).unwrap_or(tokens.len());
        let has_body = tokens.get(end).is_some_and(|token| token.is("{"));
        return if has_body {
            lexer::closing(tokens, end) + 1
        } else {
            end
        };
    }
    while let Some(token) = tokens.get(at) {
        if token.is(",") || token.is(";") || token.is("}") {
            break;
        }
        at = if token.is("(") || token.is("{") {
            lexer::closing(tokens, at) + 1
        } else {
            at + 1
        };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn self_test_of_what_is_banned() {
        let bad = [
            "fn f() { x.unwrap(); }",
            "fn f() { x\n  .unwrap () }",
            "fn f() { todo!() }",
            "fn f() { let x = dbg!(y); }",
            "fn f() { unimplemented!(\"later\") }",
            "// FIXME later",
            "/* XXX */ fn f() {}",
            "#[cfg(not(test))] fn f() { x.unwrap() }",
            "#[cfg(test)] mod tests { } fn f() { x.unwrap() }",
            "#[cfg(test)] use a::b; fn f() { x.unwrap() }",
            "#[cfg(test)] mod tests; fn f() { x.unwrap() }",
            "struct S { #[cfg(test)] a: u8, b: u8 } fn f() { x.unwrap() }",
        ];
        for text in bad {
            assert_eq!(banned(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn self_test_of_what_is_allowed() {
        let good = [
            "fn f() { x.unwrap_or(1); x.unwrap_or_default(); x.expect(\"why\"); }",
            "fn f() { \"x.unwrap() todo!() FIXME\"; } // unwrap() is not called here",
            "fn unwrap() {} fn g() { unwrap() }",
            "#[cfg(test)] mod tests { fn f() { x.unwrap(); todo!() } }",
            "#[cfg(all(test, unix))] fn f<A, B>(a: A) { x.unwrap() }",
            "#[test] #[ignore] fn f() { x.unwrap() }",
            "#[tokio::test(start_paused = true)] async fn f() { x.unwrap() }",
            "#![cfg(test)] fn f() { x.unwrap() }",
        ];
        for text in good {
            assert_eq!(banned(text), Vec::<String>::new(), "{text}");
        }
    }
}
