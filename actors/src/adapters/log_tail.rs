//! Reads vLLM's output from the file that it goes to.
//!
//! vLLM writes to a file, not to a pipe: it never blocks on a reader that is slow, and is not killed
//! by one that is gone. The file is looked at while a model loads, and after a crash.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::state_directory::StateDirectory;
use crate::domain::id::Incarnation;
use crate::ports::{LineSource, Output, Pending};

/// How often a file that has not grown is looked at again.
const PAUSE: Duration = Duration::from_millis(100);

/// Read at a time, so that a flood does not keep the runtime busy.
const CHUNK_BYTES: usize = 64 * 1024;

/// A line is cut off here: a progress bar, or a flood, may never end one.
const LONGEST_LINE_BYTES: usize = 16 * 1024;

/// The end of the file in which the last lines are looked for.
const TAIL_BYTES: u64 = 32 * 1024;

/// The logs in a state directory.
#[derive(Debug)]
pub struct LogFiles(Arc<StateDirectory>);

impl LogFiles {
    /// The logs in this directory.
    pub fn new(state: Arc<StateDirectory>) -> Self {
        Self(state)
    }
}

impl Output for LogFiles {
    fn lines(&self, incarnation: Incarnation) -> Box<dyn LineSource> {
        Box::new(FileLines::new(self.0.log_of(incarnation)))
    }
}

/// One log, read from its start.
#[derive(Debug)]
struct FileLines {
    path: PathBuf,
    /// Opened once it exists.
    file: Option<File>,
    framer: Framer,
}

impl FileLines {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, framer: Framer::default() }
    }

    fn read(&mut self) -> io::Result<Vec<String>> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(File::open(&self.path)?),
        };
        let mut chunk = vec![0; CHUNK_BYTES];
        let length = file.read(&mut chunk)?;
        Ok(self.framer.push(&chunk[..length]))
    }
}

impl LineSource for FileLines {
    fn next_lines(&mut self) -> Pending<'_, Vec<String>> {
        Box::pin(async move {
            loop {
                match self.read() {
                    Ok(lines) if !lines.is_empty() => return lines,
                    // It has not been made yet, or has not grown by a line.
                    Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        })
    }
}

/// Cuts output into lines, at `\n` and `\r`, whatever it holds and however it arrives.
#[derive(Debug, Default)]
struct Framer {
    line: Vec<u8>,
    /// Whether the rest of an overlong line is being skipped.
    skipping: bool,
}

impl Framer {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r') {
                if !self.line.is_empty() && !self.skipping {
                    lines.push(self.take());
                }
                self.line.clear();
                self.skipping = false;
            } else if !self.skipping {
                self.line.push(*byte);
                if self.line.len() >= LONGEST_LINE_BYTES {
                    lines.push(self.take());
                    self.skipping = true;
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

/// The last lines of a file, oldest first, blank ones left out.
pub(super) fn last_lines(path: &Path, count: usize) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    bytes.push(b'\n');
    let mut lines = Framer::default().push(&bytes);
    lines.retain(|line| !line.trim().is_empty());
    let surplus = lines.len().saturating_sub(count);
    Ok(lines.split_off(surplus))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

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

    #[tokio::test]
    async fn a_file_is_followed_from_before_it_exists() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut lines = FileLines::new(path.clone());
        let mut file = fs::File::create(&path).unwrap();
        writeln!(file, "first").unwrap();
        assert_eq!(lines.next_lines().await, ["first"]);
        writeln!(file, "second").unwrap();
        assert_eq!(lines.next_lines().await, ["second"]);
    }

    #[test]
    fn the_last_lines_are_those_before_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "a\nb\n\nc\nd").unwrap();
        assert_eq!(last_lines(&path, 2).unwrap(), ["c", "d"]);
    }
}
