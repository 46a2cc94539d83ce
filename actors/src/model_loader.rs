//! The actor that tells from vLLM's output, and from what it downloads, how far the load is.
//!
//! It reads the output of one launch at a time, from the launch until it is served or gone. It
//! never decides that a load has stalled: it tells the root what it reads, and every ten seconds
//! where the load stands.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ractor::{ActorProcessingErr, ActorRef, DerivedActorRef};
use tokio::sync::Semaphore;

use crate::domain::id::Incarnation;
use crate::domain::loading::{Download, LoadNews, LoadTracker};
use crate::domain::report::LoaderReport;
use crate::domain::target::Target;
use crate::ports::{Downloads, Output};
use crate::tell::{OwnedTask, report, tell, tell_after};

mod message;

pub use message::ModelLoaderMessage;

/// Longest time without a word on a load that goes on.
const STANDING_INTERVAL: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct ModelLoaderActor;

/// What a [`ModelLoaderActor`] is given.
#[derive(Debug)]
pub struct ModelLoaderArgs {
    /// What vLLM writes.
    pub output: Arc<dyn Output>,
    /// What it downloads.
    pub downloads: Arc<dyn Downloads>,
    /// Where reports go.
    pub root: DerivedActorRef<LoaderReport>,
}

/// The state of a [`ModelLoaderActor`].
#[derive(Debug)]
pub struct ModelLoaderState {
    /// What it was given.
    args: ModelLoaderArgs,
    /// The load it follows, if any.
    load: Option<Load>,
}

/// A load being followed.
#[derive(Debug)]
struct Load {
    /// Which launch.
    incarnation: Incarnation,
    /// What its output has told so far.
    tracker: LoadTracker,
    /// Reads the output.
    _reader: OwnedTask,
    /// Measures what is downloaded.
    _meter: OwnedTask,
    /// The timer of the next word on where it stands.
    standing: OwnedTask,
}

#[ractor::actor(message = ModelLoaderMessage, state = ModelLoaderState, arguments = ModelLoaderArgs)]
impl ModelLoaderActor {
    async fn pre_start(
        &self,
        _myself: ActorRef<ModelLoaderMessage>,
        args: ModelLoaderArgs,
    ) -> Result<ModelLoaderState, ActorProcessingErr> {
        Ok(ModelLoaderState { args, load: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<ModelLoaderMessage>,
        message: ModelLoaderMessage,
        state: &mut ModelLoaderState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ModelLoaderMessage::Follow { incarnation, target } => {
                state.follow(&myself, incarnation, target);
            }
            ModelLoaderMessage::Read { incarnation, lines, .. } => {
                state.read(&myself, incarnation, &lines);
            }
            ModelLoaderMessage::Downloaded { incarnation, download } => {
                state.downloaded(&myself, incarnation, download);
            }
            ModelLoaderMessage::StandingDue { incarnation } => state.stand(&myself, incarnation),
            ModelLoaderMessage::Cease => state.load = None,
        }
        Ok(())
    }
}

impl ModelLoaderState {
    fn follow(
        &mut self,
        myself: &ActorRef<ModelLoaderMessage>,
        incarnation: Incarnation,
        target: Target,
    ) {
        let (mut source, actor) = (self.args.output.lines(incarnation), myself.clone());
        let reader = OwnedTask::begin(myself.get_cell(), async move {
            // One batch is in the mailbox, no more: nothing is read on until it has been taken.
            let in_flight = Arc::new(Semaphore::new(1));
            while let Ok(turn) = Arc::clone(&in_flight).acquire_owned().await {
                let lines = source.next_lines().await;
                tell(&actor, ModelLoaderMessage::Read { incarnation, lines, turn });
            }
        });
        let (mut meter, actor) = (self.args.downloads.follow(&target), myself.clone());
        let meter = OwnedTask::begin(myself.get_cell(), async move {
            loop {
                let download = meter.next_growth().await;
                tell(&actor, ModelLoaderMessage::Downloaded { incarnation, download });
            }
        });
        self.load = Some(Load {
            incarnation,
            tracker: LoadTracker::new(target.model, SystemTime::now()),
            _reader: reader,
            _meter: meter,
            standing: standing(myself, incarnation),
        });
    }

    fn read(
        &mut self,
        myself: &ActorRef<ModelLoaderMessage>,
        incarnation: Incarnation,
        lines: &[String],
    ) {
        let root = self.args.root.clone();
        let Some(load) = self.current(incarnation) else { return };
        let mut all: Vec<_> = lines.iter().flat_map(|line| load.tracker.read(line)).collect();
        // Only this can come with every line; once a batch is enough.
        all.dedup_by(|next, news| (&*next, &*news) == (&LoadNews::Listens, &LoadNews::Listens));
        for news in all {
            if matches!(news, LoadNews::Progressed(_)) {
                load.standing = standing(myself, incarnation);
            }
            report(&root, LoaderReport { incarnation, news });
        }
    }

    fn downloaded(
        &mut self,
        myself: &ActorRef<ModelLoaderMessage>,
        incarnation: Incarnation,
        download: Download,
    ) {
        let root = self.args.root.clone();
        let Some(load) = self.current(incarnation) else { return };
        if let Some(news) = load.tracker.downloaded(download) {
            load.standing = standing(myself, incarnation);
            report(&root, LoaderReport { incarnation, news });
        }
    }

    fn stand(&mut self, myself: &ActorRef<ModelLoaderMessage>, incarnation: Incarnation) {
        let root = self.args.root.clone();
        let Some(load) = self.current(incarnation) else { return };
        load.standing = standing(myself, incarnation);
        let news = LoadNews::Stands(load.tracker.progress().clone());
        report(&root, LoaderReport { incarnation, news });
    }

    fn current(&mut self, incarnation: Incarnation) -> Option<&mut Load> {
        self.load.as_mut().filter(|load| load.incarnation == incarnation)
    }
}

fn standing(myself: &ActorRef<ModelLoaderMessage>, incarnation: Incarnation) -> OwnedTask {
    tell_after(myself, STANDING_INTERVAL, ModelLoaderMessage::StandingDue { incarnation })
}

#[cfg(test)]
mod tests;
