//! How long a function may be.

use crate::lexer::{self, Token};

/// The most lines of a function, from `fn` to its closing brace.
const MAX_LINES: usize = 70;

/// Every function of a file that is too long, tests included: a test one cannot take in proves little.
pub(crate) fn too_long(text: &str) -> Vec<String> {
    let tokens = lexer::read(text).tokens;
    let starts = tokens
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[0].is("fn") && pair[1].is_word());
    starts
        .filter_map(|(start, pair)| too_long_at(&tokens, start, pair[1].text))
        .collect()
}

fn too_long_at(tokens: &[Token<'_>], start: usize, name: &str) -> Option<String> {
    let body = lexer::head_end(tokens, start)?;
    let end = if tokens[body].is("{") {
        lexer::closing(tokens, body)
    } else {
        body
    };
    let line = tokens[start].line;
    let lines = tokens[end].line - line + 1;
    (lines > MAX_LINES)
        .then(|| format!("{line}: fn {name} has {lines} lines, more than {MAX_LINES}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn self_test() {
        let function = |lines: usize| {
            format!(
                "fn f(x: [u8; 2])\nwhere X: Y {{\n{}}}\nfn g() {{}}\n",
                "x();\n".repeat(lines)
            )
        };
        assert_eq!(too_long(&function(MAX_LINES - 3)), Vec::<String>::new());
        assert_eq!(
            too_long(&function(MAX_LINES - 2)),
            ["1: fn f has 71 lines, more than 70"]
        );
        // A brace in a string ends nothing, and a type of functions is no function.
        let tricky = format!("fn f() {{ \"}}\";\n{}}}", "x();\n".repeat(80));
        assert_eq!(too_long(&tricky).len(), 1);
        assert_eq!(
            too_long(&format!("type F = fn(u8) -> u8;\n{}", "\n".repeat(80))).len(),
            0
        );
        assert_eq!(
            too_long(&format!(
                "trait T {{ fn f(&self);\n{}}}",
                "fn g(&self);\n".repeat(80)
            ))
            .len(),
            0
        );
        // Nested functions are counted with what is around them, and by themselves.
        assert_eq!(
            too_long(&format!(
                "fn a() {{ fn b() {{\n{}}} }}",
                "x();\n".repeat(80)
            ))
            .len(),
            2
        );
    }
}
