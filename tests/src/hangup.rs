//! What a command does with signals from its first moment. One that is ignored or blocked stays so
//! across exec (execve(2)), so what is started by tests that run under `nohup` would ignore SIGHUP.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::Signal;

/// SIGHUP ends what the command starts, unless it has a handler of its own.
pub fn heed_hangup(command: &mut Command) {
    start_with(command, libc::SIG_DFL);
}

/// What the command starts ignores SIGHUP, as under `nohup`.
pub fn ignore_hangup(command: &mut Command) {
    start_with(command, libc::SIG_IGN);
}

#[expect(unsafe_code, reason = "an inherited disposition is set between fork and exec")]
fn start_with(command: &mut Command, disposition: libc::sighandler_t) {
    let set = move || {
        // SAFETY: neither the default nor ignoring runs code in this process.
        match unsafe { libc::signal(Signal::HUP.as_raw(), disposition) } {
            libc::SIG_ERR => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: signal(2) is safe in a forked child (signal-safety(7)), and nothing is allocated.
    unsafe { command.pre_exec(set) };
}

/// What the command starts has SIGTERM blocked and SIGCHLD ignored, as some parents leave it to
/// their children.
#[expect(unsafe_code, reason = "what is inherited is set between fork and exec")]
pub fn block_terminate_and_ignore_child(command: &mut Command) {
    let set = || {
        // SAFETY: the set is filled in before it is used, and all three calls are safe in a forked
        // child (signal-safety(7)).
        let result = unsafe {
            let mut blocked: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut blocked);
            libc::sigaddset(&raw mut blocked, libc::SIGTERM);
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const blocked, std::ptr::null_mut())
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: as above, and nothing is allocated.
    unsafe { command.pre_exec(set) };
}
