//! Signals the way Python has them.

use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use tokio::signal::unix::{self, SignalKind};

use super::program::freeze;

/// SIGTERM and SIGINT, which do nothing by themselves once this exists.
#[derive(Debug)]
pub(super) struct StopSignals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl StopSignals {
    pub(super) fn listen() -> Self {
        let listen = |kind| unix::signal(kind).expect("a stop signal can be handled");
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Self { terminate: listen(terminate), interrupt: listen(interrupt) }
    }

    /// The next of the two. Several of a kind may arrive as one, as signals do.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
        }
    }
}

/// Takes back what Rust's runtime does that Python's does not: it catches SIGSEGV and SIGBUS to
/// tell a stack overflow, and thereby survives the first one that is sent. No core files, either:
/// they would lie around after a test.
pub(super) fn behave_like_python() {
    restore_default(Signal::SEGV);
    restore_default(Signal::BUS);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).ok();
}

/// Ends this process by the signal.
pub(super) fn die_by(signal: Signal) -> ! {
    restore_default(signal);
    kill_process(getpid(), signal).ok();
    freeze()
}

fn restore_default(signal: Signal) {
    #[expect(unsafe_code, reason = "there is no safe way to change a disposition")]
    // SAFETY: the default disposition runs no code in this process.
    unsafe {
        libc::signal(signal.as_raw(), libc::SIG_DFL);
    }
}
