//! The words of others, before an operator's terminal sees them: vLLM's lines, file names and models
//! may hold what a terminal obeys. All text goes through here; JSON has an escape of its own.

/// The most characters of a line that is not the operator's own.
const LONGEST: usize = 1000;

/// One line: without what a terminal would obey, and cut where it is too long to be read.
pub(super) fn line(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", unbroken(&text[..end])),
        None => unbroken(text),
    }
}

/// The same in its full length.
pub(super) fn unbroken(text: &str) -> String {
    lines(text).replace('\n', &'\n'.escape_unicode().to_string())
}

/// Lines that are one's own, with words of others in them: without what a terminal would obey.
pub(super) fn lines(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => plain.push(' '),
            '\n' => plain.push(c),
            c if c.is_control() || turns_text(c) => plain.extend(c.escape_unicode()),
            c => plain.push(c),
        }
    }
    plain
}

/// Whether a character has text behind it read in another direction (Unicode, UAX 9), or on another
/// line.
fn turns_text(c: char) -> bool {
    matches!(
        c,
        '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        for (text, shown) in [
            ("\u{1b}[2Jgone", r"\u{1b}[2Jgone"),
            ("\u{1b}]0;title\u{7}", r"\u{1b}]0;title\u{7}"),
            ("\u{9b}31m", r"\u{9b}31m"),
            ("a\u{7f}b\rc", r"a\u{7f}b\u{d}c"),
            ("evil\u{202e}txt\u{2066}", r"evil\u{202e}txt\u{2066}"),
            ("a\tb", "a b"),
            ("größer … 模型", "größer … 模型"),
        ] {
            assert_eq!(line(text), shown);
            assert_eq!(lines(text), shown);
        }
    }

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(unbroken("one\ntwo"), line("one\ntwo"));
        assert_eq!(line("one\nerror: two"), r"one\u{a}error: two");
        assert_eq!(line("one\u{2028}two"), r"one\u{2028}two");
        assert_eq!(lines("one\n  help: two"), "one\n  help: two");
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        let long = "ä".repeat(16 * 1024);
        assert_eq!(line(&long), format!("{}…", "ä".repeat(LONGEST)));
        let fits = "ä".repeat(LONGEST);
        assert_eq!(line(&fits), fits);
    }
}
