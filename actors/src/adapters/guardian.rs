//! A process that outlives its supervisor only to end what the supervisor would have ended.
//!
//! One guardian per launch, begun before vLLM is, waits for the death of the supervisor, however it
//! dies, and then kills everything of the launch, unlinks the shared memory that it had mapped and
//! removes its private directories.
//!
//! Why a process, and not what is commonly used:
//!
//! - `PR_SET_PDEATHSIG` is sent when the *thread* that forked ends (prctl(2)), and a runtime ends
//!   its threads when they idle. It reaches vLLM's front alone, whose engine lives on.
//! - The end of a pipe is seen by who reads it. vLLM would have to, and every descriptor that some
//!   other fork has inherited keeps the pipe open. A pidfd has no second holder.
//! - A second program would have to be installed; whoever embeds the library has none.
//!
//! So it is a copy of the supervisor that never execs. Other threads of the supervisor may hold any
//! lock at the moment of the copy, so the copy allocates nothing, takes no lock, and cannot panic:
//! it makes bare system calls on memory that was set aside for it before. It keeps one descriptor,
//! the pidfd of the supervisor; no lock file, log or socket of the supervisor stays open in it. Its
//! memory is the supervisor's, shared until either writes to it.
//!
//! It has the supervisor's environment and a session of its own, so it is no member of a launch. It
//! is called `llm-guardian`, to the kernel and in its command line, since whoever kills the
//! supervisor with `pkill -9 vllmd` or `pkill -9 -f vllm` should not hit it too.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal, waitid,
};

use super::marks::MARKER;
use super::ownership::{FileId, Older};
use super::proc_fs;

mod clearing;
mod files;
mod looking;
mod shared_memory;

/// How many processes can be named to a guardian: more than vLLM has on a machine of 64 GPUs.
const NOTED: usize = 255;

/// Rows of the process table that are examined for who descends from whom. Processes beyond are
/// still known by marker and session.
const ROWS: usize = 16 * 1024;

/// How much shared memory is found at most, in files: a launch has some ten for each GPU.
const SEGMENTS: usize = 4096;

/// What is to be ended with the supervisor.
#[derive(Clone, Debug)]
pub(super) struct Guarded {
    /// The value of the marker in the environment of the launch.
    pub(super) marker: String,
    /// The cgroup of the launch, if it has one of its own; removed at the end.
    pub(super) cgroup: Option<PathBuf>,
    /// Directories of the launch alone; removed at the end.
    pub(super) directories: Vec<PathBuf>,
    /// What was among shared memory before the launch; stays.
    pub(super) older: Older,
}

/// Why nobody could be made to guard a launch.
#[derive(Debug, thiserror::Error)]
pub(super) enum GuardianError {
    /// A path holds a NUL byte.
    #[error("{} is no path for the system", .0.display())]
    Path(PathBuf),
    /// The system refused.
    #[error("no guardian can be started ({step})")]
    System {
        /// What was being done.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A guardian on duty. Dropped, it is dismissed: nothing is killed.
#[derive(Debug)]
pub(super) struct Guardian {
    guarded: Guarded,
    pidfd: OwnedFd,
    notes: Notes,
}

impl Guardian {
    /// Has everything that will carry the marker guarded from here on.
    pub(super) fn watch(guarded: &Guarded) -> Result<Self, GuardianError> {
        let us = pidfd_open(getpid(), PidfdFlags::empty()).map_err(refused("a pidfd of ours"))?;
        Self::watch_for(us, guarded)
    }

    fn watch_for(supervisor: OwnedFd, guarded: &Guarded) -> Result<Self, GuardianError> {
        let notes = Notes::new().map_err(refused("shared memory"))?;
        let mut orders = Orders::new(guarded, supervisor, &notes)?;
        let pid = copy_of_us(&mut orders)
            .map_err(|source| GuardianError::System { step: "fork", source })?;
        // Until it is waited for, its number cannot be another's.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| {
            end_unheld(pid);
            refused("its pidfd")(error)
        })?;
        Ok(Self { guarded: guarded.clone(), pidfd, notes })
    }

    /// Another one, if this one has been killed: the launch would be left without.
    pub(super) fn successor(&self) -> Result<Option<Self>, GuardianError> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut pidfd = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let has_ended = poll(&mut pidfd, Some(&now)).is_ok_and(|ready| ready > 0);
        if has_ended { Self::watch(&self.guarded).map(Some) } else { Ok(None) }
    }

    /// Names processes of the launch, by pid and start time, the main process first: it also heads
    /// the session. Replaces what was named before; who is beyond the last slot is not named.
    pub(super) fn note(&self, processes: &[(u32, u64)]) {
        let pairs = processes.iter().map(|(pid, start_time)| (u64::from(*pid), *start_time));
        write(&self.notes.page().processes, pairs);
    }

    /// Names shared memory that is of the launch: whoever had it may be dead before the guardian
    /// looks. Replaces what was named before; what is beyond the last slot is not named.
    pub(super) fn note_segments(&self, segments: &[FileId]) {
        let pairs = segments.iter().map(|file| (file.inode, device_number(file.device)));
        write(&self.notes.page().segments, pairs);
    }

    /// The number of the guardian's process.
    #[cfg(test)]
    pub(super) fn pid(&self) -> u32 {
        use std::os::fd::AsRawFd;
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd()));
        let info = info.unwrap();
        info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().parse().unwrap()
    }
}

fn refused(step: &'static str) -> impl Fn(rustix::io::Errno) -> GuardianError {
    move |error| GuardianError::System { step, source: error.into() }
}

/// A child without an exit signal is waited for only by who asks for it (waitpid(2), `__WALL`).
fn ended_child() -> WaitIdOptions {
    WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned())
}

/// Ends a copy that no descriptor could be had for.
fn end_unheld(pid: Pid) {
    let killed = rustix::process::kill_process(pid, Signal::KILL);
    if let Err(error) = killed.and_then(|()| waitid(WaitId::Pid(pid), ended_child())) {
        tracing::debug!(%error, "a guardian that could not be held was not waited for");
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // SIGKILL ends it within microseconds; the wait is bounded all the same.
        pidfd_send_signal(&self.pidfd, Signal::KILL).ok();
        let limit = Timespec { tv_sec: 1, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&limit)).ok();
        let options = ended_child() | WaitIdOptions::NOHANG;
        if let Err(error) = waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            tracing::debug!(%error, "a dismissed guardian was not waited for");
        }
    }
}

/// Memory that supervisor and guardian share.
#[derive(Debug)]
struct Notes(*mut Page);

/// What is named. The first number of each pair is not zero, unless there is none.
#[derive(Debug)]
struct Page {
    /// Pid and start time.
    processes: [Pair; NOTED],
    /// Inode and device.
    segments: [Pair; SEGMENTS],
}

type Pair = [AtomicU64; 2];

// SAFETY: it holds atomics alone, and lives until this is dropped.
#[expect(unsafe_code, reason = "a pointer to shared memory")]
unsafe impl Send for Notes {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a pointer to shared memory")]
unsafe impl Sync for Notes {}

impl Notes {
    #[expect(unsafe_code, reason = "memory that a forked process shares")]
    fn new() -> Result<Self, rustix::io::Errno> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        let bytes = size_of::<Page>();
        // SAFETY: the kernel chooses a free place. Zeros are valid atomics.
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, flags) }?;
        Ok(Self(page.cast()))
    }

    #[expect(unsafe_code, reason = "memory that a forked process shares")]
    fn page(&self) -> &Page {
        // SAFETY: mapped for as long as this lives, and accessed as atomics alone.
        unsafe { &*self.0 }
    }
}

/// Each slot is invalid while it is changed: a torn one names nothing.
fn write(slots: &[Pair], pairs: impl Iterator<Item = (u64, u64)>) {
    let given = pairs.map(Some).chain(std::iter::repeat(None));
    for ([first, second], pair) in slots.iter().zip(given) {
        // A page that was never written to takes no memory.
        if first.load(Ordering::SeqCst) != 0 {
            first.store(0, Ordering::SeqCst);
        }
        if let Some((name, value)) = pair {
            second.store(value, Ordering::SeqCst);
            first.store(name, Ordering::SeqCst);
        }
    }
}

/// What stands in the slots.
fn written(slots: &[Pair]) -> impl Iterator<Item = (u64, u64)> + Clone {
    slots
        .iter()
        .map(|[first, second]| (first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)))
}

fn device_number((major, minor): (u32, u32)) -> u64 {
    (u64::from(major) << 32) | u64::from(minor)
}

fn device_of(number: u64) -> (u32, u32) {
    // Each has half of the bits.
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
    (half(number >> 32), half(number))
}

impl Drop for Notes {
    #[expect(unsafe_code, reason = "memory that a forked process shares")]
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and borrowed by nobody any more.
        unsafe { munmap(self.0.cast(), size_of::<Page>()) }.ok();
    }
}

/// All that the copy works with, made before it exists.
#[derive(Debug)]
struct Orders {
    supervisor: OwnedFd,
    /// `\0VLLMD_INSTANCE=<value>\0`, as it stands in an environment.
    marker: Vec<u8>,
    cgroup: Option<CString>,
    directories: Vec<CString>,
    notes: *const Page,
    rows: Vec<looking::Row>,
    /// For reading files of `/proc`.
    buffer: Vec<u8>,
    /// Room for the shared memory that is found.
    segments: Vec<FileId>,
    older: Older,
    /// Whether all processes of the machine can be seen from here.
    shows_everybody: bool,
}

impl Orders {
    fn new(guarded: &Guarded, supervisor: OwnedFd, notes: &Notes) -> Result<Self, GuardianError> {
        let c_string = |path: &Path| {
            CString::new(path.as_os_str().as_bytes())
                .map_err(|_| GuardianError::Path(path.to_owned()))
        };
        Ok(Self {
            supervisor,
            marker: format!("\0{MARKER}={}\0", guarded.marker).into_bytes(),
            cgroup: guarded.cgroup.as_deref().map(c_string).transpose()?,
            directories: guarded
                .directories
                .iter()
                .map(|path| c_string(path))
                .collect::<Result<_, _>>()?,
            notes: notes.0,
            rows: vec![looking::Row::default(); ROWS],
            buffer: vec![0; 64 * 1024],
            segments: vec![FileId::default(); SEGMENTS],
            older: guarded.older.clone(),
            shows_everybody: proc_fs::shows_everybody(),
        })
    }

    #[expect(unsafe_code, reason = "memory that a forked process shares")]
    fn notes(&self) -> &Page {
        // SAFETY: the copy has the page mapped for as long as it lives, whatever the supervisor
        // does with its own mapping.
        unsafe { &*self.notes }
    }
}

/// Forks. The child stands guard, and never returns.
///
/// It has no exit signal: nobody is told of its end, and a host that waits for any child does not
/// meet it (clone(2)). The bare call runs none of the handlers that libraries have registered for
/// `fork`, and with no flags its arguments are all zero, in whatever order a machine takes them.
#[expect(unsafe_code, reason = "a process that never execs can only be made by hand")]
fn copy_of_us(orders: &mut Orders) -> io::Result<Pid> {
    // SAFETY: a fork. The child does what a signal handler might, and nothing else.
    let pid = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
    match pid {
        0 => clearing::stand_guard(orders),
        -1 => Err(io::Error::last_os_error()),
        pid => i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData)),
    }
}

#[cfg(test)]
mod tests;
