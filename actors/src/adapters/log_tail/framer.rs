//! Cuts output into lines, in bounded memory.

/// A line is cut off here: a progress bar, or a flood, may never end one.
const LONGEST_LINE_BYTES: usize = 16 * 1024;

/// Cuts output into lines, at `\n` and `\r`, whatever it holds and however it arrives. NUL ends one
/// too: it is what is read where a log was cut.
#[derive(Debug, Default)]
pub(super) struct Framer {
    line: Vec<u8>,
    rest: Rest,
}

/// What becomes of the rest of the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    /// It is kept.
    #[default]
    Kept,
    /// The line is too long already, or its beginning was not seen.
    Skipped,
}

impl Framer {
    /// One that begins somewhere within a line, which is left out.
    pub(super) fn within_a_line() -> Self {
        Self { line: Vec::new(), rest: Rest::Skipped }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r' | 0) {
                if !self.line.is_empty() && self.rest == Rest::Kept {
                    lines.push(self.take());
                }
                self.line.clear();
                self.rest = Rest::Kept;
            } else if self.rest == Rest::Kept {
                self.line.push(*byte);
                if self.line.len() >= LONGEST_LINE_BYTES {
                    lines.push(self.take());
                    self.rest = Rest::Skipped;
                }
            }
        }
        lines
    }

    fn take(&mut self) -> String {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::rounds;

    #[test]
    fn lines_end_at_newlines_and_carriage_returns_wherever_the_chunks_do() {
        let mut framer = Framer::default();
        assert_eq!(framer.push(b"one\ntw"), ["one"]);
        assert_eq!(framer.push(b"o\r 45%|###\r\n\nthree"), ["two", " 45%|###"]);
        assert_eq!(framer.push(b"\n"), ["three"]);
    }

    #[test]
    fn a_flood_without_a_newline_is_cut_off_and_costs_no_memory() {
        let mut framer = Framer::default();
        let mut lines = Vec::new();
        for _ in 0..1000 {
            lines.extend(framer.push(&[b'x'; 4096]));
        }
        assert_eq!(lines.len(), 1);
        assert!(framer.line.capacity() <= 2 * LONGEST_LINE_BYTES);
        assert_eq!(framer.push(b"tail of it\nnext\n"), ["next"]);
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        assert_eq!(Framer::default().push(b"\xff\xfe\n"), ["\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn the_rest_of_a_line_whose_beginning_was_not_seen_is_left_out() {
        assert_eq!(Framer::within_a_line().push(b"half\nwhole\n"), ["whole"]);
    }

    #[test]
    fn where_a_log_was_cut_there_are_no_lines() {
        assert_eq!(Framer::default().push(b"a\0\0\0\0b\n"), ["a", "b"]);
    }

    #[test]
    fn however_bytes_arrive_the_lines_are_the_same_and_short() {
        let piece = prop_oneof![
            vec(any::<u8>(), 0..200),
            vec(prop::sample::select(b"\n\r\0a".to_vec()), 0..20),
            (0..3 * LONGEST_LINE_BYTES).prop_map(|length| vec![b'x'; length]),
        ];
        let bytes = vec(piece, 0..20).prop_map(|pieces| pieces.concat());
        for _ in rounds() {
            proptest!(|(bytes in &bytes, sizes in vec(1..5000_usize, 1..20))| {
                let whole = Framer::default().push(&bytes);
                let mut framer = Framer::default();
                let (mut rest, mut sizes) = (&bytes[..], sizes.iter().cycle());
                let mut parts = Vec::new();
                while !rest.is_empty() {
                    let (part, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                    parts.extend(framer.push(part));
                    prop_assert!(framer.line.capacity() <= 2 * LONGEST_LINE_BYTES);
                    rest = after;
                }
                // What is no text takes three bytes for one.
                prop_assert!(parts.iter().all(|line| line.len() <= 3 * LONGEST_LINE_BYTES));
                prop_assert_eq!(parts, whole);
            });
        }
    }
}
