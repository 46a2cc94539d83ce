//! Lines of a file, in bounded memory whatever it holds.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

/// A longer line is none of ours: the longest that we write holds twenty lines of vLLM's output of
/// 16 KiB each, every byte of which JSON may spell in six.
const LONGEST_LINE_BYTES: usize = 2 * 1024 * 1024;

/// Whole lines, from where the file stands. A last line without its end is left for later.
#[derive(Debug)]
pub(super) struct Lines {
    file: BufReader<File>,
    /// What has been read of the next line.
    line: Vec<u8>,
    /// Bytes read so far.
    read: u64,
}

impl Lines {
    pub(super) fn of(file: File) -> Self {
        Self { file: BufReader::with_capacity(64 * 1024, file), line: Vec::new(), read: 0 }
    }

    /// Bytes read so far.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        self.file.get_ref()
    }

    /// The next line, without its end; one that is overlong or no text is empty. `None` where
    /// there is no whole line yet.
    pub(super) fn next_line(&mut self) -> io::Result<Option<String>> {
        loop {
            let chunk = match self.file.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                return Ok(None);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            // One byte more than is allowed tells that it was overlong.
            let room = (LONGEST_LINE_BYTES + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            let used = part.len() + usize::from(end.is_some());
            self.file.consume(used);
            self.read += used as u64;
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                let line = if line.len() > LONGEST_LINE_BYTES { Vec::new() } else { line };
                return Ok(Some(String::from_utf8(line).unwrap_or_default()));
            }
        }
    }
}
