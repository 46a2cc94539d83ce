//! Requests to end, as they come from a terminal or a service manager.
//!
//! They are counted from the beginning, so that one that comes early is not lost: the first ends,
//! the second kills, the third leaves at once, whatever else this process is doing.

use std::{fs, future, io};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::exit::Exit;

/// The request that leaves at once.
const LAST: usize = 3;

/// The requests to end that this process got.
#[derive(Debug)]
pub(super) struct Signals {
    received: watch::Receiver<Vec<Exit>>,
    _listener: JoinSet<()>,
}

impl Signals {
    /// Takes over SIGINT, SIGTERM and SIGHUP, until the end of the process.
    pub(super) fn listen() -> io::Result<Self> {
        let (sender, received) = watch::channel(Vec::new());
        let mut streams = Streams {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            // Under `nohup` a closing terminal is none of our business.
            hangup: if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) },
        };
        let mut listener = JoinSet::new();
        listener.spawn(async move {
            loop {
                let exit = streams.next().await;
                sender.send_modify(|received| received.push(exit));
                if sender.borrow().len() >= LAST {
                    leave(exit);
                }
            }
        });
        Ok(Self { received, _listener: listener })
    }

    /// Waits until `count` requests have come in all; returns how the first wants the process to
    /// end.
    pub(super) async fn came(&mut self, count: usize) -> Exit {
        match self.received.wait_for(|received| received.len() >= count).await {
            Ok(received) => received[0],
            // The listener ends with the runtime, and this with it.
            Err(_) => future::pending().await,
        }
    }
}

#[derive(Debug)]
struct Streams {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Streams {
    async fn next(&mut self) -> Exit {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
            _ = hangup => Exit::Terminated,
        }
    }
}

/// Whether we were started with SIGHUP ignored, as `nohup` does it (`SigIgn` of `proc(5)`).
fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let hangup = SignalKind::hangup().as_raw_value() - 1;
    mask.is_some_and(|mask| mask >> hangup & 1 == 1)
}

#[expect(clippy::exit, reason = "the operator has asked three times: nothing may hold this up")]
fn leave(exit: Exit) {
    std::process::exit(exit.code().into());
}
