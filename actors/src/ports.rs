//! What the actors need of the world, as traits. The technologies are in `adapters`, the scripted
//! stand-ins in `testing`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::domain::absence::{Doubt, Proof, ScanError};
use crate::domain::cause::Cause;
use crate::domain::diagnosis::{Evidence, Exit, Phase};
use crate::domain::event::{Event, EventKind};
use crate::domain::gpu::{DriverFaults, GpuFinding, GpuSnapshot};
use crate::domain::health::{Check, HealthFailure, InHand};
use crate::domain::id::{Incarnation, Sequence};
use crate::domain::incident::{Incident, Record};
use crate::domain::listener::Listener;
use crate::domain::liveness::{Pulse, Trial};
use crate::domain::loading::Download;
use crate::domain::report::{Role, Sample};
use crate::domain::spec::{ModelId, ModelReferenceError};
use crate::domain::target::{Arguments, Target};
use crate::domain::trust::{LaunchMethod, Memories, Memory};
use crate::domain::unit::UnitReading;

pub use crate::domain::event::OrphanOutcome;

/// An answer that takes time.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Starts vLLM, and finds one that an earlier supervisor started.
pub trait Launcher: fmt::Debug + Send + Sync + 'static {
    /// Makes ready for a launch: whatever is needed to own all that it will start. Nothing runs
    /// yet, and nothing is left if the claim is dropped. No more of it is forked than `method` says.
    ///
    /// # Errors
    ///
    /// The cause, when there can be no launch: the port taken, no log file, no way to own it.
    fn claim(
        &self,
        incarnation: Incarnation,
        target: &Target,
        method: LaunchMethod,
    ) -> Result<Arc<dyn Claim>, Cause>;

    /// Looks for what an earlier supervisor left. The answer is proven (pid, start time and boot),
    /// never guessed: an impostor is never taken for ours.
    ///
    /// # Errors
    ///
    /// What could not be looked at. Something may be there.
    fn find(&self, target: &Target) -> Pending<'static, Result<Found, ScanError>>;

    /// A launch of this will be claimed as soon as what runs now has ended: does what can be done
    /// for it until then, and nobody notices.
    fn prepare(&self, target: &Target, method: LaunchMethod);

    /// Keeps this of launches like this, for as long as vLLM and we are what they are.
    fn remember(&self, target: &Target, memory: &Memory);

    /// Nothing will be launched for now: lets go of whatever is kept ready for it.
    fn rest(&self);
}

/// Judges models before anything is done about them.
pub trait ModelCheck: fmt::Debug + Send + Sync + 'static {
    /// The model that is meant, named as vLLM is told it. At most one path is looked at.
    ///
    /// # Errors
    ///
    /// Why vLLM could not be asked for it.
    fn judge(&self, model: &ModelId) -> Result<ModelId, ModelReferenceError>;

    /// What these words tell vLLM besides.
    ///
    /// # Errors
    ///
    /// VLM-008, with each word that vLLM may not be told.
    fn arguments(&self, words: Vec<String>) -> Result<Arguments, Cause>;

    /// Whether this could be loaded, as far as that is known within half a second.
    ///
    /// # Errors
    ///
    /// Why it surely could not.
    fn check(&self, target: &Target) -> Pending<'static, Result<(), Cause>>;
}

/// What an earlier supervisor left.
#[derive(Clone, Debug)]
pub enum Found {
    /// Nothing.
    Nothing(Proof),
    /// A vLLM that is what we would launch.
    Ready {
        /// The launch it was.
        incarnation: Incarnation,
        /// What it serves: what was asked for, or what an earlier supervisor of this configuration has
        /// switched to.
        target: Target,
        /// How far it had come, as far as that was kept.
        phase: Phase,
        /// Everything of it. Whoever found it has it; dropping the claim does nothing.
        claim: Arc<dyn Claim>,
        /// Its main process.
        head: Arc<dyn Head>,
    },
    /// Something to be cleared away first: other settings, or a tree without its head.
    Remnant {
        /// The launch it was.
        incarnation: Incarnation,
        /// What is left of it.
        claim: Arc<dyn Claim>,
        /// Its main process, if that lives.
        head: Option<Arc<dyn Head>>,
    },
}

/// Everything that one launch starts: API server, engine, workers, helpers, and what they make.
///
/// A claim that was never released sweeps when it is dropped, so that nothing it started goes
/// without an owner.
pub trait Claim: fmt::Debug + Send + Sync + 'static {
    /// Starts vLLM, and answers long before it serves. Dropping the future interrupts it; what it
    /// had started by then is swept with the rest.
    fn start(&self) -> Pending<'static, Result<Arc<dyn Head>, Cause>>;

    /// Kills everything, removes what it made, and tells after a bounded time whether nothing is
    /// left. Nothing is started any more.
    fn sweep(&self) -> Pending<'static, Result<Proof, Doubt>>;

    /// The same without a runtime: for a guard's `Drop`.
    ///
    /// # Errors
    ///
    /// The doubt that remains.
    fn sweep_blocking(&self) -> Result<Proof, Doubt>;

    /// Looks at what the living have made, as long as they can be asked.
    fn take_stock(&self) -> Pending<'static, ()>;

    /// Lets go: what runs goes on without an owner.
    fn release(&self);

    /// It is known to serve.
    fn served(&self);

    /// The deaths from now on, the main process's apart. They are told to one listener.
    fn deaths(&self) -> Box<dyn DeathSource>;

    /// What the tree has done so far, and whether it is stopped.
    fn sample(&self) -> Pending<'static, Result<Sample, ScanError>>;

    /// What it has written so far, read from the beginning.
    fn evidence(&self) -> Pending<'static, Evidence>;
}

/// The main process of a launch.
pub trait Head: fmt::Debug + Send + Sync + 'static {
    /// Its pid.
    fn pid(&self) -> u32;

    /// How it was started; as from nothing, if it was found.
    fn method(&self) -> LaunchMethod;

    /// What is known of launches like it.
    fn memories(&self) -> Memories;

    /// Resolves when it has ended; at once if it already has.
    fn ended(&self) -> Pending<'static, Exit>;

    /// Signals it alone. A process that is gone is no error.
    fn signal(&self, signal: Signal);
}

/// A signal for the main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: end in order.
    Terminate,
    /// SIGKILL: end now.
    Kill,
}

/// The deaths in one tree.
pub trait DeathSource: Send {
    /// The next one. Dropping the future loses nothing.
    fn next_death(&mut self) -> Pending<'_, Death>;
}

/// The end of a process of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// The pid it had.
    pub pid: u32,
    /// What it was for.
    pub role: Role,
    /// How it ended.
    pub exit: Exit,
}

/// What vLLM writes, by launch.
pub trait Output: fmt::Debug + Send + Sync + 'static {
    /// The output of a launch, line by line, from its start or, where much is there already, from
    /// a bounded distance before its end; it may not have begun yet.
    fn lines(&self, incarnation: Incarnation) -> Box<dyn LineSource>;
}

/// Output that grows.
pub trait LineSource: Send {
    /// The next lines, when there are any. Lines are cut at `\n` and `\r`, capped in length, and
    /// never block the writer. Nothing is read on while they are not taken, and what has grown too
    /// far ahead meanwhile is passed over. Dropping the future loses nothing.
    fn next_lines(&mut self) -> Pending<'_, Vec<String>>;
}

/// Measures what comes of models over the network.
pub trait Downloads: fmt::Debug + Send + Sync + 'static {
    /// What comes of this model from now on.
    fn follow(&self, target: &Target) -> Box<dyn DownloadMeter>;
}

/// A download that grows.
pub trait DownloadMeter: Send {
    /// How much has come, once it is more than before; never of what is not downloaded, or cannot be
    /// measured.
    fn next_growth(&mut self) -> Pending<'_, Download>;
}

/// Finds out who listens where vLLM should, before it is spoken to.
pub trait Listeners: fmt::Debug + Send + Sync + 'static {
    /// Who it is now.
    fn look(&self) -> Pending<'static, Listener>;

    /// How many clients are connected there; `None` if nobody can say.
    fn clients(&self) -> Pending<'static, Option<u64>>;
}

/// Asks a vLLM how it is.
pub trait Probe: fmt::Debug + Send + Sync + 'static {
    /// `/health`, then whether `/v1/models` lists `model`.
    fn check(&self, name: &str) -> Pending<'static, Check>;

    /// What it makes of a fixed prompt, greedily; `None` if that cannot be had of this model, or not in
    /// time.
    fn complete(&self, name: &str) -> Pending<'static, Option<String>>;

    /// What vLLM's counters say of its engine; `None` if they cannot be had, now or ever.
    fn pulse(&self) -> Pending<'static, Option<Pulse>>;

    /// Has it make one token.
    fn try_token(&self, name: &str) -> Pending<'static, Trial>;

    /// What the server has in hand; `None` if that will never be told, because it does not count,
    /// or nobody listens.
    ///
    /// # Errors
    ///
    /// Why it could not be asked this time. It may have requests in hand.
    fn in_hand(&self) -> Pending<'static, Result<Option<InHand>, HealthFailure>>;
}

/// Asks a service manager about the unit that it runs vLLM as.
pub trait UnitSource: fmt::Debug + Send + Sync + 'static {
    /// What it says of the unit, from now on.
    fn follow(&self) -> Box<dyn UnitReadings>;
}

/// What a service manager says of a unit, in its order.
pub trait UnitReadings: Send {
    /// How the unit is, at first; then how it has become, each time that it changes, and that nobody can
    /// say, when that is so.
    fn next_reading(&mut self) -> Pending<'_, UnitReading>;
}

/// Looks at the GPUs on a thread of its own, which may hang without hurting anyone.
pub trait GpuSource: fmt::Debug + Send + Sync + 'static {
    /// The latest look. The first value is [`GpuReading::Pending`]; the sender is dropped when the
    /// source has ended.
    fn readings(&self) -> watch::Receiver<GpuReading>;

    /// The faults that the driver has told of by itself since the source was begun.
    fn faults(&self) -> watch::Receiver<DriverFaults>;

    /// The pause between two readings.
    fn interval(&self) -> Duration;

    /// Does not wait for the pause to end.
    fn look_now(&self);
}

/// Keeps which GPUs cannot be used, where it survives us.
pub trait Quarantine: fmt::Debug + Send + Sync + 'static {
    /// These, and no others, forbid to run anything on their GPUs from now on.
    fn keep(&self, findings: &[GpuFinding]);
}

/// What came of looking at the GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuReading {
    /// Nothing has come back yet.
    Pending,
    /// What was seen.
    Seen(GpuSnapshot),
    /// There is nothing to look at, and why.
    Unavailable(String),
}

/// Keeps what happened where it survives us, and tells it again.
pub trait Journal: fmt::Debug + Send + Sync + 'static {
    /// Numbers an event and keeps it. Returns before it is written; one that cannot be written is
    /// a hole that readers see, and never stops the service.
    fn event(&self, event: Event) -> Arc<Event>;

    /// Keeps an entry of the history.
    fn record(&self, record: Record);

    /// As [`event`](Self::event), of what became of a process whose owner ended.
    fn orphaned(&self, ended: &Orphaned) -> Arc<Event>;

    /// What has happened from this number on, those of earlier supervisors included.
    fn events(&self, from: Sequence) -> Box<dyn PastEvents>;

    /// The latest incidents, oldest first, those of earlier supervisors included. How many is the
    /// adapter's to say.
    fn history(&self) -> Pending<'_, Vec<Incident>>;

    /// Resolves when everything given so far has been written or given up, and after a few seconds
    /// in any case.
    fn flushed(&self) -> Pending<'static, ()>;

    /// The same, at an orderly end: the next supervisor goes on at the next number.
    fn closed(&self) -> Pending<'static, ()>;
}

/// Kept events, told again in the order of their numbers.
pub trait PastEvents: Send {
    /// The next few. After [`Page::End`] one may ask again for what has been kept since.
    fn next_page(&mut self) -> Pending<'_, Page>;
}

/// Some kept events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// These; none of them is no end yet. A number left out is an event that is not kept.
    Events(Vec<Event>),
    /// There are no more for now.
    End {
        /// The last number given; what was not told up to there is not kept.
        through: Sequence,
    },
}

/// Hears, from whoever holds a launch, what became of it. As long as one of these is held, the
/// supervisor's last event is still to come.
pub trait OrphanLog: fmt::Debug + Send + Sync + 'static {
    /// Tells it to everybody who keeps or follows events.
    fn orphaned(&self, ended: &Orphaned);
}

/// What became of a process whose owner ended without having stopped it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphaned {
    /// When.
    pub at: SystemTime,
    /// Which launch.
    pub incarnation: Incarnation,
    /// The pid of its main process, if that had been started.
    pub pid: Option<u32>,
    /// What was to become of it.
    pub outcome: OrphanOutcome,
    /// What outlives its killing, or could not be looked at; `None` if it is proven gone, or kept.
    pub left: Option<Doubt>,
}

impl Orphaned {
    /// The event that it is, without a number.
    pub fn event(&self) -> Event {
        let Self { at, incarnation, pid, outcome, .. } = *self;
        let left = self.left.as_ref().map(ToString::to_string);
        let kind = EventKind::Orphaned { pid, outcome, left };
        Event { sequence: Sequence::NONE, at, incarnation, kind }
    }
}
