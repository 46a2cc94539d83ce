//! The few things that `/proc` tells of a process.
//!
//! Only "no such process" is an absence. Whatever else keeps us from looking (no descriptor free, a
//! permission, a fault of the disk) is an error: somebody may live there.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, RawDir, open};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::system_error::if_present;
use crate::domain::absence::{ScanError, ScanErrorKind};

/// Bytes of the list of processes that are read at a time: some twenty of them.
const BATCH: usize = 512;

/// More than most environments have.
const ENVIRONMENT_BYTES: usize = 32 * 1024;

/// How often the `stat` of a task that is none any more is read before that is a doubt.
const STAT_READINGS: u32 = 4;

/// `PF_KTHREAD` (Linux, `include/linux/sched.h`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What `/proc/<pid>/stat` tells (proc(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    /// The name, cut by the kernel to 15 bytes. A zombie still has it.
    pub(super) name: String,
    pub(super) state: char,
    pub(super) parent: u32,
    pub(super) session: u32,
    pub(super) is_kernel_thread: bool,
    pub(super) threads: u64,
    /// In clock ticks since boot. With the pid and the boot it names a process for good.
    pub(super) start_time: u64,
    /// User and system time.
    pub(super) cpu: Duration,
    /// What `wait` would tell of a zombie.
    pub(super) wait_status: i32,
}

impl Stat {
    /// `None` if there is no such process.
    pub(super) fn of(pid: u32) -> Result<Option<Self>, ScanError> {
        for _ in 0..STAT_READINGS {
            let Some(bytes) = read(pid, "stat")? else { return Ok(None) };
            let text = String::from_utf8_lossy(&bytes);
            if !is_of_what_was(&text) {
                let stat = Self::parse(pid, &text);
                let unknown = || ScanError::new(path(pid, "stat"), &"it has another form");
                return stat.map(Some).ok_or_else(unknown);
            }
        }
        Err(ScanError::new(path(pid, "stat"), &"it is of a process that was"))
    }

    fn parse(pid: u32, text: &str) -> Option<Self> {
        // The name may hold anything, blanks and parentheses too: fields count from the last ')'.
        let (before, after) = text.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let ticks = number(14)? + number(15)?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Some(Self {
            pid,
            name: before.split_once('(')?.1.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(4)?).ok()?,
            session: u32::try_from(number(6)?).ok()?,
            is_kernel_thread: number(9)? & KERNEL_THREAD != 0,
            threads: number(20)?,
            start_time: number(22)?,
            cpu: Duration::from_millis(ticks * 1000 / per_second),
            wait_status: number(52).and_then(|status| i32::try_from(status).ok()).unwrap_or(0),
        })
    }

    /// Whether it has ended and only waits to be reaped. One whose first thread has ended alone
    /// shows the same letter, and runs.
    pub(super) fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }

    /// Whether somebody has stopped it, other than to trace it.
    pub(super) fn is_stopped(&self) -> bool {
        self.state == 'T'
    }

    /// Whether a debugger holds it.
    pub(super) fn is_traced(&self) -> bool {
        self.state == 't'
    }

    /// Whether it does nothing any more: it was stopped, or has ended.
    pub(super) fn stands_still(&self) -> bool {
        matches!(self.state, 'T' | 't') || self.is_zombie()
    }
}

/// Whether this is the `stat` of a task that is none any more: it has neither a group nor a session (Linux,
/// `fs/proc/array.c`, `do_task_stat`, where `lock_task_sighand` fails). It has been reaped, and whoever reads
/// again finds nobody; or another thread has executed something and taken over its number, and is found then.
fn is_of_what_was(stat: &str) -> bool {
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after.split_ascii_whitespace().skip(2).take(2).eq(["-1", "-1"])
}

/// The numbers of all processes.
pub(super) fn pids() -> Result<Vec<u32>, ScanError> {
    let mut pids = Vec::new();
    each_pid(|pid| pids.push(pid))?;
    Ok(pids)
}

/// Visits the numbers of all processes upwards, a few at a time (Linux, `fs/proc/base.c`,
/// `proc_pid_readdir`). Whoever is born meanwhile may lie ahead or behind: numbers begin anew, and
/// those of before are higher.
pub(super) fn each_pid(mut visit: impl FnMut(u32)) -> Result<(), ScanError> {
    let failed = |error: Errno| ScanError::new("/proc", &io::Error::from(error));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open("/proc", flags, Mode::empty()).map_err(failed)?;
    let mut batch = [MaybeUninit::uninit(); BATCH];
    let mut entries = RawDir::new(directory, &mut batch);
    let mut is_view = false;
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(failed)?;
        if let Some(pid) = entry.file_name().to_str().ok().and_then(|it| it.parse().ok()) {
            is_view = true;
            visit(pid);
        }
    }
    // We are one, so without any it is no view of the processes.
    if is_view { Ok(()) } else { Err(ScanError::new("/proc", &"it shows no process")) }
}

/// Whether all processes of the machine can be seen here: we are in its first pid namespace, and
/// `/proc` hides nobody (proc(5), `hidepid`).
pub(super) fn shows_everybody() -> bool {
    is_in_first_pid_namespace().unwrap_or(false)
        && fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| !hides_some(&mounts))
}

/// Whether we are in the pid namespace that encloses all others.
///
/// # Errors
///
/// What the system said.
pub(super) fn is_in_first_pid_namespace() -> io::Result<bool> {
    // The kernel gives this number to it (include/linux/proc_ns.h, `PROC_PID_INIT_INO`).
    Ok(fs::read_link("/proc/self/ns/pid")?.as_os_str() == "pid:[4026531836]")
}

/// Whether a mount at `/proc` in this list (`/proc/self/mountinfo`) hides processes.
fn hides_some(mounts: &str) -> bool {
    mounts.lines().any(|mount| {
        let is_here = mount.split(' ').nth(4) == Some("/proc");
        is_here && mount.split([' ', ',']).any(|option| option.starts_with("hidepid="))
    })
}

/// The number that was given last. It is less than an earlier one where numbers have begun anew.
pub(super) fn latest_pid() -> Result<u32, ScanError> {
    const PATH: &str = "/proc/loadavg";
    let text = fs::read_to_string(PATH).map_err(|error| ScanError::new(PATH, &error))?;
    let last = text.split_ascii_whitespace().last().and_then(|last| last.parse().ok());
    last.ok_or_else(|| ScanError::new(PATH, &"it has another form"))
}

/// The start time that a process has which begins now, in clock ticks since boot (Linux,
/// `kernel/fork.c`, `start_boottime`).
pub(super) fn start_time_now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let part =
        |nanoseconds: i64| u64::try_from(nanoseconds).unwrap_or(0) * per_second / 1_000_000_000;
    u64::try_from(now.tv_sec).unwrap_or(0) * per_second + part(now.tv_nsec)
}

/// The environment that it was started with, `NAME=value` and a zero byte each; empty for a zombie
/// and amid an `exec`.
///
/// It is read by one call: one that is read in parts ends where its process has begun to execute
/// something else in between, and looks like that of a stranger (Linux, `fs/proc/base.c`,
/// `environ_read`, which holds the memory for a call).
pub(super) fn environment(pid: u32) -> Result<Option<Vec<u8>>, ScanError> {
    let path = path(pid, "environ");
    let mut environment = vec![0; ENVIRONMENT_BYTES];
    loop {
        let read = File::open(&path).and_then(|file| file.read_at(&mut environment, 0));
        let Some(length) = of_process(read, &path)? else { return Ok(None) };
        if length < environment.len() {
            environment.truncate(length);
            return Ok(Some(environment));
        }
        environment.resize(environment.len() * 4, 0);
    }
}

/// Whether a variable in this environment is as wanted.
pub(super) fn has_variable(environment: &[u8], is_wanted: impl Fn(&[u8]) -> bool) -> bool {
    environment.split(|byte| *byte == 0).any(is_wanted)
}

/// The command line, its words joined by blanks; empty for a zombie.
pub(super) fn command_line(pid: u32) -> Result<Option<String>, ScanError> {
    let bytes = read(pid, "cmdline")?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()))
}

/// Bytes that it made the disks read and write.
pub(super) fn io_bytes(pid: u32) -> Result<Option<u64>, ScanError> {
    let Some(bytes) = read(pid, "io")? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let value = |line: &str| line.split_once(": ").and_then(|(_, value)| value.parse::<u64>().ok());
    let counted = |line: &&str| line.starts_with("read_bytes") || line.starts_with("write_bytes");
    Ok(Some(text.lines().filter(counted).filter_map(value).sum()))
}

/// How long its first thread was ready to run and had no processor; nothing where the kernel does not count
/// that (`Documentation/scheduler/sched-stats.rst`).
pub(super) fn waited(pid: u32) -> Result<Duration, ScanError> {
    let Some(bytes) = read(pid, "schedstat")? else { return Ok(Duration::ZERO) };
    let text = String::from_utf8_lossy(&bytes);
    let nanoseconds = text.split_ascii_whitespace().nth(1).and_then(|it| it.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.unwrap_or(0)))
}

/// Bytes that can be had without anybody's having to give them up (`MemAvailable` of proc(5)).
pub(super) fn available_memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|it| it.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.map(|it| it * 1024).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What it has mapped, as `/proc/<pid>/maps` tells; empty for a zombie.
pub(super) fn maps(pid: u32) -> Result<Option<String>, ScanError> {
    Ok(read(pid, "maps")?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// A file that a process has open, by the name that it has now.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) path: String,
    pub(super) metadata: fs::Metadata,
}

/// What it has open at such a path, of what still has a name.
pub(super) fn open_files(
    pid: u32,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Option<Vec<OpenFile>>, ScanError> {
    let directory = path(pid, "fd");
    let Some(entries) = of_process(fs::read_dir(&directory), &directory)? else { return Ok(None) };
    let mut files = Vec::new();
    for entry in entries {
        let Some(entry) = of_process(entry, &directory)? else { continue };
        let link = entry.path();
        // It may be closed at any moment.
        let Some(target) = of_process(fs::read_link(&link), &directory)? else { continue };
        let Some(path) = target.to_str().filter(|path| is_wanted(path)) else { continue };
        if path.ends_with(" (deleted)") {
            continue;
        }
        let metadata = of_process(fs::metadata(&link), &directory)?;
        files.extend(metadata.map(|metadata| OpenFile { path: path.to_owned(), metadata }));
    }
    Ok(Some(files))
}

/// The user as whom it runs, whatever it hides: its files below `/proc` may belong to root.
pub(super) fn owner(pid: u32) -> Result<Option<u32>, ScanError> {
    use std::os::unix::fs::MetadataExt;
    let path = format!("/proc/{pid}");
    of_process(fs::metadata(&path).map(|metadata| metadata.uid()), &path)
}

/// Whether another user runs it, who has not got it from us. The directory itself tells, whatever its
/// process hides (Linux, `fs/proc/base.c`, `task_dump_owner`), and with `hidepid=1` as well.
pub(super) fn is_of_another_user(pid: u32) -> Result<bool, ScanError> {
    let us = rustix::process::geteuid().as_raw();
    Ok(owner(pid)?.is_none_or(|owner| owner != us))
}

/// Names this boot of the machine: a pid and start time from another one mean nothing.
pub(super) fn boot_id() -> Result<String, ScanError> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(PATH).map_err(|error| ScanError::new(PATH, &error))?;
    // An empty one would be that of every boot.
    let id = text.trim();
    if id.is_empty() { Err(ScanError::new(PATH, &"it is empty")) } else { Ok(id.to_owned()) }
}

/// A fresh random UUID.
pub(super) fn random_uuid() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

/// Whether an error says that we may not look, rather than that we cannot.
pub(super) fn is_refusal(error: &ScanError) -> bool {
    error.kind == ScanErrorKind::Refused
}

fn path(pid: u32, file: &str) -> String {
    format!("/proc/{pid}/{file}")
}

fn read(pid: u32, file: &str) -> Result<Option<Vec<u8>>, ScanError> {
    let path = path(pid, file);
    of_process(fs::read(&path), &path)
}

/// `None` where there is no such process.
fn of_process<T>(result: io::Result<T>, path: &str) -> Result<Option<T>, ScanError> {
    // Opening the file of one that is gone says the first, reading it the second.
    if_present(result, &[Errno::NOENT, Errno::SRCH]).map_err(|error| {
        match Errno::from_io_error(&error) {
            Some(Errno::ACCESS | Errno::PERM) => ScanError::refused(path, &error),
            _ => ScanError::new(path, &error),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b (c)) S 3 7 5 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 4242 0 0";
        let stat = Stat::parse(7, text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.session, stat.start_time), ('S', 3, 5, 4242));
        assert_eq!((stat.cpu, stat.name.as_str()), (Duration::from_secs(2), "a) b (c)"));
    }

    #[test]
    fn the_stat_of_a_task_that_is_none_any_more_is_known() {
        assert!(is_of_what_was("7 (a) b) X 0 -1 -1 0 -1 4227084 1 0 0 0 1 1 0 0 20 0 0 0 42"));
        assert!(!is_of_what_was("7 (a) b) Z 3 7 5 0 -1 4227084 1 0 0 0 1 1 0 0 20 0 1 0 42"));
        assert!(!is_of_what_was(""));
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_alone_is_no_zombie() {
        let text =
            |threads: u8| format!("7 (a) Z 3 7 5 0 -1 0 1 0 0 0 1 1 0 0 20 0 {threads} 0 42");
        assert!(Stat::parse(7, &text(1)).unwrap().is_zombie());
        assert!(!Stat::parse(7, &text(2)).unwrap().is_zombie());
    }

    #[test]
    fn a_proc_that_hides_processes_is_known_by_its_mount() {
        let plain = "22 27 0:21 / /proc rw,relatime - proc proc rw";
        let other = "29 27 0:22 / /mnt/proc rw - proc proc rw,hidepid=invisible";
        assert!(!hides_some(&format!("{plain}\n{other}")));
        assert!(hides_some(&format!("{other}\n{plain},hidepid=invisible")));
    }

    #[test]
    fn this_process_is_among_all_processes() {
        let me = std::process::id();
        assert!(pids().unwrap().contains(&me));
        assert!(!Stat::of(me).unwrap().unwrap().is_zombie());
        assert!(!command_line(me).unwrap().unwrap().is_empty());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "somebody has to begin")]
    fn who_begins_now_is_not_older_than_now() {
        let before = start_time_now();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let began = Stat::of(child.id()).unwrap().unwrap().start_time;
        let after = start_time_now();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!((before..=after).contains(&began), "{before} {began} {after}");
    }

    #[test]
    fn only_no_such_process_is_an_absence() {
        // Above every number that Linux gives (PID_MAX_LIMIT).
        assert_eq!(Stat::of(5_000_000), Ok(None));
        for number in [Errno::NOENT, Errno::SRCH] {
            assert_eq!(of_process::<()>(Err(number.into()), "/proc/7/stat"), Ok(None));
        }
        for number in [Errno::MFILE, Errno::NFILE, Errno::ACCESS, Errno::PERM, Errno::IO] {
            let error = of_process::<()>(Err(number.into()), "/proc/7/stat").unwrap_err();
            assert_eq!(error.looked_at, "/proc/7/stat");
        }
        assert!(of_process::<()>(Err(Errno::NOMEM.into()), "/proc/7/stat").is_err());
    }

    #[test]
    fn every_boot_has_a_name() {
        assert!(!boot_id().unwrap().is_empty());
    }
}
