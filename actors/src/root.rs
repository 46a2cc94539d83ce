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

use crate::domain::cause::Cause;
use crate::domain::event::{EndReason, Event};
use crate::domain::gpu::{GpuFinding, GpuRules};
use crate::domain::input::{Asker, Effect, Input, Request};
use crate::domain::machine::Resume;
use crate::domain::report::{GpuReport, HealthNews};
use crate::domain::spec::ServiceSpec;
use crate::domain::target::{Arguments, Wanted};
use crate::domain::ticket::CommandError;
use crate::domain::unit::UnitReading;
use crate::ports::{
    Downloads, GpuSource, Journal, Launcher, ModelCheck, Output, Probe, Quarantine, UnitSource,
};
use crate::root::children::{Children, Loss, Role};
use crate::root::publish::Publisher;
use crate::root::service::Service;
use crate::tell::tell;

mod children;
mod link;
mod message;
mod publish;
mod service;
mod snapshot;

pub use crate::domain::report::LaunchKind;
pub use link::{Link, LinkActor, LinkArgs, LinkMessage, LinkState, SupervisorKilled};
pub use message::{Answer, Command, RootMessage};
pub use snapshot::{GpuView, HealthNote, RestartCount, Snapshot};

/// See the module.
#[derive(Debug)]
pub struct RootSupervisor;

/// The world, as the supervisor meets it.
#[derive(Clone, Debug)]
pub struct Adapters {
    /// Whose life it has, by whom.
    pub owner: Owner,
    /// Asks vLLM how it is.
    pub probe: Arc<dyn Probe>,
    /// Looks at the GPUs.
    pub gpus: Arc<dyn GpuSource>,
    /// Keeps what is wrong with them.
    pub quarantine: Arc<dyn Quarantine>,
    /// Keeps what happened.
    pub journal: Arc<dyn Journal>,
}

/// Who has the life of vLLM in hand, and what is needed for that.
#[derive(Clone, Debug)]
pub enum Owner {
    /// We have.
    Us(Means),
    /// Somebody else has; the service manager that is asked, if there is one.
    Other(Option<Arc<dyn UnitSource>>),
}

/// What it takes to run vLLM.
#[derive(Clone, Debug)]
pub struct Means {
    /// Starts and finds vLLM.
    pub launcher: Arc<dyn Launcher>,
    /// What vLLM writes.
    pub output: Arc<dyn Output>,
    /// What it downloads.
    pub downloads: Arc<dyn Downloads>,
    /// Judges the models that are asked for.
    pub models: Arc<dyn ModelCheck>,
}

/// What a [`RootSupervisor`] is given.
#[derive(Debug)]
pub struct RootArgs {
    /// The figures that the rules decide by.
    pub spec: ServiceSpec,
    /// How often a server that stays healthy is reported.
    pub health_interval: Duration,
    /// How GPUs are judged.
    pub gpus: GpuRules,
    /// What an earlier supervisor has found wrong with them.
    pub gpu_findings: Vec<GpuFinding>,
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
    /// Judges the models that are asked for, if it is ours to load them.
    models: Option<Arc<dyn ModelCheck>>,
    /// Why it ends, once it is to: what was said first.
    reason: Option<EndReason>,
}

#[ractor::actor(message = RootMessage, state = RootState, arguments = RootArgs)]
impl RootSupervisor {
    async fn pre_start(
        &self,
        myself: ActorRef<RootMessage>,
        args: RootArgs,
    ) -> Result<RootState, ActorProcessingErr> {
        let (journal, snapshots) = (Arc::clone(&args.adapters.journal), args.snapshots.clone());
        let publisher =
            Publisher::new(journal, args.events.clone(), snapshots, args.resume.sequence);
        let publisher = Arc::new(publisher);
        let children = Children::start(&myself, &args, publisher.clone()).await?;
        let models = match &args.adapters.owner {
            Owner::Us(means) => Some(Arc::clone(&means.models)),
            Owner::Other(_) => None,
        };
        let service = Service::new(args.spec, args.resume, publisher, args.gpu_findings);
        Ok(RootState { service, children, models, reason: None })
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
            RootMessage::Command(command) => state.command(&myself, command).await,
            RootMessage::Process(news) => {
                if state.children.hears(&news) {
                    state.take(&myself, Input::Process(news.report));
                }
            }
            RootMessage::Health(news) => state.hear_of_health(&myself, news),
            RootMessage::Loader(report) => state.take(&myself, Input::Loader(report)),
            RootMessage::Gpu(GpuReport::Found(news)) => state.take(&myself, Input::Found(news)),
            RootMessage::Gpu(report) => state.service.note_gpus(report),
            RootMessage::Unit(reading) => state.hear_of_unit(&myself, reading),
            RootMessage::Due { timer, incarnation } => {
                state.take(&myself, Input::Due(timer, incarnation));
            }
            RootMessage::WindDown { reason } => state.children.wind_down(&myself, reason),
            RootMessage::WoundDown { reason } => {
                state.service.end(reason);
                myself.stop(None);
            }
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
            SupervisionEvent::ActorTerminated(child, last_state, reason) => {
                // A killed actor's state comes along, with the guard of the process in it.
                drop(last_state);
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
    async fn command(&mut self, myself: &ActorRef<RootMessage>, command: Command) {
        let asker = Asker::Program;
        let (request, reply) = match command {
            Command::Start { reply } => (Ok(Request::Start), reply),
            Command::EnsureHealthy { model: None, reply } => (Ok(Request::Ensure), reply),
            Command::EnsureHealthy { model: Some(model), reply } => {
                let wanted = Wanted::from(model);
                (self.judged(wanted).await.map(|wanted| Request::Load { wanted, asker }), reply)
            }
            Command::Stop { mode, reply } => (Ok(Request::Stop(mode)), reply),
            Command::Restart { reply } => (Ok(Request::Restart), reply),
            Command::Load { model, extra_args, reply } => {
                let asker = Asker::Operator;
                let wanted = match self.arguments(extra_args) {
                    Ok(arguments) => self.judged(Wanted { model, arguments }).await,
                    Err(cause) => Err(CommandError::Refused { wanted: model, cause }),
                };
                (wanted.map(|wanted| Request::Load { wanted, asker }), reply)
            }
            Command::Snapshot { reply } => return self.service.answer_snapshot(reply),
            Command::Subscribe { subscriber } => return self.service.subscribe(subscriber),
            Command::Shutdown => return self.shut_down(myself, EndReason::ShutDown),
        };
        let request = match request {
            Ok(request) => request,
            // A caller that gave up waiting needs no answer.
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        let ticket = self.service.expect_answer(reply);
        self.take(myself, Input::Request(ticket, request));
    }

    /// What vLLM is to be told besides, if it may be told that. Of a vLLM that is not ours nobody knows what
    /// it was told.
    fn arguments(&self, words: Option<Vec<String>>) -> Result<Option<Arguments>, Cause> {
        match (&self.models, words) {
            (_, None) => Ok(None),
            (Some(models), Some(words)) => models.arguments(words).map(Some),
            (None, Some(words)) => Ok(Some(Arguments::new(words, None))),
        }
    }

    /// What there may be, and may be loaded. What comes meanwhile waits its turn: requests are taken in the
    /// order in which they are made.
    async fn judged(&self, wanted: Wanted) -> Result<Wanted, CommandError> {
        let Some(models) = &self.models else { return Ok(wanted) };
        let Wanted { model, arguments } = wanted;
        let text = model.as_str().to_owned();
        let judged = models.judge(&model);
        let model = judged.map_err(|reason| CommandError::InvalidModel { text, reason })?;
        let wanted = Wanted { model, arguments };
        if self.service.wants(&wanted) {
            return Ok(wanted);
        }
        match models.check(&self.service.rules().resolve(&wanted)).await {
            Ok(()) => Ok(wanted),
            Err(cause) => Err(CommandError::Refused { wanted: wanted.model, cause }),
        }
    }

    fn hear_of_health(&mut self, myself: &ActorRef<RootMessage>, news: HealthNews) {
        match news {
            HealthNews::Checked(report) => {
                self.service.note_health(&report);
                self.take(myself, Input::Health(report));
            }
            HealthNews::Drained(incarnation) => self.take(myself, Input::Drained(incarnation)),
            HealthNews::Felt(incarnation, pulse) => {
                self.take(myself, Input::Felt(incarnation, pulse));
            }
            HealthNews::Tried(incarnation, trial) => {
                self.take(myself, Input::Tried(incarnation, trial));
            }
            HealthNews::Completed(incarnation, text) => {
                self.take(myself, Input::Completed(incarnation, text));
            }
        }
    }

    fn hear_of_unit(&mut self, myself: &ActorRef<RootMessage>, reading: UnitReading) {
        let effects = self.service.hear(reading);
        self.run(myself, effects);
    }

    fn take(&mut self, myself: &ActorRef<RootMessage>, input: Input) {
        let effects = self.service.take(input);
        self.run(myself, effects);
    }

    fn run(&mut self, myself: &ActorRef<RootMessage>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::End => {
                    let reason = self.reason.unwrap_or(EndReason::ShutDown);
                    tell(myself, RootMessage::WindDown { reason });
                }
                effect => self.children.run(myself, effect, &self.service),
            }
        }
    }

    fn shut_down(&mut self, myself: &ActorRef<RootMessage>, reason: EndReason) {
        info!(reason = reason.as_str(), "the supervisor is to end");
        self.reason.get_or_insert(reason);
        self.take(myself, Input::ShutDown);
    }

    /// A child actor died: a bug. It and those started after it are replaced, within limits.
    async fn lost(
        &mut self,
        myself: &ActorRef<RootMessage>,
        child: ActorId,
        failure: &str,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.service.now();
        let findings = self.service.rules().gpu_findings().to_vec();
        match self.children.replace(myself, child, &findings, now).await? {
            Loss::None => {}
            Loss::Replaced(role) => {
                error!(actor = %role, reason = failure, "a child actor died and was replaced");
                match role {
                    Role::Process => self.take(myself, Input::ProcessActorLost),
                    Role::Loader | Role::Health => self.children.resume(&self.service),
                    // It tells anew how the unit is.
                    Role::Gpu | Role::Unit => {}
                }
            }
            Loss::TooMany(role) => {
                error!(actor = %role, reason = failure, "the child actor dies too often");
                let reason = EndReason::ActorsDied;
                match role {
                    // Its guard has stopped or kept vLLM already.
                    Role::Process => tell(myself, RootMessage::WindDown { reason }),
                    Role::Loader | Role::Health | Role::Unit => self.shut_down(myself, reason),
                    // Nobody depends on it.
                    Role::Gpu => {
                        let reason = format!("the GPU monitor died too often: {failure}");
                        self.service.note_gpus(GpuReport::Unavailable { reason });
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
