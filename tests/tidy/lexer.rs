//! Rust source as tokens: just enough to tell code from comments and strings.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier, a keyword or a number.
    Word,
    /// One character of punctuation.
    Mark,
    /// A string or character literal; the text is what stands between the quotes.
    Literal,
}

/// A token and the line it starts on, counted from one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'s> {
    pub(crate) kind: Kind,
    pub(crate) text: &'s str,
    pub(crate) line: usize,
}

impl Token<'_> {
    /// True for this word or mark; never for a literal that reads the same.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.kind != Kind::Literal && self.text == text
    }

    pub(crate) fn is_word(&self) -> bool {
        self.kind == Kind::Word
    }
}

/// The tokens of a file, and its comments apart from them.
#[derive(Debug, Default)]
pub(crate) struct Source<'s> {
    pub(crate) tokens: Vec<Token<'s>>,
    pub(crate) comments: Vec<(usize, &'s str)>,
}

/// Splits source text. Never fails: what is not Rust comes out as marks.
pub(crate) fn read(text: &str) -> Source<'_> {
    let mut lexer = Lexer {
        text,
        at: 0,
        line: 1,
        source: Source::default(),
    };
    while lexer.step() {}
    lexer.source
}

struct Lexer<'s> {
    text: &'s str,
    at: usize,
    line: usize,
    source: Source<'s>,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.text[self.at..]
    }

    /// Moves over `bytes` of text and returns it, counting its lines.
    fn take(&mut self, bytes: usize) -> &'s str {
        let taken = &self.rest()[..bytes.min(self.rest().len())];
        self.at += taken.len();
        self.line += taken.matches('\n').count();
        taken
    }

    fn push(&mut self, kind: Kind, text: &'s str, line: usize) {
        self.source.tokens.push(Token { kind, text, line });
    }

    fn step(&mut self) -> bool {
        let (rest, line) = (self.rest(), self.line);
        let Some(first) = rest.chars().next() else {
            return false;
        };
        if first.is_whitespace() {
            self.take(first.len_utf8());
        } else if rest.starts_with("//") {
            let comment = self.take(rest.find('\n').unwrap_or(rest.len()));
            self.source.comments.push((line, comment));
        } else if rest.starts_with("/*") {
            let comment = self.take(block_comment_bytes(rest));
            self.source.comments.push((line, comment));
        } else if let Some((before, inside)) = string_start(rest) {
            self.take(before);
            let length = inside(self.rest());
            let literal = self.take(length.0);
            self.take(length.1);
            self.push(Kind::Literal, literal, line);
        } else if first == '\'' {
            self.quote();
        } else if first.is_alphanumeric() || first == '_' {
            let word = self.take(
                rest.find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(rest.len()),
            );
            self.push(Kind::Word, word, line);
        } else {
            let mark = self.take(first.len_utf8());
            self.push(Kind::Mark, mark, line);
        }
        true
    }

    /// A character literal or a lifetime; a lifetime is dropped, no rule looks at one.
    fn quote(&mut self) {
        let line = self.line;
        self.take(1);
        let mut chars = self.rest().chars();
        match (chars.next(), chars.next()) {
            (Some('\\'), Some(escaped)) => {
                let head = 1 + escaped.len_utf8();
                let close = self.rest()[head..].find('\'').unwrap_or(0);
                let literal = self.take(head + close);
                self.take(1);
                self.push(Kind::Literal, literal, line);
            }
            (Some(only), Some('\'')) => {
                let literal = self.take(only.len_utf8());
                self.take(1);
                self.push(Kind::Literal, literal, line);
            }
            _ => {
                let rest = self.rest();
                self.take(
                    rest.find(|c: char| !c.is_alphanumeric() && c != '_')
                        .unwrap_or(rest.len()),
                );
            }
        }
    }
}

fn block_comment_bytes(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        let step = if rest.starts_with(b"/*") {
            depth += 1;
            2
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            2
        } else {
            1
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Measures a literal from behind its opening quote: bytes of content, bytes of the closing quote.
type Measure = Box<dyn Fn(&str) -> (usize, usize)>;

/// The length of the opening of a string, plain or raw, and how to find its end.
fn string_start(text: &str) -> Option<(usize, Measure)> {
    let after_prefix = ["br", "cr", "r", "b", "c", ""]
        .into_iter()
        .find_map(|prefix| {
            let rest = text.strip_prefix(prefix)?;
            rest.starts_with(['"', '#']).then_some((prefix, rest))
        });
    let (prefix, rest) = after_prefix?;
    let hashes = rest.bytes().take_while(|&b| b == b'#').count();
    if !rest[hashes..].starts_with('"') || (hashes > 0 && !prefix.ends_with('r')) {
        return None;
    }
    let opening = prefix.len() + hashes + 1;
    if !prefix.ends_with('r') {
        return Some((opening, Box::new(plain_string_bytes)));
    }
    let closing = format!("\"{}", "#".repeat(hashes));
    Some((
        opening,
        Box::new(move |inside| (inside.find(&closing).unwrap_or(inside.len()), closing.len())),
    ))
}

fn plain_string_bytes(inside: &str) -> (usize, usize) {
    let mut escaped = false;
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return (at, 1),
            _ => {}
        }
    }
    (inside.len(), 0)
}

/// The index of the token that closes the bracket at `open`, or of the last token.
pub(crate) fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if ["{", "(", "["].iter().any(|mark| token.is(mark)) {
            depth += 1;
        } else if ["}", ")", "]"].iter().any(|mark| token.is(mark)) {
            depth = depth.saturating_sub(1);
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len().saturating_sub(1)
}

/// The first `{` or `;` outside parentheses and brackets: where the head of an item ends.
pub(crate) fn head_end(tokens: &[Token<'_>], start: usize) -> Option<usize> {
    let mut at = start;
    while let Some(token) = tokens.get(at) {
        if token.is("{") || token.is(";") {
            return Some(at);
        }
        at = if token.is("(") || token.is("[") {
            closing(tokens, at) + 1
        } else {
            at + 1
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        read(text).tokens.iter().map(|token| token.text).collect()
    }

    #[test]
    fn self_test_of_comments_and_strings() {
        assert_eq!(words("a // b\n/* c /* d */ e */ f"), ["a", "f"]);
        assert_eq!(
            words(r##"x("a \" b", r#"c " d"#, br"\", b'q', '\'', '"', 'é') y"##).last(),
            Some(&"y")
        );
        assert_eq!(words("fn f<'a>(x: &'a str) {}").len(), 12);
        assert_eq!(words("r#fn r\"raw\""), ["r", "#", "fn", "raw"]);
        assert!(!read("\"unwrap\"").tokens[0].is("unwrap"));
        let source = read("a\n\"x\ny\"\nb /* one\ntwo */ c // d");
        assert_eq!(
            source
                .tokens
                .iter()
                .map(|token| token.line)
                .collect::<Vec<_>>(),
            [1, 2, 4, 5]
        );
        assert_eq!(
            source
                .comments
                .iter()
                .map(|comment| comment.0)
                .collect::<Vec<_>>(),
            [4, 5]
        );
    }

    #[test]
    fn self_test_of_brackets() {
        let source = read("fn f(a: [u8; 3]) -> X { { } } end");
        let open = head_end(&source.tokens, 0).unwrap();
        assert!(source.tokens[open].is("{"));
        assert!(source.tokens[closing(&source.tokens, open) + 1].is("end"));
        for broken in ["{", "}", "fn", "(", "\"", "r#\"", "'", "/*", "b'"] {
            let source = read(broken);
            let _ = (head_end(&source.tokens, 0), closing(&source.tokens, 0));
        }
    }
}
