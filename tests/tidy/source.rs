//! One Rust file, and the tokens that are left of it without comments and literals.

/// A Rust file of the workspace.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the root of the workspace, with `/`.
    pub(crate) path: String,
    /// As it stands in the file.
    pub(crate) text: String,
    /// Its words and symbols. What stands in comments and literals is nobody's code.
    pub(crate) tokens: Vec<Token>,
}

/// A word (or a number, or a lifetime with its `'`), `::`, or any other single character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// How it is written.
    pub(crate) text: String,
    /// Where, from 1.
    pub(crate) line: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), tokens: tokens(text) }
    }

    /// The token at this place; empty past either end.
    pub(crate) fn word(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    /// The line of the token at this place.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.tokens.get(at).map_or(0, |token| token.line)
    }

    /// Where these tokens stand in a row.
    pub(crate) fn places_of(&self, words: &[&str]) -> Vec<usize> {
        let windows = self.tokens.windows(words.len()).enumerate();
        windows
            .filter(|(_, window)| {
                window.iter().map(|token| token.text.as_str()).eq(words.iter().copied())
            })
            .map(|(at, _)| at)
            .collect()
    }

    /// The place of the bracket that closes the one at `open`; the end, if none does.
    pub(crate) fn closing(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for at in open..self.tokens.len() {
            match self.word(at) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return at;
            }
        }
        self.tokens.len()
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let (mut tokens, mut line, mut rest, mut before) = (Vec::new(), 1, text, ' ');
    while let Some(first) = rest.chars().next() {
        let hidden = hidden_length(rest, before);
        let length = if hidden > 0 { hidden } else { token_length(rest, first) };
        let (token, behind) = rest.split_at(length);
        if hidden == 0 && !first.is_whitespace() {
            tokens.push(Token { text: token.to_owned(), line });
        }
        line += token.matches('\n').count();
        before = token.chars().next_back().unwrap_or(' ');
        rest = behind;
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn token_length(rest: &str, first: char) -> usize {
    let word_behind = |start: usize| {
        let word = &rest[start..];
        start + word.find(|c: char| !is_word(c)).unwrap_or(word.len())
    };
    match first {
        // A lifetime: character literals are hidden before.
        '\'' => word_behind(1),
        _ if is_word(first) => word_behind(0),
        _ if rest.starts_with("::") => 2,
        _ => first.len_utf8(),
    }
}

/// The length of the comment or literal that begins here; 0 where none does. The prefixes `b` and
/// `c` count as words of their own, which does no harm.
fn hidden_length(rest: &str, before: char) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_length(rest);
    }
    if rest.starts_with('"') {
        return quoted_length(rest, '"');
    }
    if rest.starts_with('\'') {
        let mut inside = rest.chars().skip(1);
        let is_literal = inside.next() == Some('\\') || inside.next() == Some('\'');
        return if is_literal { quoted_length(rest, '\'') } else { 0 };
    }
    if is_word(before) && !matches!(before, 'b' | 'c') {
        return 0;
    }
    raw_string_length(rest)
}

fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let step = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string_length(rest: &str) -> usize {
    let prefix = rest.find('r').filter(|at| matches!(&rest[..*at], "" | "b" | "c"));
    let Some(after) = prefix.map(|at| at + 1) else { return 0 };
    let hashes = rest[after..].bytes().take_while(|byte| *byte == b'#').count();
    let start = after + hashes;
    if !rest[start..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    rest[start + 1..].find(&end).map_or(rest.len(), |at| start + 1 + at + end.len())
}

#[test]
fn comments_and_literals_are_not_code() {
    for hidden in [
        "// a b",
        "/* a /* b */ c */",
        "\"a \\\" b\"",
        "'a'",
        "'\\''",
        "'é'",
        "r\"a\"",
        "r#\"a \" b\"#",
    ] {
        let words = tokens(&format!("x {hidden}\n y"));
        let words: Vec<&str> = words.iter().map(|token| token.text.as_str()).collect();
        assert_eq!(words, ["x", "y"], "{hidden}");
    }
}

#[test]
fn words_lifetimes_and_symbols_are_told_apart() {
    let source = Source::new("a.rs", "fn a<'b>(c: &'static d::E)\n{}");
    let words: Vec<&str> = source.tokens.iter().map(|token| token.text.as_str()).collect();
    let expected =
        ["fn", "a", "<", "'b", ">", "(", "c", ":", "&", "'static", "d", "::", "E", ")", "{", "}"];
    assert_eq!(words, expected);
    assert_eq!(source.line(14), 2);
    assert_eq!((source.closing(5), source.places_of(&["d", "::"])), (13, vec![10]));
}
