//! The place of a supervisor under an actor of the program that embeds it.
//!
//! ractor kills the children of an actor that ends, at once, and runs nothing of them (`ractor`
//! 0.16.5, `ActorLifecycleGuard::cleanup`): linked itself, the root could not stop vLLM in order.
//! So what is linked is this actor, which owns nothing. It passes commands on to the root. However
//! it ends, the root is told to end, in order; however the root ends, it ends too, and its parent
//! is told by the usual event: `ActorTerminated` after an orderly end, else `ActorFailed`.

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::watch;

use crate::domain::event::EndReason;
use crate::message::messages;
use crate::root::message::{Command, RootMessage};
use crate::root::snapshot::Snapshot;
use crate::tell::{OwnedTask, tell};

/// A supervisor's place under another actor.
#[derive(Debug)]
pub struct Link {
    /// Takes the commands of the supervisor; its messages are the parent's child's.
    pub actor: ActorRef<LinkMessage>,
    /// Tells the root that the link has ended. It does not depend on the state of the link, which
    /// goes to the parent when the link is killed.
    _watch: OwnedTask,
}

impl Link {
    /// Gives the supervisor a place under `parent`.
    ///
    /// # Errors
    ///
    /// When the parent is ending.
    pub async fn spawn(
        root: ActorRef<RootMessage>,
        snapshots: watch::Receiver<Snapshot>,
        parent: ActorCell,
    ) -> Result<Self, SpawnErr> {
        let args = LinkArgs { root: root.clone(), snapshots };
        let actor = Actor::spawn_linked(None, LinkActor, args, parent).await?.0;
        let link = actor.get_cell();
        let watch = OwnedTask::begin(root.get_cell(), async move {
            // Without a limit there is no timeout.
            link.wait(None).await.ok();
            tell(&root, RootMessage::Command(Command::Shutdown));
        });
        Ok(Self { actor, _watch: watch })
    }
}

/// See the module.
#[derive(Debug)]
pub struct LinkActor;

/// What a [`LinkActor`] is told.
#[derive(Debug)]
pub enum LinkMessage {
    /// Somebody wants something of the supervisor.
    Command(Command),
    /// The supervisor has ended (from itself).
    Ended(EndReason),
}

messages!(LinkMessage);

impl From<Command> for LinkMessage {
    fn from(command: Command) -> Self {
        Self::Command(command)
    }
}

impl TryFrom<LinkMessage> for Command {
    type Error = LinkMessage;

    fn try_from(message: LinkMessage) -> Result<Self, LinkMessage> {
        if let LinkMessage::Command(command) = message { Ok(command) } else { Err(message) }
    }
}

/// What a [`LinkActor`] is given.
#[derive(Debug)]
pub struct LinkArgs {
    root: ActorRef<RootMessage>,
    snapshots: watch::Receiver<Snapshot>,
}

/// The state of a [`LinkActor`].
#[derive(Debug)]
pub struct LinkState {
    root: ActorRef<RootMessage>,
    /// Waits for the end of the supervisor.
    _end: OwnedTask,
}

/// The supervisor ended otherwise than in order.
#[derive(Debug, thiserror::Error)]
#[error("the supervisor of vLLM was killed")]
pub struct SupervisorKilled;

#[ractor::actor(message = LinkMessage, state = LinkState, arguments = LinkArgs)]
impl LinkActor {
    async fn pre_start(
        &self,
        myself: ActorRef<LinkMessage>,
        LinkArgs { root, mut snapshots }: LinkArgs,
    ) -> Result<LinkState, ActorProcessingErr> {
        let link = myself.clone();
        let end = OwnedTask::begin(myself.get_cell(), async move {
            let ended = snapshots.wait_for(|snapshot| snapshot.ended.is_some()).await;
            let reason = ended.ok().and_then(|snapshot| snapshot.ended);
            tell(&link, LinkMessage::Ended(reason.unwrap_or(EndReason::Killed)));
        });
        Ok(LinkState { root, _end: end })
    }

    async fn handle(
        &self,
        myself: ActorRef<LinkMessage>,
        message: LinkMessage,
        state: &mut LinkState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            LinkMessage::Command(command) => tell(&state.root, RootMessage::Command(command)),
            LinkMessage::Ended(EndReason::ShutDown) => myself.stop(None),
            LinkMessage::Ended(EndReason::ActorsDied | EndReason::Killed) => {
                return Err(SupervisorKilled.into());
            }
        }
        Ok(())
    }

    /// Whoever stops this actor and waits for it has waited for the supervisor.
    async fn post_stop(
        &self,
        _: ActorRef<LinkMessage>,
        state: &mut LinkState,
    ) -> Result<(), ActorProcessingErr> {
        tell(&state.root, RootMessage::Command(Command::Shutdown));
        // Without a limit there is no timeout.
        state.root.wait(None).await.ok();
        Ok(())
    }
}
