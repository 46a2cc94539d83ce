//! The guardian's life: it waits for the death of its supervisor, ends the launch, and ends.
//!
//! Everything here runs in a copy of a process with threads: no allocation, no lock, no panic.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, fchmod, openat, unlinkat};
use rustix::io::{Errno, write};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::time::{ClockId, clock_gettime};

use super::Orders;
use super::looking::{Look, Row, hold, is_resource_tracker, look, stat_field};
use super::shared_memory::SharedMemory;
use crate::adapters::pause::pause;

/// What `ps` and `pkill` are told.
const NAME: &CStr = c"llm-guardian";

/// Looks at which the members are stopped rather than killed: who is stopped starts nobody behind
/// our back, and whoever was started before still shows whose child it is.
const LOOKS_THAT_STOP: u32 = 2;

/// How long Python's resource tracker may take to remove the shared memory of those it outlives.
const TRACKER_GRACE_MS: u64 = 1000;

/// When to give up: what lives so long after SIGKILL is held by the kernel.
const LIMIT_MS: u64 = 30_000;

/// How long nobody must have been found: between fork and exec vLLM's first process is not to be
/// told from any other copy of the supervisor, and amid an `exec` it shows no environment.
const QUIET_MS: u64 = 500;

/// How deep a directory is emptied.
const DEPTH: u32 = 32;

/// Stands guard until the supervisor is dead, clears, and exits. Unwinding out of here would go on
/// as a second supervisor; `extern "C"` makes it an abort.
pub(super) extern "C" fn stand_guard(orders: &mut Orders) -> ! {
    part_from_the_supervisor(orders.supervisor.as_raw_fd());
    while !is_readable(&orders.supervisor) {}
    end_the_launch(orders);
    exit()
}

#[expect(unsafe_code, reason = "the exit of a process that must run no destructor of its parent")]
fn exit() -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(0) }
}

fn part_from_the_supervisor(kept: RawFd) {
    ignore_all_signals();
    // Neither a terminal nor a signal to the supervisor's group reaches who has its own session.
    rustix::process::setsid().ok();
    close_all_but(kept);
    // Keeps no file system from being unmounted.
    rustix::process::chdir(c"/").ok();
    rustix::thread::set_name(NAME).ok();
    rename_command_line();
}

#[expect(unsafe_code, reason = "rustix has no signal masks")]
fn ignore_all_signals() {
    // SAFETY: both are async-signal-safe, and the set is initialised by the first.
    unsafe {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
    }
}

#[expect(unsafe_code, reason = "descriptors that others opened")]
fn close_all_but(kept: RawFd) {
    let kept = kept.cast_unsigned();
    let close = |first: u32, last: u32| {
        // SAFETY: nothing in this copy uses a descriptor but the one kept.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        result == 0
    };
    let below = kept == 0 || close(0, kept.saturating_sub(1));
    if below && close(kept.saturating_add(1), u32::MAX) {
        return;
    }
    // Linux before 5.9.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = openat(CWD, c"/proc/self/fd", flags, Mode::empty()) else { return };
    let own = directory.as_raw_fd().cast_unsigned();
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_bytes();
        let number = name.iter().filter(|byte| byte.is_ascii_digit()).fold(0_u32, |sum, digit| {
            sum.wrapping_mul(10).wrapping_add(u32::from(digit.wrapping_sub(b'0')))
        });
        if name != b"." && name != b".." && number != kept && number != own {
            // SAFETY: as above.
            unsafe { libc::close(number.cast_signed()) };
        }
    }
}

/// Writes the name over our command line, which still says what the supervisor's does.
#[expect(unsafe_code, reason = "the kernel shows the memory where the arguments stood")]
fn rename_command_line() {
    let mut buffer = [0; 1024];
    let Ok(file) = openat(CWD, c"/proc/self/stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    else {
        return;
    };
    let Ok(length) = rustix::io::read(&file, &mut buffer) else { return };
    let stat = buffer.get(..length).unwrap_or_default();
    let address = |field| {
        let text = std::str::from_utf8(stat_field(stat, field)?).ok()?;
        text.parse::<usize>().ok().filter(|address| *address != 0)
    };
    // `arg_start` and `arg_end` (proc(5)).
    let (Some(start), Some(end)) = (address(48), address(49)) else { return };
    let name = NAME.to_bytes();
    for offset in 0..end.saturating_sub(start) {
        let byte = name.get(offset).copied().unwrap_or_default();
        let place = std::ptr::with_exposed_provenance_mut::<u8>(start.wrapping_add(offset));
        // SAFETY: the kernel says that the arguments stand here, on the stack that this copy has for
        // itself; nobody in it reads them.
        unsafe { place.write_volatile(byte) };
    }
}

fn is_readable(pidfd: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None).is_ok_and(|ready| ready > 0)
}

fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let milliseconds = now.tv_sec.wrapping_mul(1000).wrapping_add(now.tv_nsec / 1_000_000);
    milliseconds.cast_unsigned()
}

fn end_the_launch(orders: &mut Orders) {
    let began = now_ms();
    let mut segments = SharedMemory::noted(orders);
    let (mut looks, mut last_found) = (0_u32, began);
    while now_ms().saturating_sub(last_found) < QUIET_MS {
        let elapsed = now_ms().saturating_sub(began);
        if elapsed > LIMIT_MS {
            break;
        }
        let Look { used, is_whole } = look(orders);
        let signal = if looks < LOOKS_THAT_STOP { Signal::STOP } else { Signal::KILL };
        let mut found = false;
        for at in 0..used {
            let Some(row) = orders.rows.get(at).copied().filter(|row| row.is_member) else {
                continue;
            };
            found = true;
            segments.remember(orders, row.pid);
            if elapsed >= TRACKER_GRACE_MS || !is_resource_tracker(row.pid) {
                signal_row(row, signal);
            }
        }
        // It has no tracker to spare, and reaches whom no look finds.
        if (!found && looks >= LOOKS_THAT_STOP) || elapsed >= TRACKER_GRACE_MS {
            kill_cgroup(orders);
        }
        // Whoever could not be looked at may live.
        if found || !is_whole {
            last_found = now_ms();
        }
        looks = looks.saturating_add(1);
        if looks > LOOKS_THAT_STOP {
            pause(Duration::from_millis(10));
        }
    }
    segments.unlink(orders);
    for directory in &orders.directories {
        remove_tree(CWD, directory, DEPTH);
    }
    if let Some(cgroup) = &orders.cgroup {
        unlinkat(CWD, cgroup.as_c_str(), AtFlags::REMOVEDIR).ok();
    }
}

fn signal_row(row: Row, signal: Signal) {
    if let Some(pidfd) = hold(row) {
        pidfd_send_signal(pidfd, signal).ok();
    }
}

/// Writes `cgroup.kill` (cgroup v2, Linux 5.14).
fn kill_cgroup(orders: &Orders) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        orders.cgroup.as_ref().map(|path| openat(CWD, path.as_c_str(), flags, Mode::empty()));
    let Some(Ok(directory)) = directory else { return };
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = openat(&directory, c"cgroup.kill", flags, Mode::empty()) {
        write(file, b"1").ok();
    }
}

/// Removes a directory with what is in it; whatever cannot be removed stays. Links are not followed.
fn remove_tree(parent: impl AsFd, name: &CStr, depth: u32) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(directory) = openat(&parent, name, flags, Mode::empty())
        && depth > 0
    {
        // Caches of modules and trees of builds may be read only.
        fchmod(&directory, Mode::RWXU).ok();
        let mut buffer = [MaybeUninit::uninit(); 2048];
        let mut entries = RawDir::new(&directory, &mut buffer);
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let removed = unlinkat(&directory, name, AtFlags::empty());
            if matches!(removed, Err(Errno::ISDIR | Errno::PERM)) {
                remove_tree(directory.as_fd(), name, depth.saturating_sub(1));
            }
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR).ok();
}
