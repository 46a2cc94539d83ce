//! What a command does with SIGHUP from its first moment. An ignored signal stays ignored across
//! exec (execve(2)), so what is started by tests that run under `nohup` would ignore it too.

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
