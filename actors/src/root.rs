//! The actor at the top: it feeds the machine, runs its effects through the children, publishes
//! what happened, and answers whoever waits.
//!
//! It holds no rule of its own but two: a child actor that dies is replaced together with those
//! that were started after it (a bug, not a crash of vLLM), and the way down is a phase of its
//! life, because ractor would kill the children where an orderly end was due.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{broadcast, watch};
use tracing::{error, info};

use crate::domain::event::Event;
use crate::domain::goal::Goal;
use crate::domain::input::{Effect, Input};
use crate::domain::machine::Resume;
use crate::domain::spec::ServiceSpec;
use crate::ports::{GpuSource, Journal, Launcher, Output, Probe};
use crate::root::children::{Children, Loss, Role};
use crate::root::service::Service;
use crate::tell::tell;

mod children;
mod message;
mod publish;
mod service;
mod snapshot;

pub use message::{Answer, RootMessage};
pub use snapshot::{GpuView, HealthNote, LaunchKind, RestartCount, Snapshot};

/// See the module.
#[derive(Debug)]
pub struct RootSupervisor;

/// The world, as the supervisor meets it.
#[derive(Clone, Debug)]
pub struct Adapters {
    /// Starts and finds vLLM.
    pub launcher: Arc<dyn Launcher>,
    /// What vLLM writes.
    pub output: Arc<dyn Output>,
    /// Asks vLLM how it is.
    pub probe: Arc<dyn Probe>,
    /// Looks at the GPUs.
    pub gpus: Arc<dyn GpuSource>,
    /// Keeps what happened.
    pub journal: Arc<dyn Journal>,
}

/// What a [`RootSupervisor`] is given.
#[derive(Debug)]
pub struct RootArgs {
    /// The figures that the rules decide by.
    pub spec: ServiceSpec,
    /// The pause between two health checks when running.
    pub health_interval: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// The world.
    pub adapters: Adapters,
    /// Where numbering goes on from.
    pub resume: Resume,
    /// Where the present is published.
    pub snapshots: watch::Sender<Snapshot>,
    /// Where the history is published.
    pub events: broadcast::Sender<Arc<Event>>,
}

/// The state of a [`RootSupervisor`].
#[derive(Debug)]
pub struct RootState {
    /// The machine, its clock, and whoever waits for it.
    service: Service,
    /// The child actors.
    children: Children,
}

#[ractor::actor(message = RootMessage, state = RootState, arguments = RootArgs)]
impl RootSupervisor {
    async fn pre_start(
        &self,
        myself: ActorRef<RootMessage>,
        args: RootArgs,
    ) -> Result<RootState, ActorProcessingErr> {
        let children = Children::start(&myself, &args).await?;
        Ok(RootState { service: Service::new(args), children })
    }

    async fn post_start(
        &self,
        myself: ActorRef<RootMessage>,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        let reaction = state.service.begin();
        state.run(&myself, reaction);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<RootMessage>,
        message: RootMessage,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMessage::Start { reply } => state.command(&myself, Input::Start, reply),
            RootMessage::EnsureHealthy { reply } => state.command(&myself, Input::Ensure, reply),
            RootMessage::Stop { mode, reply } => state.command(&myself, Input::Stop(mode), reply),
            RootMessage::Restart { reply } => state.command(&myself, Input::Restart, reply),
            RootMessage::Load { model, reply } => state.command(&myself, Input::Load(model), reply),
            RootMessage::Snapshot { reply } => state.service.answer_snapshot(reply),
            RootMessage::Process(news) => {
                if state.children.hears(&news) {
                    state.take(&myself, Input::Process(news.report));
                }
            }
            RootMessage::Health(report) => {
                state.service.note_health(&report);
                state.take(&myself, Input::Health(report));
            }
            RootMessage::Loader(report) => state.take(&myself, Input::Loader(report)),
            RootMessage::Gpu(report) => state.service.note_gpus(report),
            RootMessage::Due { timer, incarnation } => {
                state.take(&myself, Input::Due(timer, incarnation));
            }
            RootMessage::Shutdown => state.shut_down(&myself),
            RootMessage::WindDown => state.children.wind_down(&myself),
            RootMessage::WoundDown => myself.stop(None),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMessage>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(child, remains, reason) => {
                // A killed actor's state comes along, with the guard of the process in it.
                drop(remains);
                let reason = reason.unwrap_or_else(|| "no reason given".to_owned());
                state.lost(&myself, child.get_id(), &reason).await
            }
            SupervisionEvent::ActorFailed(child, failure) => {
                state.lost(&myself, child.get_id(), &failure.to_string()).await
            }
            // `SupervisionEvent` grows with ractor's features.
            _ => Ok(()),
        }
    }
}

impl RootState {
    fn command(&mut self, myself: &ActorRef<RootMessage>, input: Input, reply: Answer) {
        let goal = match input {
            Input::Stop(_) => Some(Goal::Down),
            // What comes too late is answered by the dropped reply.
            _ if self.service.is_ending() => return,
            _ => None,
        };
        self.take(myself, input);
        let goal = goal.unwrap_or_else(|| Goal::served(self.service.machine()));
        self.service.wait(goal, reply);
    }

    fn take(&mut self, myself: &ActorRef<RootMessage>, input: Input) {
        let reaction = self.service.take(input);
        self.run(myself, reaction);
    }

    fn run(&mut self, myself: &ActorRef<RootMessage>, effects: Vec<Effect>) {
        for effect in effects {
            self.children.run(myself, effect, &self.service);
        }
        if self.service.may_wind_down() {
            tell(myself, RootMessage::WindDown);
        }
    }

    fn shut_down(&mut self, myself: &ActorRef<RootMessage>) {
        info!("the supervisor is asked to end");
        match self.service.shut_down() {
            Some(stop) => self.take(myself, stop),
            None => self.run(myself, Vec::new()),
        }
    }

    /// A child actor died: a bug. It and those started after it are replaced, within limits.
    async fn lost(
        &mut self,
        myself: &ActorRef<RootMessage>,
        child: ActorId,
        reason: &str,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.service.now();
        match self.children.replace(myself, child, now).await? {
            Loss::None => {}
            Loss::Replaced(role) => {
                error!(actor = %role, reason, "a child actor died and was replaced");
                match role {
                    Role::Process => self.take(myself, Input::ProcessActorLost),
                    Role::Loader | Role::Health => self.children.resume(&self.service),
                    Role::Gpu => {}
                }
            }
            Loss::TooMany(role) => {
                error!(actor = %role, reason, "child actors die too often: the supervisor ends");
                match role {
                    // Its guard has stopped or kept vLLM already.
                    Role::Process => {
                        self.service.end_now();
                        self.run(myself, Vec::new());
                    }
                    Role::Loader | Role::Health | Role::Gpu => self.shut_down(myself),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
