//! How a program holds a supervisor: one verb, one message to the root.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorRef, DerivedActorRef, RpcReplyPort};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::timeout;
use vllm_supervisor_actors::domain::event::Event;
use vllm_supervisor_actors::domain::id::Sequence;
use vllm_supervisor_actors::domain::incident::Incident;
use vllm_supervisor_actors::domain::input::StopMode;
use vllm_supervisor_actors::domain::spec::{LifecycleMode, ModelId, ModelReferenceError};
use vllm_supervisor_actors::domain::state::ServiceState;
use vllm_supervisor_actors::domain::ticket::Outcome;
use vllm_supervisor_actors::ports::Journal;
use vllm_supervisor_actors::root::{Answer, Command, Link, RootMessage, Snapshot};

use crate::config::NamesOfProcess;
use crate::error::CommandError;
use crate::model_request::ModelRequest;
use crate::subscription::{EventStream, LoadStream};

/// How long the last event may be waited for after the actors have ended: a guard's sweep takes less
/// than that unless a look at the system hangs.
const LAST_EVENT_WITHIN: Duration = Duration::from_secs(10);

/// A supervisor. Clones are the same supervisor.
///
/// Every command may be repeated: what is so already is fine, and two callers who want the same
/// share one action. Dropping the future of a command does not take the command back.
///
/// When the last handle is dropped the supervisor ends as by [`SupervisorHandle::shutdown`],
/// without anybody waiting for it. If the runtime ends first, vLLM is killed or kept as configured.
#[derive(Clone)]
pub struct SupervisorHandle {
    shared: Arc<Connection>,
}

/// What a handle is made of.
pub(crate) struct Connection {
    pub(crate) root: ActorRef<RootMessage>,
    /// Its place under an actor of the program, if it has one.
    pub(crate) link: Option<Link>,
    pub(crate) snapshot: watch::Receiver<Snapshot>,
    /// Weak, so that subscriptions end with the supervisor.
    pub(crate) events: broadcast::WeakSender<Arc<Event>>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) base_url: String,
    pub(crate) first_event: Sequence,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // One that has ended already needs no telling.
        self.root.send_message(Command::Shutdown.into()).ok();
    }
}

impl fmt::Debug for SupervisorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorHandle")
            .field("base_url", &self.shared.base_url)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl SupervisorHandle {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { shared: Arc::new(connection) }
    }

    /// Returns when the model is served: whichever is to be served, or `model` if given, to which
    /// the service is switched if need be. Starts a stopped service, waits for one that is starting
    /// or coming back, and leaves alone one that has given up.
    ///
    /// A running service is answered for from the state as last known, without a probe. vLLM's
    /// front outlives its engine by up to five seconds (vLLM 0.32), and until it has ended this says
    /// `Ok`: a request that fails is to be tried again after the state has changed.
    ///
    /// # Errors
    ///
    /// [`CommandError::Failed`] with the cause when the service has given up or does so. Of a vLLM that is
    /// not ours (`lifecycle.mode`): with what a check has just found, or [`CommandError::NotManaged`] where
    /// it would have to be started, or switched, for that.
    pub async fn ensure_healthy(&self, model: Option<&str>) -> Result<(), CommandError> {
        let model = model.map(|text| self.parse(text)).transpose()?;
        if self.serves(model.as_ref()) {
            return Ok(());
        }
        self.ask(|reply| Command::EnsureHealthy { model, reply }).await
    }

    fn serves(&self, model: Option<&ModelId>) -> bool {
        let present = self.shared.snapshot.borrow();
        present.state == ServiceState::Running && model.is_none_or(|model| present.model == *model)
    }

    /// The state as last published. Of a supervisor that has ended it is `Stopped` or `Failed` where
    /// that was so at an orderly end, else `Unknown`.
    pub fn state(&self) -> ServiceState {
        self.shared.snapshot.borrow().state
    }

    /// Starts the service and returns when it serves. An operator's word: what went wrong before
    /// counts no more.
    ///
    /// # Errors
    ///
    /// [`CommandError`] when it gives up, or is stopped meanwhile; [`CommandError::NotManaged`] of a vLLM
    /// that is not ours, as of every other command that would do something about it.
    pub async fn start(&self) -> Result<(), CommandError> {
        self.ask(|reply| Command::Start { reply }).await
    }

    /// Stops the service and returns when nothing of vLLM is alive. Works in every state, also
    /// while loading; a restart that was pending will not happen.
    ///
    /// # Errors
    ///
    /// [`CommandError::StillAlive`] when something outlives SIGKILL.
    pub async fn stop(&self) -> Result<(), CommandError> {
        self.stop_by(StopMode::Graceful).await
    }

    /// Stops the service, gracefully or at once; makes a graceful stop under way immediate.
    ///
    /// # Errors
    ///
    /// [`CommandError::StillAlive`] when something outlives SIGKILL.
    pub async fn stop_by(&self, mode: StopMode) -> Result<(), CommandError> {
        self.ask(|reply| Command::Stop { mode, reply }).await
    }

    /// Stops the service if it runs, starts it, and returns when it serves.
    ///
    /// # Errors
    ///
    /// As [`SupervisorHandle::start`].
    pub async fn restart(&self) -> Result<(), CommandError> {
        self.ask(|reply| Command::Restart { reply }).await
    }

    /// Serves another model, and returns when it is served. vLLM is restarted with it; if it fails
    /// to load, the model that was served before is brought back.
    ///
    /// A model is named by its id or path, or is a [`ModelRequest`] with arguments of its own, which may
    /// also be others for the model that is served. A switch lasts as long as this supervisor, and longer
    /// where vLLM is left running: the next one that has the same configuration takes it over as it is. A
    /// start from nothing serves what is configured.
    ///
    /// # Errors
    ///
    /// [`CommandError::InvalidModel`] and [`CommandError::Refused`] before anything is done; [`CommandError::SwitchFailed`] when
    /// the old model is being brought back.
    pub async fn load_model(&self, model: impl Into<ModelRequest>) -> Result<(), CommandError> {
        let ModelRequest { model, extra_args } = model.into();
        let model = self.parse(&model)?;
        self.ask(|reply| Command::Load { model, extra_args, reply }).await
    }

    /// As [`SupervisorHandle::load_model`], with progress on the way.
    ///
    /// The load begins now, whether or not the stream is ever read, and goes on when it is dropped.
    /// Until the stream has ended it holds the supervisor as a handle does.
    pub fn load_model_stream(&self, model: impl Into<ModelRequest>) -> LoadStream {
        let events = self.subscribe();
        let ModelRequest { model, extra_args } = model.into();
        let model = self.parse(&model);
        let put = |model| self.put(move |reply| Command::Load { model, extra_args, reply });
        let asked = model.clone().and_then(put);
        let handle = self.clone();
        let outcome = Box::pin(async move {
            let outcome = answer(asked?).await;
            drop(handle);
            outcome
        });
        LoadStream::new(events, model.ok(), outcome)
    }

    /// The models that vLLM listed at the last health check, by the names that requests have for them
    /// (`--served-model-name`, else the model's own; adapters after it); none unless running.
    pub fn loaded_models(&self) -> Vec<String> {
        self.shared.snapshot.borrow().listed_models.clone()
    }

    /// The present, as of now.
    ///
    /// # Errors
    ///
    /// [`CommandError::SupervisorEnded`].
    pub async fn status(&self) -> Result<Snapshot, CommandError> {
        let (answer, status) = oneshot::channel();
        let reply = RpcReplyPort::from(answer);
        self.send(Command::Snapshot { reply })?;
        status.await.map_err(|_| CommandError::SupervisorEnded)
    }

    /// The present as last published, and every change of it.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.shared.snapshot.clone()
    }

    /// Every event from now on. A subscriber that falls behind is told how many it missed.
    pub fn subscribe(&self) -> EventStream {
        EventStream::live(self.receiver())
    }

    /// Every event from this number on: first those that have happened, those of earlier
    /// supervisors with the same state directory included, then those to come, without a gap
    /// between the two. `Sequence::NONE` is the beginning; whoever has read up to a number goes on
    /// at its [`next`](Sequence::next). A number that has not been given yet is the same as the
    /// next one to be given.
    ///
    /// What the journal does not have is a [`Notice::Gap`](crate::Notice::Gap). Of an event that
    /// it has, times are in milliseconds, and a cause is without its last lines. A subscriber that
    /// falls behind is caught up from the journal.
    pub fn subscribe_from(&self, sequence: Sequence) -> EventStream {
        let live = self.receiver();
        EventStream::from(sequence, self.shared.journal.events(sequence), live)
    }

    /// The number of the first event of this supervisor. [`SupervisorHandle::subscribe_from`] there
    /// tells all that it has done, from before it could be subscribed to, and nothing of earlier ones.
    pub fn first_event(&self) -> Sequence {
        self.shared.first_event
    }

    fn receiver(&self) -> Option<broadcast::Receiver<Arc<Event>>> {
        self.shared.events.upgrade().map(|events| events.subscribe())
    }

    /// The last thousand ends that nobody asked for, oldest first, those of earlier supervisors
    /// with the same state directory included.
    pub async fn history(&self) -> Vec<Incident> {
        self.shared.journal.history().await
    }

    /// Where vLLM serves, such as `http://127.0.0.1:8000`.
    pub fn base_url(&self) -> &str {
        &self.shared.base_url
    }

    /// The root actor, for programs that speak ractor 0.16 themselves; it takes [`Command`]s. The
    /// answer to one is a `Result<(), CommandError>`. Holding it does not keep
    /// the supervisor alive. Of a supervisor that is linked under an actor it is the child of that.
    pub fn actor_ref(&self) -> DerivedActorRef<Command> {
        match &self.shared.link {
            Some(link) => link.actor.get_derived(),
            None => self.shared.root.get_derived(),
        }
    }

    /// Ends the supervisor, and returns when it has ended and the journal is written. vLLM is
    /// stopped first, or left running, as configured (`lifecycle.stop_on_exit`).
    ///
    /// Where the system does not answer what is left of vLLM, its guard is waited for ten seconds
    /// beyond the end of the actors.
    pub async fn shutdown(self) {
        // One that has ended already needs no telling.
        self.shared.root.send_message(Command::Shutdown.into()).ok();
        self.shared.root.wait(None).await.ok();
        let mut snapshot = self.shared.snapshot.clone();
        let all_told = async { while snapshot.changed().await.is_ok() {} };
        if timeout(LAST_EVENT_WITHIN, all_told).await.is_err() {
            tracing::error!("vLLM is still being killed; it is not waited for");
        }
        self.shared.journal.closed().await;
    }

    async fn ask(&self, command: impl FnOnce(Answer) -> Command) -> Result<(), CommandError> {
        answer(self.put(command)?).await
    }

    /// Puts a command; the answer is to come.
    fn put(
        &self,
        command: impl FnOnce(Answer) -> Command,
    ) -> Result<oneshot::Receiver<Outcome>, CommandError> {
        let (answer, outcome) = oneshot::channel();
        self.send(command(RpcReplyPort::from(answer)))?;
        Ok(outcome)
    }

    fn parse(&self, text: &str) -> Result<ModelId, CommandError> {
        let invalid = |reason| CommandError::InvalidModel { text: text.to_owned(), reason };
        match self.shared.snapshot.borrow().mode {
            LifecycleMode::Managed => NamesOfProcess::model(text).map_err(invalid),
            // It is whatever name the server lists.
            LifecycleMode::Monitored | LifecycleMode::External => {
                ModelId::new(text).map_err(|_| invalid(ModelReferenceError::ForbiddenCharacter))
            }
        }
    }

    fn send(&self, command: Command) -> Result<(), CommandError> {
        self.shared.root.send_message(command.into()).map_err(|_| CommandError::SupervisorEnded)
    }
}

async fn answer(outcome: oneshot::Receiver<Outcome>) -> Result<(), CommandError> {
    outcome.await.unwrap_or(Err(CommandError::SupervisorEnded))
}

#[cfg(test)]
mod tests {
    use ractor::{Actor, ActorProcessingErr};
    use tokio::time::Instant;
    use vllm_supervisor_actors::testing::journal::MemoryJournal;

    use super::*;

    /// A root that ends when it is told to.
    struct Obedient;

    #[ractor::actor(message = RootMessage, state = (), arguments = ())]
    impl Obedient {
        async fn pre_start(
            &self,
            _myself: ActorRef<RootMessage>,
            _arguments: (),
        ) -> Result<(), ActorProcessingErr> {
            Ok(())
        }

        async fn handle(
            &self,
            myself: ActorRef<RootMessage>,
            _message: RootMessage,
            _state: &mut (),
        ) -> Result<(), ActorProcessingErr> {
            myself.stop(None);
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_at_the_system_that_hangs_holds_up_no_end_for_ever() {
        let (root, _) = Actor::spawn(None, Obedient, ()).await.unwrap();
        // Kept, as by a guard whose sweep does not come back.
        let present = Snapshot::initial(ModelId::new("org/model").unwrap(), 3);
        let (_guard, snapshot) = watch::channel(present);
        let handle = SupervisorHandle::new(Connection {
            root,
            link: None,
            snapshot,
            events: broadcast::Sender::new(1).downgrade(),
            journal: Arc::<MemoryJournal>::default(),
            base_url: String::new(),
            first_event: Sequence::NONE,
        });
        let asked = Instant::now();
        handle.shutdown().await;
        assert!(asked.elapsed() >= LAST_EVENT_WITHIN, "{:?}", asked.elapsed());
    }
}
