//! Those of whom it cannot be told whether they belong, and how long that has been so.

use std::collections::BTreeMap;

use tokio::time::{Duration, Instant};

use crate::domain::absence::ScanError;

/// How long to wait for one that is undecided: it may show itself or end, as the child of an sshd
/// does that has yet to execute a shell. Shorter than a question may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Those who are undecided.
#[derive(Debug, Default)]
pub(super) struct Undecided(BTreeMap<u32, Known>);

/// Who is undecided, and since when that is known.
#[derive(Debug)]
struct Known {
    start_time: u64,
    since: Instant,
    /// Set when it is named.
    is_named: bool,
}

impl Undecided {
    /// Forgets all others.
    pub(super) fn keep(&mut self, is_there: impl Fn(u32) -> bool) {
        self.0.retain(|pid, _| is_there(*pid));
    }

    /// Whether this one has been waited for long enough.
    pub(super) fn is_given_up(&mut self, pid: u32, start_time: u64, error: &ScanError) -> bool {
        let fresh = || Known { start_time, since: Instant::now(), is_named: false };
        let known = self.0.entry(pid).or_insert_with(fresh);
        if known.start_time != start_time {
            *known = fresh();
        }
        let is_over = known.since.elapsed() >= PATIENCE;
        if is_over && !std::mem::replace(&mut known.is_named, true) {
            tracing::warn!(pid, %error, "it cannot be told whether this process is vLLM's; it is left alone");
        }
        is_over
    }
}
