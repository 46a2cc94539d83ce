//! Reaps what vLLM's processes leave behind: this process takes their orphans, so that none of
//! them is lost sight of, and as process 1 of a container it has no choice.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::builder::{Look, OrphanReaper};

/// Between two looks, of which the second reaps.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes and reaps orphans until it is dropped.
#[derive(Debug)]
pub(super) struct Orphans {
    _reaper: JoinSet<()>,
}

impl Orphans {
    /// Begins, beside a supervisor with this state directory.
    pub(super) fn reap(state_directory: &Path) -> io::Result<Self> {
        OrphanReaper::take_orphans()?;
        let mut ended = signal(SignalKind::child())?;
        let mut reaper = OrphanReaper::new(state_directory);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                match reaper.look() {
                    Look::Again => drop(timeout(PAUSE, std::future::pending::<()>()).await),
                    Look::Done => drop(ended.recv().await),
                }
            }
        });
        Ok(Self { _reaper: tasks })
    }
}
