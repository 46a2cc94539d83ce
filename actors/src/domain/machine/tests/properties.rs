//! What holds after any sequence of inputs whatever.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::script::{ensure, load, load_by_program, noon, restart, spec, start, stop};
use super::world::about;
use super::world::{OrphanOutcome, World};
use crate::domain::event::{Event, EventKind};
use crate::domain::id::{Incarnation, Sequence};
use crate::domain::input::{Asker, Effect, Input, Reaction, Request, StopMode};
use crate::domain::machine::{Machine, Resume};
use crate::domain::moment::Moment;
use crate::domain::restart::{RESTART_WINDOW, RestartPolicy};
use crate::domain::spec::{ModelId, ServiceSpec};
use crate::domain::state::ServiceState;
use crate::domain::ticket::Ticket;

/// Where the journal of the earlier supervisor ended.
const RESUME: Resume = Resume { sequence: Sequence::new(41), incarnation: Incarnation::new(7) };

proptest! {
    // A failure is told with all its moves; a file of seeds would be left behind.
    #[test]
    fn whatever_happens_the_machine_keeps_its_promises(
        world in worlds(),
        max_restarts in 1..5_u32,
        moves in vec(moves(), 1..200),
    ) {
        let mut story = Story::begin(world, max_restarts);
        for next in moves {
            story.play(next);
        }
    }
}

/// One move of a random story.
#[derive(Clone, Debug)]
enum Move {
    Command(Input),
    /// One of the things that the world may do now.
    World(Index),
    LoseProcessActor(OrphanOutcome),
    /// Something that was heard before, about an incarnation that is over.
    Stale(Index),
    Wait(Duration),
}

fn moves() -> impl Strategy<Value = Move> {
    let command = prop_oneof![
        3 => Just(start()),
        3 => Just(ensure()),
        1 => Just(load_by_program("org/b")),
        2 => Just(stop(StopMode::Graceful)),
        1 => Just(stop(StopMode::Immediate)),
        1 => Just(restart()),
        1 => Just(load("org/a")),
        1 => Just(load("org/b")),
    ];
    let wait = prop_oneof![
        Just(Duration::from_millis(1)),
        (1..5_u64).prop_map(Duration::from_secs),
        (5..70_u64).prop_map(Duration::from_secs),
    ];
    prop_oneof![
        3 => command.prop_map(Move::Command),
        30 => any::<Index>().prop_map(Move::World),
        1 => select(vec![OrphanOutcome::Killed, OrphanOutcome::Kept]).prop_map(Move::LoseProcessActor),
        2 => any::<Index>().prop_map(Move::Stale),
        8 => wait.prop_map(Move::Wait),
    ]
}

fn worlds() -> impl Strategy<Value = World> {
    let last = RESUME.incarnation.get();
    select(vec![World::default(), World::with_whole(last), World::with_headless(last)])
}

/// The machine and its world, and what an observer remembers of them.
struct Story {
    machine: Machine,
    world: World,
    now: Moment,
    heard: Vec<Input>,
    ticket: Ticket,
    observer: Observer,
}

impl Story {
    fn begin(world: World, max_restarts: u32) -> Self {
        let max_restarts = NonZeroU32::new(max_restarts).unwrap();
        let restart = RestartPolicy { max_restarts, ..RestartPolicy::default() };
        let machine = Machine::new(ServiceSpec { restart, ..spec() }, RESUME);
        let begin = machine.begin();
        let observer = Observer::new(max_restarts);
        let (heard, ticket) = (Vec::new(), Ticket::default());
        let mut story = Self { machine, world, now: noon(), heard, ticket, observer };
        story.publish(&begin);
        story
    }

    fn play(&mut self, next: Move) {
        match next {
            Move::Command(command) => self.take(command),
            Move::World(index) => {
                let possible = self.world.possible(self.now.monotonic);
                if possible.is_empty() {
                    return;
                }
                if let Some(input) = self.world.take(*index.get(&possible)) {
                    self.heard.push(input.clone());
                    self.take(input);
                }
            }
            Move::LoseProcessActor(outcome) => {
                let input = self.world.lose_actor(outcome);
                self.take(input);
            }
            Move::Stale(index) => {
                let last = self.machine.incarnation();
                let is_over = |input: &&Input| about(input).is_some_and(|about| about < last);
                let stale: Vec<_> = self.heard.iter().filter(is_over).cloned().collect();
                if !stale.is_empty() {
                    self.take(index.get(&stale).clone());
                }
            }
            Move::Wait(time) => {
                self.now.monotonic += time;
                self.now.wall += time;
            }
        }
    }

    fn take(&mut self, mut input: Input) {
        if let Input::Request(ticket, _) = &mut input {
            self.ticket = self.ticket.next();
            *ticket = self.ticket;
            self.observer.waiting.insert(*ticket);
        }
        self.observer.hears(&input);
        let reaction = self.machine.on(input, self.now);
        self.publish(&reaction);
        let tag = self.machine.state().tag();
        assert_eq!(self.observer.state, tag, "the events tell of another state");
        assert_eq!(
            &self.observer.model,
            &self.machine.target().model,
            "the events tell of another model"
        );
        if matches!(tag, ServiceState::Stopped | ServiceState::Failed | ServiceState::Running) {
            assert!(self.observer.waiting.is_empty(), "somebody waits for more than {tag}");
        }
        if matches!(tag, ServiceState::Stopped | ServiceState::Failed) {
            assert!(self.world.is_empty(), "{tag} with something alive: {:?}", self.world);
        }
    }

    fn publish(&mut self, reaction: &Reaction) {
        for event in &reaction.events {
            self.observer.sees(event, self.now);
        }
        for (ticket, outcome) in &reaction.answers {
            assert!(
                self.observer.waiting.remove(ticket),
                "{ticket} is answered twice: {outcome:?}"
            );
        }
        for effect in &reaction.effects {
            if let Effect::Launch { incarnation, .. } = effect {
                self.observer.launches(*incarnation, self.now);
            }
            self.world.obey(effect, self.now.monotonic);
        }
    }
}

/// Somebody who knows the promises, sees what the public sees, and is told of launches.
struct Observer {
    max_restarts: usize,
    /// The state, told from the events alone.
    state: ServiceState,
    /// What is to be served, told from the events alone.
    model: ModelId,
    /// Who waits for an answer.
    waiting: BTreeSet<Ticket>,
    sequence: Sequence,
    launched: Incarnation,
    /// Whether anybody wants the service up.
    wish: Wish,
    /// When the restart is due that was announced and has not been launched yet.
    announced: Option<Duration>,
    /// When restarts were launched, oldest first, since an operator last took it in hand.
    restarts: VecDeque<Duration>,
    /// The progress that was seen last, and of which launch.
    progress: (Incarnation, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Up,
    Down,
}

impl Observer {
    fn new(max_restarts: NonZeroU32) -> Self {
        Self {
            max_restarts: max_restarts.get() as usize,
            state: ServiceState::Unknown,
            model: spec().target.model,
            waiting: BTreeSet::new(),
            sequence: RESUME.sequence,
            launched: RESUME.incarnation,
            // What is found and adopted is wanted, until somebody says otherwise.
            wish: Wish::Up,
            announced: None,
            restarts: VecDeque::new(),
            progress: (Incarnation::NONE, 0),
        }
    }

    fn hears(&mut self, input: &Input) {
        let Input::Request(_, request) = input else { return };
        match request {
            Request::Stop(_) => {
                self.wish = Wish::Down;
                self.announced = None;
            }
            // Where it is up, coming up or given up, a program's wish changes nothing.
            Request::Ensure | Request::Load { asker: Asker::Program, .. } => {
                if matches!(
                    self.state,
                    ServiceState::Unknown | ServiceState::Stopping | ServiceState::Stopped
                ) {
                    self.wish = Wish::Up;
                    self.announced = None;
                }
            }
            Request::Start | Request::Restart | Request::Load { .. } => {
                self.wish = Wish::Up;
                self.announced = None;
                self.restarts.clear();
            }
        }
    }

    fn sees(&mut self, event: &Event, now: Moment) {
        assert_eq!(event.sequence, self.sequence.next(), "a gap before {event:?}");
        self.sequence = event.sequence;
        match &event.kind {
            EventKind::StateChanged { from, to, .. } => {
                assert_eq!(*from, self.state, "{event:?} leaves a state that it was not in");
                assert_ne!(from, to, "{event:?} changes nothing");
                self.state = *to;
            }
            EventKind::LoadProgressed { progress } => {
                let (incarnation, percent) = self.progress;
                assert!(
                    incarnation != event.incarnation || percent <= progress.percent,
                    "{event:?} runs back from {percent} %"
                );
                self.progress = (event.incarnation, progress.percent);
            }
            EventKind::RestartScheduled { delay, .. } => {
                self.announced = Some(now.monotonic + *delay);
            }
            EventKind::ModelWanted { from, to, .. } => {
                assert_eq!(*from, self.model, "{event:?} leaves a model that was not wanted");
                self.model = to.clone();
            }
            EventKind::LaunchTimed { .. }
            | EventKind::LaunchDistrusted { .. }
            | EventKind::StateExplained { .. }
            | EventKind::ServiceRecovered { .. }
            | EventKind::GpuFindingRaised { .. }
            | EventKind::GpuFindingCleared { .. }
            | EventKind::IncidentRecorded { .. }
            | EventKind::HealthChanged { .. }
            | EventKind::CleanupBlocked { .. }
            | EventKind::SupervisorEnded { .. }
            | EventKind::Orphaned { .. }
            | EventKind::ModelSwitched { .. } => {}
        }
    }

    fn launches(&mut self, incarnation: Incarnation, now: Moment) {
        assert!(incarnation > self.launched, "{incarnation} comes after {}", self.launched);
        self.launched = incarnation;
        assert_eq!(self.wish, Wish::Up, "{incarnation} is launched though nobody wants it");
        let Some(due) = self.announced.take() else { return };
        assert!(now.monotonic >= due, "{incarnation} is launched before its delay is over");
        self.restarts.push_back(now.monotonic);
        let start = now.monotonic.saturating_sub(RESTART_WINDOW);
        let in_window = self.restarts.iter().filter(|at| **at >= start).count();
        assert!(in_window <= self.max_restarts, "{in_window} restarts within {RESTART_WINDOW:?}");
    }
}
