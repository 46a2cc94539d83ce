//! Takes the middle out of a log that has grown too long, while vLLM writes it.
//!
//! vLLM appends to a file that it holds open, so the file can be neither replaced nor renamed. A
//! hole is punched into it instead (fallocate(2), `FALLOC_FL_PUNCH_HOLE`): the room is free at once,
//! no line at the end is lost, whoever reads it keeps its place, and the file's length still says
//! how much was written. A file system without holes has its file written anew in place, as
//! logrotate's `copytruncate` does; what vLLM writes in that instant is lost.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;

use crate::adapters::directory::Directory;

/// Holes begin and end at multiples of this: larger than the blocks of usual file systems.
const BLOCK_BYTES: u64 = 64 * 1024;

/// The longest beginning that is kept: what vLLM was started with, and how it came up.
const HEAD_BYTES: u64 = 1024 * 1024;

/// Room for the line that marks the cut.
const MARK_BYTES: usize = 128;

/// Cuts the log if it takes more room than `most`; then about half of that is left.
pub(super) fn cut(logs: &Directory, name: &str, most: u64) -> io::Result<()> {
    let file = logs.open_file(name, OFlags::RDWR)?;
    let metadata = file.metadata()?;
    // What stat(2) calls blocks is 512 bytes everywhere on Linux.
    if metadata.blocks().saturating_mul(512) <= most {
        return Ok(());
    }
    let middle = Middle::of(metadata.len(), most);
    if middle.end <= middle.start {
        return Ok(());
    }
    match fallocate(
        &file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        middle.start,
        middle.end - middle.start,
    ) {
        Ok(()) => file.write_all_at(&mark(middle.end - middle.start), middle.start),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => rewrite(logs, name, &file, middle),
        Err(error) => Err(error.into()),
    }
}

/// What is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Middle {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Middle {
    /// Between an eighth of what is allowed, from the start, and three eighths at the end.
    pub(super) fn of(length: u64, most: u64) -> Self {
        let whole = |bytes: u64| bytes / BLOCK_BYTES * BLOCK_BYTES;
        let start = whole((most / 8).min(HEAD_BYTES)).max(BLOCK_BYTES);
        Self { start, end: whole(length.saturating_sub(most / 8 * 3)) }
    }
}

/// A line of its own, wherever the lines around it were cut.
fn mark(bytes: u64) -> Vec<u8> {
    let text = format!("\n[vllmd: {bytes} bytes of this log were dropped here]");
    let mut mark = format!("{text:<width$}\n", width = MARK_BYTES - 1).into_bytes();
    mark.truncate(MARK_BYTES);
    mark
}

fn rewrite(logs: &Directory, name: &str, file: &File, middle: Middle) -> io::Result<()> {
    let mut tail = Vec::new();
    let mut position = middle.end;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read_at(&mut chunk, position)? {
            0 => break,
            length => {
                position += length as u64;
                tail.extend_from_slice(&chunk[..length]);
            }
        }
    }
    // Appended, as vLLM's own lines are, so neither overwrites the other.
    let mut appending = logs.open_file(name, OFlags::WRONLY | OFlags::APPEND)?;
    file.set_len(middle.start)?;
    let mut text = mark(middle.end - middle.start);
    text.append(&mut tail);
    appending.write_all(&text)
}

#[cfg(test)]
pub(super) fn cut_without_holes(logs: &Directory, name: &str, most: u64) -> io::Result<()> {
    let file = logs.open_file(name, OFlags::RDWR)?;
    rewrite(logs, name, &file, Middle::of(file.metadata()?.len(), most))
}
