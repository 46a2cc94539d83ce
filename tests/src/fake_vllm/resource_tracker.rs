//! Python's resource tracker: outlives everybody, then removes what they left in `/dev/shm`.
//!
//! It reads a pipe whose write end every other process holds. When the last of them is gone, in
//! whatever way, the pipe ends (Python 3.11, `multiprocessing/resource_tracker.py`).

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;

use super::log::Log;
use super::signals::StopSignals;
use super::transcript;

pub(super) async fn run() -> ExitCode {
    // Nobody asks for them: that is how it ignores the two.
    let _deaf = StopSignals::listen();
    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    let pipe = stdin.and_then(pipe::Receiver::from_owned_fd).expect("stdin is the pipe");
    let mut lines = BufReader::new(pipe).lines();
    let mut registered = BTreeSet::new();
    while let Ok(Some(line)) = lines.next_line().await {
        match line.split_once(':') {
            Some(("REGISTER", path)) => registered.insert(path.to_owned()),
            Some(("UNREGISTER", path)) => registered.remove(path),
            _ => false,
        };
    }
    if !registered.is_empty() {
        let count = registered.len().to_string();
        Log::default().print_with(transcript::TRACKER_LEAKS, &[("count", count)]);
    }
    for path in registered {
        std::fs::remove_file(path).ok();
    }
    ExitCode::SUCCESS
}
