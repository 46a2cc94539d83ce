//! Several runs, so many at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::place::Programs;
use super::run::{Broken, Report, run};
use super::schedule::Schedule;

/// Runs the schedules of these seeds, and hands over each outcome as it comes.
///
/// # Panics
///
/// When a run panics, which is a fault of the test.
pub async fn run_seeds(
    seeds: Vec<u64>,
    length: Duration,
    at_a_time: usize,
    programs: &Programs,
    mut ended: impl FnMut(u64, Result<Report, Broken>),
) {
    let places = Arc::new(Semaphore::new(at_a_time));
    let mut runs = JoinSet::new();
    for seed in seeds {
        let (places, programs) = (Arc::clone(&places), programs.clone());
        runs.spawn(async move {
            let _place = places.acquire_owned().await.expect("it is never closed");
            (seed, run(&Schedule::of(seed, length), &programs).await)
        });
    }
    while let Some(outcome) = runs.join_next().await {
        let (seed, outcome) = outcome.expect("a run does not panic");
        ended(seed, outcome);
    }
}
