//! The way down: SIGTERM to the main process, again while it loads, then SIGKILL to everything
//! until nothing is left.
//!
//! SIGTERM goes to the main process alone. A group-wide one hits the workers, which exit at once
//! and take the orderly shutdown with them (vLLM 0.32, `v1/executor/multiproc_executor.py`).

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::domain::absence::{Doubt, Proof};
use crate::domain::diagnosis::Phase;
use crate::domain::input::StopMode;
use crate::ports::{Claim, Head, Signal};

/// vLLM swallows the first SIGTERM while it waits for its engine to load, and heeds the second
/// (vLLM 0.32, `utils/network_utils.py`, `zmq_socket_ctx`).
const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// How long something may outlive SIGKILL before that is reported. The kernel holds a process that
/// waits for a device, and no signal frees it.
const LINGER: Duration = Duration::from_secs(10);

/// The pause between two sweeps.
const SWEEP_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How long to wait for the end after each SIGTERM, before everything is killed.
pub(super) fn pauses(mode: StopMode, phase: Phase, grace: Duration) -> Vec<Duration> {
    match (mode, phase) {
        (StopMode::Immediate, _) => Vec::new(),
        (StopMode::Graceful, Phase::Serving) => vec![grace],
        (StopMode::Graceful, Phase::Loading) => {
            let first = REPEAT_AFTER.min(grace / 2);
            vec![first, grace.saturating_sub(first)]
        }
    }
}

/// How long what is about to end may be looked at first.
const STOCK_WITHIN: Duration = Duration::from_millis(200);

/// Asks the main process to end in order, as often as there are pauses.
pub(super) async fn ask(claim: &dyn Claim, head: &dyn Head, pauses: &[Duration]) {
    if !pauses.is_empty() {
        // What it leaves behind nobody could say whose it was.
        timeout(STOCK_WITHIN, claim.take_stock()).await.ok();
    }
    for pause in pauses {
        head.signal(Signal::Terminate);
        if timeout(*pause, head.ended()).await.is_ok() {
            break;
        }
    }
}

/// Kills everything, and returns when nothing is left. `lingered` hears of what outlives SIGKILL,
/// and again when that is something else.
pub(super) async fn proven_gone(claim: &dyn Claim, lingered: impl Fn(Doubt)) -> Proof {
    let began = Instant::now();
    let mut said = None;
    loop {
        match claim.sweep().await {
            Ok(proof) => return proof,
            Err(doubt) => {
                if began.elapsed() >= LINGER && said.as_ref() != Some(&doubt) {
                    said = Some(doubt.clone());
                    lingered(doubt);
                }
            }
        }
        sleep(SWEEP_AGAIN_AFTER).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    #[test]
    fn a_serving_vllm_gets_one_sigterm_and_the_whole_grace() {
        assert_eq!(pauses(StopMode::Graceful, Phase::Serving, GRACE), [GRACE]);
    }

    #[test]
    fn a_loading_vllm_gets_a_second_sigterm_within_the_same_grace() {
        let pauses = pauses(StopMode::Graceful, Phase::Loading, GRACE);
        assert_eq!(pauses, [Duration::from_secs(1), Duration::from_secs(9)]);
    }

    #[test]
    fn an_immediate_stop_asks_nobody() {
        assert!(pauses(StopMode::Immediate, Phase::Serving, GRACE).is_empty());
    }

    #[test]
    fn no_grace_means_no_wait() {
        let pauses = pauses(StopMode::Graceful, Phase::Loading, Duration::ZERO);
        assert_eq!(pauses.iter().sum::<Duration>(), Duration::ZERO);
    }
}
