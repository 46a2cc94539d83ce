//! Processes held by a descriptor, so that no other can be meant: a number alone may pass to a
//! stranger at any time.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::adapters::proc_fs::Stat;
use crate::domain::absence::ScanError;
use crate::domain::diagnosis::Exit;

/// A process, and a descriptor of it.
#[derive(Debug)]
pub(in crate::adapters) struct Held {
    pub(in crate::adapters) pid: u32,
    pub(in crate::adapters) start_time: u64,
    fd: OwnedFd,
    /// Who waits for it in our stead, when he is told to.
    parent: Option<Arc<dyn Parent>>,
}

/// A process that is not ours to wait for, but does as we say.
pub(in crate::adapters) trait Parent: fmt::Debug + Send + Sync {
    /// Waits for this child of his, whose number may be another's from then on.
    fn reap(&self, pid: u32);
}

impl Held {
    /// The process of this number that started then; `None` if there is none any more.
    pub(in crate::adapters) fn open(pid: u32, start_time: u64) -> Result<Option<Self>, ScanError> {
        let Some(fd) = open(pid)? else { return Ok(None) };
        // Opened first and compared then: what the descriptor refers to cannot change any more.
        let same = Stat::of(pid)?.is_some_and(|stat| stat.start_time == start_time);
        Ok(same.then_some(Self { pid, start_time, fd, parent: None }))
    }

    /// The child of another, who waits for it only when we say so: its number is its own until then.
    pub(in crate::adapters) fn child_of(
        parent: Arc<dyn Parent>,
        pid: u32,
    ) -> Result<Self, ScanError> {
        Ok(Self { parent: Some(parent), ..Self::child(pid)? })
    }

    /// A child of ours, which nobody has waited for: its number is its own.
    pub(in crate::adapters) fn child(pid: u32) -> Result<Self, ScanError> {
        let gone = || ScanError::new(format!("child {pid}"), &"somebody else has waited for it");
        let fd = open(pid)?.ok_or_else(gone)?;
        let start_time = Stat::of(pid)?.ok_or_else(gone)?.start_time;
        Ok(Self { pid, start_time, fd, parent: None })
    }

    pub(in crate::adapters) fn descriptor(&self) -> PollFd<'_> {
        PollFd::new(&self.fd, PollFlags::IN)
    }

    /// Whether it has ended, reaped or not. A question that fails does not end anybody.
    pub(in crate::adapters) fn has_ended(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [self.descriptor()], Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// A process that is gone needs no signal; one that we may not signal stays, and is seen.
    pub(in crate::adapters) fn send(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.fd, signal)
            && error != Errno::SRCH
        {
            tracing::warn!(pid = self.pid, %error, ?signal, "a signal could not be sent");
        }
    }

    /// Whether it is our child, has ended, and is not reaped: its number is its own until we do.
    pub(super) fn awaits_us(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::PidFd(self.fd.as_fd()), options), Ok(Some(_)))
    }

    /// How it ended, by whoever can tell. It is not reaped: that would free its number.
    pub(in crate::adapters) fn exit(&self) -> Exit {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::PidFd(self.fd.as_fd()), options) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            },
            // Not our child. Its parent may reap it between the two questions, hence the third.
            Ok(None) | Err(_) => self
                .exit_of_reaped()
                .or_else(|| self.exit_of_zombie())
                .or_else(|| self.exit_of_reaped())
                .unwrap_or(Exit::Unknown),
        }
    }

    fn exit_of_zombie(&self) -> Option<Exit> {
        let stat = Stat::of(self.pid).ok()??;
        let is_it = stat.start_time == self.start_time && stat.is_zombie();
        is_it.then(|| exit_of(stat.wait_status))
    }

    /// The kernel keeps the status of one that was reaped for whoever holds a descriptor of it
    /// (Linux 6.15, `include/uapi/linux/pidfd.h`, `PIDFD_GET_INFO`).
    #[expect(unsafe_code, reason = "rustix has no name for this request")]
    fn exit_of_reaped(&self) -> Option<Exit> {
        let mut info = Info { mask: INFO_EXIT, ..Info::default() };
        // SAFETY: the request takes a structure of the size that is part of its number, and the
        // structure is larger than none that the kernel writes for that number.
        let done = unsafe { ioctl(&self.fd, Updater::<GET_INFO, Info>::new(&mut info)) };
        (done.is_ok() && info.mask & INFO_EXIT != 0).then(|| exit_of(info.exit_code))
    }

    /// Waits for it if it has ended and is our child, or is waited for in our stead.
    pub(in crate::adapters) fn reap(&self) {
        if let Some(parent) = self.parent.as_ref().filter(|_| self.has_ended()) {
            parent.reap(self.pid);
        }
        // Not our child, or reaped already: nothing to do.
        waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok();
    }
}

/// `PIDFD_INFO_EXIT`.
const INFO_EXIT: u64 = 1 << 3;

const GET_INFO: rustix::ioctl::Opcode = opcode::read_write::<Info>(0xFF, 11);

/// `struct pidfd_info` as Linux 6.13 had it; later ones are longer, and the kernel fills what fits.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// pid, tgid, ppid, and four pairs of user and group.
    ids: [u32; 11],
    exit_code: i32,
}

/// A status as `wait` encodes it (wait(2)).
fn exit_of(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code((status >> 8) & 0xff),
        signal => Exit::Signal(signal),
    }
}

/// Whether processes can be held and signalled here at all: some sandboxes refuse the system calls.
///
/// # Errors
///
/// The name of the call that fails, and what the system says.
pub(in crate::adapters) fn probe() -> Result<(), (&'static str, Errno)> {
    let us = pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    let us = us.map_err(|error| ("pidfd_open(2)", error))?;
    signal_nothing(&us).map_err(|error| ("pidfd_send_signal(2)", error))?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::PidFd(us.as_fd()), options) {
        // We are no child of ours.
        Ok(_) | Err(Errno::CHILD) => Ok(()),
        Err(error) => Err(("waitid(2) for a pidfd", error)),
    }
}

/// Asks whether a signal could be sent (kill(2), signal 0).
#[expect(unsafe_code, reason = "rustix has no name for the signal 0")]
fn signal_nothing(to: &OwnedFd) -> Result<(), Errno> {
    let no_info = std::ptr::null::<u8>();
    // SAFETY: the descriptor is open, and the call reads and writes no memory of ours.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, to.as_raw_fd(), 0, no_info, 0) };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

fn open(number: u32) -> Result<Option<OwnedFd>, ScanError> {
    let Some(pid) = i32::try_from(number).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(ScanError::new(format!("pidfd_open({number})"), &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_wait_encodes_it() {
        assert_eq!(exit_of(0), Exit::Code(0));
        assert_eq!(exit_of(3 << 8), Exit::Code(3));
        assert_eq!(exit_of(9), Exit::Signal(9));
        // With a core dump.
        assert_eq!(exit_of(0x8b), Exit::Signal(11));
    }

    #[test]
    fn the_request_has_the_number_that_the_kernel_knows() {
        // _IOWR(PIDFS_IOCTL_MAGIC, 11, 64 bytes), with the directions as most machines number them.
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
        assert_eq!(GET_INFO, 0xC040_FF0B);
        assert_eq!(std::mem::size_of::<Info>(), 64);
        assert_eq!(std::mem::offset_of!(Info, exit_code), 60);
    }

    #[test]
    fn what_could_be_signalled_is_told_without_a_signal() {
        assert_eq!(probe(), Ok(()));
        let no_process = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(signal_nothing(&no_process.into()), Err(Errno::BADF));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = std::process::id();
        let start_time = Stat::of(me).unwrap().unwrap().start_time;
        assert!(Held::open(me, start_time).unwrap().is_some());
        assert!(Held::open(me, start_time + 1).unwrap().is_none());
    }
}
