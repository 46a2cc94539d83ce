//! What this process inherits of signals, put right: a signal that its parent blocks or ignores stays
//! so across exec (execve(2)), and would make `vllmd` deaf, or cost it the exit status of vLLM.

use std::mem;
use std::ptr;

/// Stay as they are: `nohup` ignores SIGHUP on purpose, and Rust's runtime ignores SIGPIPE.
const KEPT: [libc::c_int; 2] = [libc::SIGHUP, libc::SIGPIPE];

/// Unblocks every signal, and heeds every one that is ignored.
#[expect(unsafe_code, reason = "there is no safe way to change a mask or a disposition")]
pub(super) fn reset_signals() {
    // SAFETY: the set and the action are plain data, which the calls fill in or read. No signal gets
    // a handler: the default runs no code in this process.
    unsafe {
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        for signal in (1..=libc::SIGRTMAX()).filter(|signal| !KEPT.contains(signal)) {
            let mut action: libc::sigaction = mem::zeroed();
            let known = libc::sigaction(signal, ptr::null(), &raw mut action) == 0;
            if known && action.sa_sigaction == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}
