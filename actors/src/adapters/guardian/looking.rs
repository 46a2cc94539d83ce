//! Who is of the launch, read from `/proc` without allocating.
//!
//! Everything here runs in a copy of a process with threads: no allocation, no lock, no panic.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::io::{Errno, read};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::super::ownership::Session;
use super::{Orders, written};

/// A process, as far as it matters here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    pub(super) pid: u32,
    parent: u32,
    session: u32,
    pub(super) start_time: u64,
    pub(super) is_member: bool,
    /// It only waits to be reaped.
    has_ended: bool,
}

/// `/proc/<pid>/<file>`, on the stack.
pub(super) struct ProcPath([u8; 48]);

impl ProcPath {
    pub(super) fn new(pid: u32, file: &[u8]) -> Self {
        let mut path = [0; 48];
        let digits = digits(pid);
        let parts: [&[u8]; 4] = [b"/proc/", trimmed(&digits), b"/", file];
        // The last byte stays NUL, whatever comes.
        for (to, from) in path.iter_mut().take(47).zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        Self(path)
    }

    pub(super) fn open(&self) -> Result<OwnedFd, Errno> {
        self.open_with(OFlags::RDONLY | OFlags::CLOEXEC)
    }

    pub(super) fn open_with(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = CStr::from_bytes_until_nul(&self.0).map_err(|_| Errno::INVAL)?;
        openat(CWD, path, flags, Mode::empty())
    }
}

pub(super) fn digits(mut number: u32) -> [u8; 10] {
    let mut digits = [b'0'; 10];
    for digit in digits.iter_mut().rev() {
        *digit = b'0'.wrapping_add((number % 10) as u8);
        number /= 10;
    }
    digits
}

pub(super) fn trimmed(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take(digits.len().saturating_sub(1)).take_while(|it| **it == b'0');
    digits.get(zeros.count()..).unwrap_or_default()
}

/// The start of a file of `/proc`, as much as the buffer holds; none if there is no such process.
fn start_of<'a>(pid: u32, file: &[u8], buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, Errno> {
    let file = match ProcPath::new(pid, file).open() {
        Err(error) if is_absence(error) => return Ok(None),
        opened => opened?,
    };
    let mut length = 0_usize;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match read(&file, rest) {
            Ok(0) => break,
            Ok(count) => length = length.saturating_add(count),
            Err(Errno::INTR) => {}
            Err(error) if is_absence(error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(buffer.get(..length))
}

/// Opening the file of one that is gone says the first, reading it the second. Whatever else is said
/// means that somebody may live there.
pub(super) fn is_absence(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::SRCH)
}

/// It belongs to somebody else.
pub(super) fn is_refusal(error: Errno) -> bool {
    matches!(error, Errno::ACCESS | Errno::PERM)
}

pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len().max(1)).any(|window| window == part)
}

pub(super) fn number(text: &[u8]) -> u64 {
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

/// Its row; none if it has ended.
fn row_of(pid: u32) -> Result<Option<Row>, Errno> {
    Ok(row_of_any(pid)?.filter(|row| !row.has_ended))
}

/// Its row, dead or alive. One whose first thread has ended alone shows the letter of a zombie, and
/// runs.
fn row_of_any(pid: u32) -> Result<Option<Row>, Errno> {
    let mut buffer = [0; 1024];
    let Some(mut stat) = start_of(pid, b"stat", &mut buffer)? else { return Ok(None) };
    let mut again = [0; 1024];
    // Of a task that is none any more (Linux, `fs/proc/array.c`, `do_task_stat`): it has been reaped, or
    // another thread has taken over its number.
    if stat_field(stat, 6) == Some(b"-1") {
        let Some(now) = start_of(pid, b"stat", &mut again)? else { return Ok(None) };
        stat = now;
    }
    let field = |field| stat_field(stat, field).ok_or(Errno::INVAL);
    let small = |at| u32::try_from(number(field(at)?)).map_err(|_| Errno::INVAL);
    let has_ended = matches!(field(3)?, b"Z" | b"X") && small(20)? <= 1;
    let (parent, session, start_time) = (small(4)?, small(6)?, number(field(22)?));
    Ok(Some(Row { pid, parent, session, start_time, is_member: false, has_ended }))
}

/// Holds the process of this row, and no other.
pub(super) fn hold(row: Row) -> Option<OwnedFd> {
    let pid = i32::try_from(row.pid).ok().and_then(Pid::from_raw)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Opened first, compared then: what the descriptor refers to cannot change any more.
    let again = row_of(row.pid).ok().flatten()?;
    (again.start_time == row.start_time).then_some(pidfd)
}

/// Whether its command line says that it is Python's resource tracker, which removes the shared
/// memory of those it outlives.
pub(super) fn is_resource_tracker(pid: u32) -> bool {
    let mut buffer = [0; 4096];
    let command_line = start_of(pid, b"cmdline", &mut buffer).ok().flatten();
    command_line.is_some_and(|line| contains(line, b"multiprocessing.resource_tracker"))
}

/// Calls for every process there is.
pub(super) fn each_process(visit: impl FnMut(u32)) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    each_number(openat(CWD, c"/proc", flags, Mode::empty())?, visit)
}

/// Calls for every entry whose name is a number.
pub(super) fn each_number(directory: OwnedFd, mut visit: impl FnMut(u32)) -> Result<(), Errno> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name.iter().all(u8::is_ascii_digit)
            && let Ok(number) = u32::try_from(number(name))
        {
            visit(number);
        }
    }
    Ok(())
}

/// What a look at everybody has found.
pub(super) struct Look {
    /// How many rows of the table are used.
    pub(super) used: usize,
    /// Whether all could be looked at.
    pub(super) is_whole: bool,
}

/// Fills the table; the members are marked.
pub(super) fn look(orders: &mut Orders) -> Look {
    let mut rows = std::mem::take(&mut orders.rows);
    let me = rustix::process::getpid().as_raw_pid().cast_unsigned();
    let session = session_of(orders);
    let (mut used, mut is_whole) = (0_usize, session.is_ok());
    let session = session.unwrap_or(Session::Nobodys);
    let looked = each_process(|pid| {
        let row = match row_of(pid) {
            Ok(row) => row.filter(|_| pid != me),
            // The files of others may be hidden from us (proc(5), `hidepid`).
            Err(error) => {
                is_whole &= is_refusal(error);
                None
            }
        };
        let Some(mut row) = row else { return };
        let is_member =
            if is_noted(orders, session, row) { Ok(true) } else { carries_marker(orders, pid) };
        is_whole &= is_member.is_ok();
        row.is_member = is_member.unwrap_or_default();
        if let Some(slot) = rows.get_mut(used) {
            *slot = row;
            used = used.saturating_add(1);
        }
    });
    let seen = rows.get_mut(..used).unwrap_or_default();
    mark_descendants(seen);
    mark_leaderless(orders, session, seen);
    orders.rows = rows;
    Look { used, is_whole: is_whole && looked.is_ok() }
}

/// Pid and start time of the main process; zeros if none was named.
fn main_of(orders: &Orders) -> (u64, u64) {
    written(&orders.notes().processes).next().unwrap_or_default()
}

/// As the supervisor tells it (`ownership/session.rs`), except that a doubt kills nobody.
fn session_of(orders: &Orders) -> Result<Session, Errno> {
    let (pid, start_time) = main_of(orders);
    let number = u32::try_from(pid).unwrap_or_default();
    if number == 0 {
        return Ok(Session::Nobodys);
    }
    match row_of_any(number) {
        Ok(None) => Ok(Session::Leaderless(number)),
        Ok(Some(leader)) if leader.start_time == start_time => Ok(Session::Led(number)),
        Ok(Some(_)) => Ok(Session::Nobodys),
        Err(error) if is_refusal(error) => Ok(Session::Nobodys),
        Err(error) => Err(error),
    }
}

/// Named by the supervisor, or in the session that the main process leads.
fn is_noted(orders: &Orders, session: Session, row: Row) -> bool {
    let mut noted = written(&orders.notes().processes);
    noted.any(|it| it == (u64::from(row.pid), row.start_time))
        || (session == Session::Led(row.session) && row.start_time >= main_of(orders).1)
}

/// Whoever is with a member in the session of a main process that has ended is one too.
fn mark_leaderless(orders: &Orders, session: Session, rows: &mut [Row]) {
    let began = main_of(orders).1;
    let is_inside =
        |row: &Row| session == Session::Leaderless(row.session) && row.start_time >= began;
    if rows.iter().any(|row| row.is_member && is_inside(row)) {
        rows.iter_mut().filter(|row| is_inside(row)).for_each(|row| row.is_member = true);
        mark_descendants(rows);
    }
}

/// Whether the marker stands in its environment, which may be of any length.
fn carries_marker(orders: &mut Orders, pid: u32) -> Result<bool, Errno> {
    let is_none = |error| is_absence(error) || is_refusal(error);
    let file = match ProcPath::new(pid, b"environ").open() {
        Err(error) if is_none(error) => return Ok(false),
        opened => opened?,
    };
    let (marker, buffer) = (&orders.marker, &mut orders.buffer);
    // A NUL before the first variable, as between all others.
    let mut kept = 1;
    if let Some(first) = buffer.first_mut() {
        *first = 0;
    }
    loop {
        let count = match read(&file, buffer.get_mut(kept..).unwrap_or_default()) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(error) if is_none(error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let length = kept.saturating_add(count);
        if contains(buffer.get(..length).unwrap_or_default(), marker) {
            return Ok(true);
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
