//! The guard of a launch: it has an owner, or an end.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::domain::absence::{Doubt, Proof};
use crate::domain::id::Incarnation;
use crate::ports::{Claim, Head, OrphanLog, OrphanOutcome, Orphaned};

/// How long whoever drops the guard waits for the sweep, which takes milliseconds unless something
/// outlives SIGKILL. A runtime of one thread stands still meanwhile.
const PATIENCE: Duration = Duration::from_millis(500);

/// Holds a launch from its claim on.
///
/// ractor skips `post_stop` on a kill and on a panic, and kills children when a parent ends: only
/// `Drop` is sure to run. Where panics abort the process, not even that.
#[derive(Debug)]
pub(super) struct LaunchGuard {
    pub(super) incarnation: Incarnation,
    pub(super) claim: Arc<dyn Claim>,
    /// The main process, once it is started.
    pub(super) head: Option<Arc<dyn Head>>,
    pub(super) outcome: OrphanOutcome,
    pub(super) orphans: Arc<dyn OrphanLog>,
    /// That nothing of it is left: then nothing is owed.
    gone: Option<Proof>,
}

impl LaunchGuard {
    pub(super) fn begin(
        incarnation: Incarnation,
        claim: Arc<dyn Claim>,
        head: Option<Arc<dyn Head>>,
        outcome: OrphanOutcome,
        orphans: Arc<dyn OrphanLog>,
    ) -> Self {
        Self { incarnation, claim, head, outcome, orphans, gone: None }
    }

    /// Nothing of it is left.
    pub(super) fn close(mut self, proof: Proof) {
        self.gone = Some(proof);
    }

    fn end_of(&self, left: Option<Doubt>) -> Orphaned {
        Orphaned {
            at: SystemTime::now(),
            incarnation: self.incarnation,
            pid: self.head.as_ref().map(|head| head.pid()),
            outcome: self.outcome,
            left,
        }
    }
}

impl Drop for LaunchGuard {
    fn drop(&mut self) {
        if self.gone.is_some() {
            return;
        }
        match self.outcome {
            // Before it has a main process there is nothing that could be found again.
            OrphanOutcome::Kept if self.head.is_some() => {
                self.claim.release();
                let ended = self.end_of(None);
                tracing::info!(pid = ended.pid, "vLLM is left running");
                self.orphans.orphaned(&ended);
            }
            OrphanOutcome::Kept | OrphanOutcome::Killed => self.kill(),
        }
    }
}

impl LaunchGuard {
    /// On a thread of its own: a sweep may take seconds, and this may be the only thread that the
    /// embedder's runtime has.
    fn kill(&self) {
        let sweep = LastSweep {
            claim: Arc::clone(&self.claim),
            orphans: Arc::clone(&self.orphans),
            ended: Orphaned { outcome: OrphanOutcome::Killed, ..self.end_of(None) },
        };
        let spare = sweep.clone();
        let (done, is_done) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("vllm-guard".to_owned()).spawn(move || {
            sweep.run();
            drop(done);
        });
        match thread {
            Ok(_detached) => match is_done.recv_timeout(PATIENCE) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!("vLLM is still being killed");
                }
            },
            // At the limit of threads: better slow than not at all.
            Err(_) => spare.run(),
        }
    }
}

/// A sweep to be made, and to be written down.
#[derive(Clone)]
struct LastSweep {
    claim: Arc<dyn Claim>,
    orphans: Arc<dyn OrphanLog>,
    ended: Orphaned,
}

impl LastSweep {
    fn run(mut self) {
        self.ended.left = self.claim.sweep_blocking().err();
        let (pid, left) = (self.ended.pid, &self.ended.left);
        tracing::warn!(pid, ?left, "vLLM was killed because its owner ended");
        self.orphans.orphaned(&self.ended);
    }
}
