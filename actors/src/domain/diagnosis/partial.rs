//! A line that comes in parts, in bounded memory.

/// How much of a line is looked at, in bytes; a list of all architectures takes ten thousand.
pub(super) const LONGEST_LINE: usize = 16 * 1024;

/// As much as has come of a line. Of one that is too long to be kept it is the beginning of what stands
/// behind the last carriage return: what a progress bar has written over is not seen any more.
#[derive(Debug, Default)]
pub(super) struct Partial {
    kept: Vec<u8>,
    /// How many bytes have come.
    length: usize,
    /// The white space since a carriage return that nothing has followed yet: there may be nothing.
    blank: Option<Vec<u8>>,
}

impl Partial {
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What is kept; the next line begins.
    pub(super) fn finish(&mut self) -> &[u8] {
        (self.length, self.blank) = (0, None);
        &self.kept
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.is_empty() {
            self.kept.clear();
        }
        let was_short = self.length <= LONGEST_LINE;
        self.length = self.length.saturating_add(bytes.len());
        if self.length <= LONGEST_LINE {
            return self.kept.extend_from_slice(bytes);
        }
        if was_short {
            for byte in std::mem::take(&mut self.kept) {
                self.write(byte);
            }
        }
        for byte in bytes {
            self.write(*byte);
        }
    }

    /// As a terminal does.
    fn write(&mut self, byte: u8) {
        if byte == b'\r' {
            self.blank = Some(Vec::new());
        } else if let Some(blank) = &mut self.blank
            && byte.is_ascii_whitespace()
        {
            push_within(blank, byte);
        } else {
            if let Some(blank) = self.blank.take() {
                self.kept = blank;
            }
            push_within(&mut self.kept, byte);
        }
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.kept.capacity() + self.blank.as_ref().map_or(0, Vec::capacity)
    }
}

fn push_within(bytes: &mut Vec<u8>, byte: u8) {
    if bytes.len() < LONGEST_LINE {
        bytes.push(byte);
    }
}
