//! Everything that can be reached, with time standing still and timers that ring whenever it is
//! worst: breadth first, by the machine and its world together.

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use super::cases::situation;
use super::script::{load, noon, spec, state_entered};
use super::world::{Fate, Fitness, Step, World};
use crate::domain::cause::{Cause, Code};
use crate::domain::input::{Input, Reaction, StopMode};
use crate::domain::machine::{Machine, Resume};
use crate::domain::restart::RestartPolicy;
use crate::domain::spec::ServiceSpec;
use crate::domain::state::ServiceState;

/// How far behind the process actor's reports may be; more of them say nothing new.
const LONGEST_MAIL: usize = 2;

#[test]
fn every_reachable_state_is_safe_and_leads_to_stopped_and_to_running() {
    let mut seen = HashSet::new();
    let mut states = HashSet::new();
    let mut queue: VecDeque<Node> = Node::beginnings().into();
    while let Some(node) = queue.pop_front() {
        if !seen.insert(node.shape()) {
            continue;
        }
        states.insert(node.state());
        node.reaches(&Input::Stop(StopMode::Graceful), ServiceState::Stopped);
        node.reaches(&Input::Start, ServiceState::Running);
        queue.extend(node.successors());
    }
    assert_eq!(states, HashSet::from(ServiceState::ALL));
}

/// A machine and its world at some point.
#[derive(Clone, Debug)]
struct Node {
    machine: Machine,
    world: World,
}

impl Node {
    /// What an earlier supervisor may have left: nothing, a whole vLLM, or the rest of one.
    fn beginnings() -> Vec<Self> {
        let restart = RestartPolicy { max_restarts: NonZeroU32::MIN, ..RestartPolicy::default() };
        let spec = ServiceSpec {
            restart,
            // Whenever the timer rings, it has been silent for too long.
            start_timeout: Duration::ZERO,
            model_load_timeout: Duration::ZERO,
            max_consecutive_failures: NonZeroU32::MIN,
            ..spec()
        };
        let worlds = [World::default(), World::with_whole(0), World::with_headless(0)];
        worlds
            .map(|world| {
                let machine = Machine::new(spec.clone(), Resume::default());
                let begin = machine.begin();
                let mut node = Self { machine, world };
                node.carry_out(&begin);
                node
            })
            .into()
    }

    fn state(&self) -> ServiceState {
        self.machine.state().tag()
    }

    /// What tells this node from others, as far as the future is concerned: launches are counted
    /// from the last one, and the ledger is what it would say next.
    fn shape(&self) -> String {
        let policy = &self.machine.spec().restart;
        let cause = Cause::new(Code::EngineDied, "");
        let verdict = self.machine.ledger().clone().judge(policy, &cause, None, noon());
        let situation = situation(self.machine.state());
        let models = (self.machine.model(), &self.machine.fallback);
        let world = self.world.shape(self.machine.incarnation());
        format!("{situation:?} {models:?} {verdict:?} {world:?}")
    }

    fn successors(&self) -> Vec<Self> {
        let commands = [
            Input::Start,
            Input::Ensure,
            Input::Stop(StopMode::Graceful),
            Input::Stop(StopMode::Immediate),
            Input::Restart,
            load("org/a"),
            load("org/b"),
        ];
        let mut after: Vec<_> = commands.into_iter().map(|command| self.after(command)).collect();
        after.extend(self.steps().into_iter().map(|step| self.after_step(step)));
        for fate in [Fate::Killed, Fate::Kept] {
            let mut node = self.clone();
            let input = node.world.lose_actor(fate);
            after.push(node.after(input));
        }
        after.retain(|node| node.world.unheard() <= LONGEST_MAIL);
        after
    }

    /// What may happen, but for the progress of a load, which changes nothing.
    fn steps(&self) -> Vec<Step> {
        let mut steps = self.world.possible(Duration::MAX);
        steps.retain(|step| !matches!(step, Step::LoadFurther(_)));
        steps
    }

    fn after_step(&self, step: Step) -> Self {
        let mut node = self.clone();
        match node.world.take(step) {
            Some(input) => node.after(input),
            None => node,
        }
    }

    fn after(&self, input: Input) -> Self {
        let mut node = self.clone();
        let reaction = node.machine.on(input, noon());
        let last = reaction.events.iter().rev().find_map(|event| state_entered(&event.kind));
        assert_eq!(last.unwrap_or(self.state()), node.state(), "events and state differ: {self:?}");
        node.carry_out(&reaction);
        let is_down = matches!(node.state(), ServiceState::Stopped | ServiceState::Failed);
        assert!(!is_down || node.world.is_empty(), "down with something alive: {node:?}");
        node
    }

    fn carry_out(&mut self, reaction: &Reaction) {
        for effect in &reaction.effects {
            self.world.obey(effect, Duration::ZERO);
        }
    }

    /// That the command leads to the state, in a world where nothing more goes wrong.
    fn reaches(&self, command: &Input, goal: ServiceState) {
        let mut node = self.after(command.clone());
        for _ in 0..30 {
            if node.state() == goal && node.world.unheard() == 0 {
                return;
            }
            let Some(step) = node.steps().into_iter().filter_map(benign).min().map(|it| it.1)
            else {
                break;
            };
            node = node.after_step(step);
        }
        panic!("{command:?} does not lead to {goal} but to {node:?} from {self:?}");
    }
}

/// A step of a world that means well, with its turn: reports are heard before anything else
/// happens, and what is to end ends before anything is waited for.
fn benign(step: Step) -> Option<(u8, Step)> {
    match step {
        Step::Hear => Some((0, step)),
        Step::Start(_) => Some((1, step)),
        Step::Vanish(_) => Some((2, step)),
        Step::Find(Fitness::Fit) => Some((3, step)),
        Step::PassCheck(_) => Some((4, step)),
        Step::RingTimer(_) => Some((5, step)),
        Step::FailToStart(_)
        | Step::Die(_)
        | Step::Linger(_)
        | Step::Find(Fitness::Unfit)
        | Step::FailCheck(_)
        | Step::MissModel(_)
        | Step::LoadFurther(_) => None,
    }
}
