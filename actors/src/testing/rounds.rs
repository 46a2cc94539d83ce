//! How long a property is tried.

use std::time::Duration;

use tokio::time::Instant;

/// Rounds of trials: one, or as many as begin within `VLLMD_FUZZ_SECONDS`.
///
/// # Panics
///
/// If that is no number of seconds.
pub fn rounds() -> impl Iterator<Item = u64> {
    let seconds = std::env::var("VLLMD_FUZZ_SECONDS").ok();
    let seconds = seconds.map_or(0, |it| it.parse().expect("VLLMD_FUZZ_SECONDS is a number"));
    let (began, limit) = (Instant::now(), Duration::from_secs(seconds));
    (0..).take_while(move |round| *round == 0 || began.elapsed() < limit)
}
