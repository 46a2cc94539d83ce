//! Who is of the launch, read from `/proc` without allocating.
//!
//! Everything here runs in a copy of a process with threads: no allocation, no lock, no panic.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::io::{Errno, read};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Orders;

/// A process, as far as it matters here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    pub(super) pid: u32,
    parent: u32,
    session: u32,
    pub(super) start_time: u64,
    pub(super) is_member: bool,
}

/// `/proc/<pid>/<file>`, on the stack.
struct ProcPath([u8; 48]);

impl ProcPath {
    fn new(pid: u32, file: &[u8]) -> Self {
        let mut path = [0; 48];
        let digits = digits(pid);
        let parts: [&[u8]; 4] = [b"/proc/", trimmed(&digits), b"/", file];
        // The last byte stays NUL, whatever comes.
        for (to, from) in path.iter_mut().take(47).zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        Self(path)
    }

    fn open(&self) -> Result<OwnedFd, Errno> {
        let path = CStr::from_bytes_until_nul(&self.0).map_err(|_| Errno::INVAL)?;
        openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }
}

fn digits(mut number: u32) -> [u8; 10] {
    let mut digits = [b'0'; 10];
    for digit in digits.iter_mut().rev() {
        *digit = b'0'.wrapping_add((number % 10) as u8);
        number /= 10;
    }
    digits
}

fn trimmed(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take(digits.len().saturating_sub(1)).take_while(|it| **it == b'0');
    digits.get(zeros.count()..).unwrap_or_default()
}

/// The start of a file of `/proc`, as much as the buffer holds.
fn start_of<'a>(pid: u32, file: &[u8], buffer: &'a mut [u8]) -> &'a [u8] {
    let mut length = 0;
    if let Ok(file) = ProcPath::new(pid, file).open() {
        while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match read(&file, rest) {
                Ok(0) => break,
                Ok(count) => length = length.saturating_add(count),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
    }
    buffer.get(..length).unwrap_or_default()
}

pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len().max(1)).any(|window| window == part)
}

fn number(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0_u64, |sum, digit| {
        sum.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')))
    })
}

/// One field of `/proc/<pid>/stat`, numbered as in proc(5); the name may hold anything, so they
/// count from the last parenthesis.
pub(super) fn stat_field(stat: &[u8], field: usize) -> Option<&[u8]> {
    let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = stat.get(name_ends.checked_add(2)?..)?;
    fields.split(|byte| *byte == b' ').nth(field.checked_sub(3)?)
}

/// Its row; none if it is gone or a zombie.
pub(super) fn row_of(pid: u32) -> Option<Row> {
    let mut buffer = [0; 1024];
    let stat = start_of(pid, b"stat", &mut buffer);
    if matches!(stat_field(stat, 3), Some(b"Z" | b"X") | None) {
        return None;
    }
    let small = |field| u32::try_from(number(stat_field(stat, field)?)).ok();
    Some(Row {
        pid,
        parent: small(4)?,
        session: small(6)?,
        start_time: number(stat_field(stat, 22)?),
        is_member: false,
    })
}

/// Holds the process of this row, and no other.
pub(super) fn hold(row: Row) -> Option<OwnedFd> {
    let pid = i32::try_from(row.pid).ok().and_then(Pid::from_raw)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Opened first, compared then: what the descriptor refers to cannot change any more.
    row_of(row.pid).filter(|again| again.start_time == row.start_time).map(|_| pidfd)
}

/// Whether its command line says that it is Python's resource tracker, which removes the shared
/// memory of those it outlives.
pub(super) fn is_resource_tracker(pid: u32) -> bool {
    let mut buffer = [0; 4096];
    contains(start_of(pid, b"cmdline", &mut buffer), b"multiprocessing.resource_tracker")
}

/// Calls for every process there is.
pub(super) fn every_process(mut visit: impl FnMut(u32)) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = openat(CWD, c"/proc", flags, Mode::empty()) else { return };
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_bytes();
        if name.iter().all(u8::is_ascii_digit)
            && let Ok(pid) = u32::try_from(number(name))
        {
            visit(pid);
        }
    }
}

/// Fills the table, and returns how many rows of it are used; the members are marked.
pub(super) fn look(orders: &mut Orders) -> usize {
    let mut rows = std::mem::take(&mut orders.rows);
    let me = rustix::process::getpid().as_raw_pid().cast_unsigned();
    let mut used = 0;
    every_process(|pid| {
        let Some(mut row) = row_of(pid).filter(|_| pid != me) else { return };
        row.is_member = is_noted(orders, row) || carries_marker(orders, pid);
        if let Some(slot) = rows.get_mut(used) {
            *slot = row;
            used = used.saturating_add(1);
        }
    });
    mark_descendants(rows.get_mut(..used).unwrap_or_default());
    orders.rows = rows;
    used
}

/// Named by the supervisor, or in the session of the main process.
fn is_noted(orders: &Orders, row: Row) -> bool {
    let mut noted = orders
        .notes()
        .iter()
        .map(|[pid, start_time]| (pid.load(Ordering::SeqCst), start_time.load(Ordering::SeqCst)));
    let main = noted.clone().next().unwrap_or_default();
    // The session's number is ours while anybody is in it. Whoever took it over heads it himself,
    // and began at another time than the main process.
    let is_headed_by_us =
        || row_of(row.session).is_none_or(|head| head.start_time == main.1 && main.1 != 0);
    noted.any(|it| it == (u64::from(row.pid), row.start_time))
        || main.0 != 0
            && u64::from(row.session) == main.0
            && row.start_time >= main.1
            && is_headed_by_us()
}

/// Whether the marker stands in its environment, which may be of any length.
fn carries_marker(orders: &mut Orders, pid: u32) -> bool {
    let Ok(file) = ProcPath::new(pid, b"environ").open() else { return false };
    let (marker, buffer) = (&orders.marker, &mut orders.buffer);
    // A NUL before the first variable, as between all others.
    let mut kept = 1;
    if let Some(first) = buffer.first_mut() {
        *first = 0;
    }
    loop {
        let count = match read(&file, buffer.get_mut(kept..).unwrap_or_default()) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(_) => return false,
        };
        let length = kept.saturating_add(count);
        if contains(buffer.get(..length).unwrap_or_default(), marker) {
            return true;
        }
        // The marker may be cut by the end of the buffer.
        let from = length.saturating_sub(marker.len());
        kept = length.saturating_sub(from);
        buffer.copy_within(from..length, 0);
    }
}

/// Whoever a member has started is one too.
fn mark_descendants(rows: &mut [Row]) {
    for _ in 0..64 {
        let mut is_changed = false;
        for at in 0..rows.len() {
            let Some(row) = rows.get(at).filter(|row| !row.is_member) else { continue };
            let parent = row.parent;
            let is_child = rows.iter().any(|other| other.is_member && other.pid == parent);
            if is_child && let Some(row) = rows.get_mut(at) {
                row.is_member = true;
                is_changed = true;
            }
        }
        if !is_changed {
            return;
        }
    }
}

/// Calls with each path below `/dev/shm` that the process has mapped and that has not been
/// unlinked, without `/dev/shm/`.
pub(super) fn every_segment(pid: u32, buffer: &mut [u8], mut visit: impl FnMut(&[u8])) {
    let Ok(file) = ProcPath::new(pid, b"maps").open() else { return };
    let mut kept = 0_usize;
    loop {
        let count = match read(&file, buffer.get_mut(kept..).unwrap_or_default()) {
            Ok(0) => return,
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(_) => return,
        };
        let length = kept.saturating_add(count);
        let text = buffer.get(..length).unwrap_or_default();
        let whole =
            text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
        for line in text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n') {
            if let Some(name) = segment_of(line) {
                visit(name);
            }
        }
        kept = length.saturating_sub(whole);
        buffer.copy_within(whole..length, 0);
    }
}

/// The sixth field of a line of maps begins with the first slash, since none before holds one.
fn segment_of(line: &[u8]) -> Option<&[u8]> {
    let at = line.iter().position(|byte| *byte == b'/')?;
    let name = line.get(at..)?.strip_prefix(b"/dev/shm/")?;
    // The kernel writes odd characters as octal numbers: such a name is none of vLLM's.
    let is_plain = !name.is_empty() && !name.contains(&b'\\') && !name.ends_with(b" (deleted)");
    is_plain.then_some(name)
}
