//! A whole supervisor in a scripted world, for tests with paused time.

use std::fmt::Write as _;
use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorRef, Message};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::domain::event::{Event, EventKind};
use crate::domain::gpu::{Devices, GpuRules, XidPolicy};
use crate::domain::machine::Resume;
use crate::domain::restart::RestartPolicy;
use crate::domain::spec::{ExitPolicy, LaunchPolicy, LifecycleMode, ModelId, ServiceSpec};
use crate::domain::state::ServiceState;
use crate::domain::target::{Arguments, Target};
use crate::domain::ticket;
use crate::root::{Answer, Command, Link, RootArgs, RootMessage, RootSupervisor, Snapshot};

pub use crate::testing::world::World;

/// Longer than anything takes that is going to happen. Paused time runs as fast as everybody
/// waits, so this is no wait but a verdict.
const DEADLINE: Duration = Duration::from_secs(3600);

/// The pause between two looks at a predicate.
const TICK: Duration = Duration::from_millis(1);

/// Events that a subscriber may be behind.
const EVENTS: usize = 1024;

/// The figures of a supervisor under test.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The figures that the rules decide by.
    pub spec: ServiceSpec,
    /// How often a server that stays healthy is reported.
    pub health_interval: Duration,
}

impl Plan {
    /// The defaults, with this end.
    pub fn new(on_exit: ExitPolicy) -> Self {
        Self {
            spec: ServiceSpec {
                mode: LifecycleMode::Managed,
                unit: None,
                target: target("org/first"),
                restart: RestartPolicy::default(),
                start_timeout: Duration::from_secs(30),
                model_load_timeout: Duration::from_secs(300),
                grace: Duration::from_secs(10),
                max_consecutive_failures: NonZeroU32::MIN.saturating_add(2),
                launch: LaunchPolicy::Cold,
                on_exit,
                xids: XidPolicy::default(),
            },
            health_interval: Duration::from_secs(60),
        }
    }
}

/// A model of this name.
///
/// # Panics
///
/// When no model can have this name.
pub fn model(name: &str) -> ModelId {
    ModelId::new(name).expect("a test names models well")
}

/// A model of this name, and nothing else that vLLM is told.
pub fn target(name: &str) -> Target {
    Target { model: model(name), arguments: Arguments::default() }
}

/// A running supervisor.
///
/// When it is dropped, it is killed, and it is a failure if two vLLM were ever alive at once.
#[derive(Debug)]
pub struct Harness {
    /// What it meets.
    pub world: World,
    root: ActorRef<RootMessage>,
    ended: Option<JoinHandle<()>>,
    snapshots: watch::Receiver<Snapshot>,
    events: broadcast::Sender<Arc<Event>>,
}

impl Harness {
    /// A supervisor in this world.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub async fn begin(world: World, plan: Plan) -> Self {
        let first =
            Snapshot::initial(plan.spec.target.model.clone(), plan.spec.restart.max_restarts.get());
        let (present, snapshots) = watch::channel(first);
        let events = broadcast::Sender::new(EVENTS);
        let adapters = world.adapters(&plan.spec);
        let args = RootArgs {
            spec: plan.spec,
            health_interval: plan.health_interval,
            gpus: GpuRules::new(XidPolicy::default(), Devices::First(1)),
            gpu_findings: Vec::new(),
            adapters,
            resume: Resume::default(),
            snapshots: present,
            events: events.clone(),
        };
        let (root, ended) =
            Actor::spawn(None, RootSupervisor, args).await.expect("the supervisor starts");
        Self { world, root, ended: Some(ended), snapshots, events }
    }

    /// Gives the supervisor a place under this actor.
    ///
    /// # Panics
    ///
    /// When the actor is ending.
    pub async fn link(&self, parent: ActorCell) -> Link {
        let snapshots = self.snapshots.clone();
        Link::spawn(self.root.clone(), snapshots, parent).await.expect("a parent that lives")
    }

    /// Tells the supervisor something.
    pub fn send(&self, message: RootMessage) {
        // One that has ended hears nothing, which is for the test to find out.
        drop(self.root.send_message(message));
    }

    /// Gives a command: `harness.ask(|reply| Command::Start { reply })`.
    pub fn ask(&self, command: impl FnOnce(Answer) -> Command) -> Outcome {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply.into()).into());
        Outcome(answer)
    }

    /// Asks the supervisor for the present.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub async fn ask_for_snapshot(&self) -> Snapshot {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Snapshot { reply: reply.into() }.into());
        in_time(answer).await.expect("the supervisor has ended")
    }

    /// The present, as last published.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    /// The present, followed.
    pub fn follow(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }

    /// Waits until the present is so.
    ///
    /// # Panics
    ///
    /// When that does not happen; the events tell what did.
    pub async fn wait_until(&self, is_so: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let mut snapshots = self.snapshots.clone();
        match timeout(DEADLINE, snapshots.wait_for(is_so)).await {
            Ok(Ok(snapshot)) => snapshot.clone(),
            Ok(Err(ended)) => panic!("the supervisor has ended: {ended}{}", self.story()),
            Err(late) => panic!("it does not happen: {late}{}", self.story()),
        }
    }

    /// Lets as much time pass, throughout which this must be so.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub async fn stays_for(&self, long: Duration, is_so: impl Fn(&Snapshot) -> bool) {
        let end = Instant::now() + long;
        while Instant::now() < end {
            assert!(is_so(&self.snapshot()), "it does not stay so{}", self.story());
            sleep(TICK).await;
        }
    }

    /// Waits until the service is in this state.
    ///
    /// # Panics
    ///
    /// As [`Self::wait_until`].
    pub async fn wait_for(&self, state: ServiceState) -> Snapshot {
        self.wait_until(|snapshot| snapshot.state == state).await
    }

    /// Waits until the supervisor has ended, and nobody is left who could tell of it.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub async fn wait_for_end(&mut self) {
        if let Some(ended) = self.ended.take() {
            in_time(ended).await.expect("the supervisor's task has panicked");
        }
        // Guards may act on threads of their own, which paused time does not wait for.
        let mut snapshots = self.snapshots.clone();
        while snapshots.changed().await.is_ok() {}
    }

    /// Kills the supervisor, as a bug in ractor would.
    pub fn kill(&self) {
        self.root.kill();
    }

    /// The events so far.
    pub fn events(&self) -> Vec<Event> {
        self.world.journal.events()
    }

    /// The states so far, the first one left out.
    pub fn path(&self) -> Vec<ServiceState> {
        let states = self.events().into_iter().filter_map(|event| match event.kind {
            EventKind::StateChanged { to, .. } => Some(to),
            EventKind::LoadProgressed { .. }
            | EventKind::LaunchTimed { .. }
            | EventKind::LaunchDistrusted { .. }
            | EventKind::StateExplained { .. }
            | EventKind::ServiceRecovered { .. }
            | EventKind::GpuFindingRaised { .. }
            | EventKind::GpuFindingCleared { .. }
            | EventKind::RestartScheduled { .. }
            | EventKind::IncidentRecorded { .. }
            | EventKind::HealthChanged { .. }
            | EventKind::ModelWanted { .. }
            | EventKind::CleanupBlocked { .. }
            | EventKind::SupervisorEnded { .. }
            | EventKind::Orphaned { .. }
            | EventKind::ModelSwitched { .. } => None,
        });
        states.collect()
    }

    /// The events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    /// The child actor that takes messages of this kind.
    ///
    /// # Panics
    ///
    /// When there is not exactly one.
    pub fn child<M: Message>(&self) -> ActorCell {
        let mut children = self.root.get_cell().get_children();
        children.retain(|child| child.is_message_type_of::<M>() == Some(true));
        match <[ActorCell; 1]>::try_from(children) {
            Ok([child]) => child,
            Err(children) => panic!("{} children take such messages", children.len()),
        }
    }

    /// Kills a child actor, and waits until another has taken its place.
    ///
    /// # Panics
    ///
    /// When none takes it.
    pub async fn replace<M: Message>(&self) {
        let child = self.child::<M>();
        child.kill();
        eventually("the child is replaced", || {
            let is_fresh = |other: &ActorCell| {
                other.get_id() != child.get_id() && other.is_message_type_of::<M>() == Some(true)
            };
            self.root.get_cell().get_children().iter().any(is_fresh)
        })
        .await;
    }

    fn story(&self) -> String {
        let mut story = format!("; the present is {:#?}\nthe events were:", self.snapshot());
        for event in self.events() {
            // Writing to a string cannot fail.
            write!(story, "\n{event:?}").ok();
        }
        story
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.root.kill();
        let most = self.world.launcher.most_alive();
        if !std::thread::panicking() {
            assert!(most <= 1, "{most} vLLM were alive at once{}", self.story());
        }
    }
}

/// The answer to a command, to come.
#[derive(Debug)]
pub struct Outcome(oneshot::Receiver<ticket::Outcome>);

impl Outcome {
    /// The answer; `None` if the supervisor has dropped the question.
    ///
    /// # Panics
    ///
    /// When neither happens.
    pub async fn answer(self) -> Option<ticket::Outcome> {
        in_time(self.0).await.ok()
    }

    /// Whether there is no answer yet.
    pub fn is_open(&mut self) -> bool {
        self.0.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }
}

/// What comes of a wait, if it is over within an hour of paused time.
///
/// # Panics
///
/// When it is not.
pub async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    timeout(DEADLINE, wait).await.expect("nothing came in an hour")
}

/// Waits until something is so that nobody tells of.
///
/// # Panics
///
/// When it does not become so within ten minutes of paused time.
pub async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE / 6;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(TICK).await;
    }
}
