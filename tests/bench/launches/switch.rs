//! From one model to the other, up to its first completion.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use vllm_supervisor::config::{Overrides, Resolved, Sources};
use vllm_supervisor::{LaunchKind, Supervisor, SupervisorHandle};

use super::contestant::{Contestant, Running};
use super::{Outcome, PATIENCE};
use crate::command::CONFIGURATION;

/// What there is to do without a supervisor that can switch: a stop, and a start with the other model.
pub(super) async fn by_hand(running: &mut Running<'_>) -> Outcome<Duration> {
    let asked = Instant::now();
    running.stop().await?;
    let other = &running.stage.other_model;
    running.run(other)?;
    running.client.completes(other).await?;
    Ok(asked.elapsed())
}

/// By the library, in this process: the command has no way to ask it yet. It has the place and the
/// settings of a `vllmd` that has been stopped.
pub(super) async fn by_handle(running: &Running<'_>) -> Outcome<Duration> {
    let directory = running.place.directory.path();
    let mut overrides = Overrides::default();
    overrides.state_dir = Some(directory.join("state-of-the-library"));
    let mut sources = Sources::from_process(overrides, Some(directory.join(CONFIGURATION)));
    sources.environment.extend(running.place.environment.iter().cloned());
    let mut config = Resolved::load(&sources)?.config;
    // It sets this one itself, and has nobody else do so.
    let given = running.place.environment.iter().filter(|(name, _)| name != "SPT_NOENV");
    config.env.extend(given.cloned());
    let (name, value) = running.place.census.variable();
    config.env.insert(name.to_owned(), value.to_owned());
    let handle = Supervisor::builder().config(config).spawn().await?;
    let switched = timeout(PATIENCE * 2, switch(&handle, running)).await;
    timeout(PATIENCE, handle.shutdown()).await?;
    switched?
}

async fn switch(handle: &SupervisorHandle, running: &Running<'_>) -> Outcome<Duration> {
    handle.start().await?;
    running.client.completes(&running.stage.model).await?;
    let asked = Instant::now();
    handle.load_model(&running.stage.other_model).await?;
    running.client.completes(&running.stage.other_model).await?;
    let elapsed = asked.elapsed();
    let launch = handle.watch().borrow().launch;
    let is_warm = launch == Some(LaunchKind::Warm);
    if is_warm != (running.contestant == Contestant::Warm) {
        return Err(format!("the other model was launched {launch:?}").into());
    }
    Ok(elapsed)
}
