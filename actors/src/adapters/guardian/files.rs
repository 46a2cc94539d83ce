//! Which files a process uses, read from `/proc` without allocating.
//!
//! Everything here runs in a copy of a process with threads: no allocation, no lock, no panic.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, OFlags, StatxFlags, readlinkat_raw, statx};
use rustix::io::{Errno, read};

use super::super::ownership::FileId;
use super::looking::{ProcPath, digits, each_number, is_absence, is_refusal, number, trimmed};

/// What came of looking into a process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Glance {
    Seen,
    /// It has ended.
    Gone,
    /// It belongs to somebody else.
    Refused,
}

fn glance(looked: Result<(), Errno>) -> Result<Glance, Errno> {
    match looked {
        Ok(()) => Ok(Glance::Seen),
        Err(error) if is_absence(error) => Ok(Glance::Gone),
        Err(error) if is_refusal(error) => Ok(Glance::Refused),
        Err(error) => Err(error),
    }
}

/// Calls with each file that lies in `/dev/shm` itself and that the process has mapped.
pub(super) fn each_segment(
    pid: u32,
    buffer: &mut [u8],
    mut visit: impl FnMut(FileId),
) -> Result<Glance, Errno> {
    glance(each_map(pid, buffer, |line| {
        if is_of_segment(line) {
            file_of(line).into_iter().for_each(&mut visit);
        }
    }))
}

/// Calls with each file that the process has mapped, wherever it sees it.
pub(super) fn each_used_file(
    pid: u32,
    buffer: &mut [u8],
    mut visit: impl FnMut(FileId),
) -> Result<Glance, Errno> {
    glance(each_map(pid, buffer, |line| file_of(line).into_iter().for_each(&mut visit)))
}

/// Calls with each file that the process has open.
pub(super) fn each_open_file(pid: u32, mut visit: impl FnMut(FileId)) -> Result<Glance, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (path, mut failure) = (ProcPath::new(pid, b"fd"), None);
    let looked = path.open_with(flags).and_then(|directory| {
        let links = path.open_with(flags)?;
        each_number(directory, |descriptor| match open_file(&links, descriptor) {
            Ok(id) => id.into_iter().for_each(&mut visit),
            // Closed meanwhile.
            Err(error) if is_absence(error) => {}
            Err(error) => failure = Some(error),
        })
    });
    glance(looked.and(failure.map_or(Ok(()), Err)))
}

/// The file that a descriptor refers to, if it has a path. A server of files is not asked.
fn open_file(links: &OwnedFd, descriptor: u32) -> Result<Option<FileId>, Errno> {
    let mut name = [0; 11];
    let digits = digits(descriptor);
    for (to, from) in name.iter_mut().take(10).zip(trimmed(&digits)) {
        *to = *from;
    }
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| Errno::INVAL)?;
    let mut target = [0; 1];
    readlinkat_raw(links, name, &mut target)?;
    if target != *b"/" {
        return Ok(None);
    }
    let file = statx(links, name, AtFlags::STATX_DONT_SYNC, StatxFlags::INO)?;
    let device = (file.stx_dev_major, file.stx_dev_minor);
    Ok(Some(FileId { device, inode: file.stx_ino }))
}

/// Calls with each line of what the process has mapped.
fn each_map(pid: u32, buffer: &mut [u8], mut visit: impl FnMut(&[u8])) -> Result<(), Errno> {
    let file = ProcPath::new(pid, b"maps").open()?;
    let mut kept = 0_usize;
    loop {
        let count = match read(&file, buffer.get_mut(kept..).unwrap_or_default()) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        let length = kept.saturating_add(count);
        let text = buffer.get(..length).unwrap_or_default();
        let whole =
            text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
        text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').for_each(&mut visit);
        kept = length.saturating_sub(whole);
        buffer.copy_within(whole..length, 0);
    }
}

/// Whether a line of maps speaks of a file that lies in `/dev/shm` itself. The sixth field begins
/// with the first slash, since none before holds one.
fn is_of_segment(line: &[u8]) -> bool {
    let path = line.iter().position(|byte| *byte == b'/').and_then(|at| line.get(at..));
    let name = path.and_then(|path| path.strip_prefix(b"/dev/shm/"));
    name.is_some_and(|name| !name.contains(&b'/') && !name.ends_with(b" (deleted)"))
}

/// The file that a line of maps speaks of: device and inode are its fourth and fifth field.
fn file_of(line: &[u8]) -> Option<FileId> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    let mut device = fields.next()?.split(|byte| *byte == b':');
    let mut hexadecimal = || {
        let text = std::str::from_utf8(device.next()?).ok()?;
        u32::from_str_radix(text, 16).ok()
    };
    let device = (hexadecimal()?, hexadecimal()?);
    let inode = number(fields.next()?);
    (inode != 0).then_some(FileId { device, inode })
}
