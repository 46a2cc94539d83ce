//! A whole supervisor in a scripted world: what it does for its callers, about crashes, at its own
//! end, and about the deaths of its actors.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::cause::{Cause, Code};
use crate::domain::diagnosis::Exit;
use crate::domain::event::{EndReason, EventKind};
use crate::domain::id::Incarnation;
use crate::domain::input::StopMode;
use crate::domain::spec::ExitPolicy;
use crate::domain::state::ServiceState::{
    Crashed, Failed, Running, Starting, Stopped, Stopping, Unknown,
};
use crate::domain::ticket::CommandError;
use crate::ports::{Head, OrphanOutcome, Signal};
use crate::root::{Answer, Command, GpuView, LaunchKind, RootMessage};
use crate::testing::harness::{Harness, Outcome, Plan, World, eventually, in_time, model};
use crate::testing::process::{Call, ScriptedProcess};

mod citizens;
mod commands;
mod crashes;
mod deaths;
mod draining;
mod ending;
mod linking;
mod telling;
mod watching;

const FIRST: Incarnation = Incarnation::new(1);
const SECOND: Incarnation = Incarnation::new(2);
const MINUTE: Duration = Duration::from_secs(60);

/// A supervisor that has found nothing and was asked for nothing.
async fn resting(on_exit: ExitPolicy) -> Harness {
    let harness = Harness::begin(World::default(), Plan::new(on_exit)).await;
    harness.wait_for(Stopped).await;
    harness
}

/// A supervisor whose vLLM has been launched, and does not serve yet.
async fn starting(on_exit: ExitPolicy) -> (Harness, ScriptedProcess, Outcome) {
    let harness = resting(on_exit).await;
    let started = harness.ask(start);
    harness.wait_until(|snapshot| snapshot.pid.is_some()).await;
    let process = harness.world.launcher.last();
    (harness, process, started)
}

/// A supervisor whose vLLM serves.
async fn running(on_exit: ExitPolicy) -> (Harness, ScriptedProcess) {
    let (harness, process, started) = starting(on_exit).await;
    harness.world.probe.serve();
    assert_eq!(started.answer().await, Some(Ok(())));
    (harness, process)
}

fn start(reply: Answer) -> Command {
    Command::Start { reply }
}

fn ensure(reply: Answer) -> Command {
    Command::EnsureHealthy { model: None, reply }
}

fn stop(reply: Answer) -> Command {
    Command::Stop { mode: StopMode::Graceful, reply }
}

fn stop_now(reply: Answer) -> Command {
    Command::Stop { mode: StopMode::Immediate, reply }
}

fn restart(reply: Answer) -> Command {
    Command::Restart { reply }
}

fn load(name: &str) -> impl FnOnce(Answer) -> Command {
    let model = model(name);
    |reply| Command::Load { model, extra_args: None, reply }
}

/// A program's wish for a model.
fn need(name: &str) -> impl FnOnce(Answer) -> Command {
    let model = Some(model(name));
    |reply| Command::EnsureHealthy { model, reply }
}

fn launches(harness: &Harness) -> Vec<u64> {
    harness.world.launcher.launches().into_iter().map(Incarnation::get).collect()
}

/// What was done to a process, without the times.
fn calls(process: &ScriptedProcess) -> Vec<Call> {
    process.calls().into_iter().map(|(_, call)| call).collect()
}
