//! Everything that can be reached, with time standing still and timers that ring whenever it is
//! worst: breadth first, by the machine and its world together.

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use super::cases::situation;
use super::script::{ensure, load, noon, restart, spec, start, state_entered, stop};
use super::world::{Fitness, OrphanOutcome, Step, World};
use crate::domain::cause::{Cause, Code};
use crate::domain::input::{Input, Reaction, Request, StopMode};
use crate::domain::machine::{Machine, Resume};
use crate::domain::restart::{Occasion, RestartPolicy};
use crate::domain::spec::ServiceSpec;
use crate::domain::state::{
    Crashed, Next, ServiceState, State, Stopping, Then, Undecided, Unknown,
};
use crate::domain::target::Wanted;
use crate::domain::ticket::{CommandError, Goal, Outcome, Ticket};

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
        node.reaches(&stop(StopMode::Graceful), ServiceState::Stopped);
        node.reaches(&start(), ServiceState::Running);
        queue.extend(node.successors());
    }
    assert_eq!(states, HashSet::from(ServiceState::ALL));
}

/// A machine and its world at some point.
#[derive(Clone, Debug)]
struct Node {
    machine: Machine,
    world: World,
    /// What somebody waits for. One is enough: the answer to a ticket does not depend on others.
    open: Option<Goal>,
}

/// The one that is followed.
const FOLLOWED: Ticket = Ticket::new(1);

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
                let mut node = Self { machine, world, open: None };
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
        let verdict =
            self.machine.ledger().clone().judge(policy, &cause, None, Occasion::Ended, noon());
        let situation = situation(self.machine.state());
        // What else of the state decides what follows.
        let more = match self.machine.state() {
            State::Starting(starting) => (Some(starting.silence), Some(starting.origin)),
            State::Unknown(Unknown { then: Then::Launch(origin), .. })
            | State::Stopping(Stopping { then: Then::Launch(origin), .. })
            | State::Crashed(Crashed { next: Next::RestartNow(origin), .. }) => {
                (None, Some(*origin))
            }
            State::Unknown(_)
            | State::Stopped
            | State::Running(_)
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => (None, None),
        };
        // What it was launched for decides only whether a taken port is waited for.
        let undecided = self.undecided().map(|it| (it.healthy_for.is_some(), &it.given_up));
        let models = self.machine.models();
        let world = self.world.shape(self.machine.incarnation());
        format!(
            "{situation:?} {more:?} {undecided:?} {models:?} {:?} {verdict:?} {world:?}",
            self.open
        )
    }

    fn undecided(&self) -> Option<&Undecided> {
        match self.machine.state() {
            State::Crashed(Crashed { next: Next::Undecided(undecided), .. }) => Some(undecided),
            _ => None,
        }
    }

    fn successors(&self) -> Vec<Self> {
        let commands = [
            start(),
            ensure(),
            stop(StopMode::Graceful),
            stop(StopMode::Immediate),
            restart(),
            load("org/a"),
            load("org/b"),
        ];
        let mut after: Vec<_> = commands.into_iter().map(|command| self.after(command)).collect();
        after.extend(self.steps().into_iter().map(|step| self.after_step(step)));
        for outcome in [OrphanOutcome::Killed, OrphanOutcome::Kept] {
            let mut node = self.clone();
            let input = node.world.lose_actor(outcome);
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

    fn after(&self, mut input: Input) -> Self {
        let mut node = self.clone();
        if let Input::Request(ticket, request) = &mut input
            && node.open.is_none()
        {
            *ticket = FOLLOWED;
            node.open = Some(goal_of(request));
        }
        let reaction = node.machine.on(input, noon());
        let last = reaction.events.iter().rev().find_map(|event| state_entered(&event.kind));
        assert_eq!(last.unwrap_or(self.state()), node.state(), "events and state differ: {self:?}");
        node.carry_out(&reaction);
        if node.undecided().is_none() {
            node.world.diagnose_no_longer();
        }
        for (_, outcome) in reaction.answers.iter().filter(|(ticket, _)| *ticket == FOLLOWED) {
            let goal = node.open.take().expect("a ticket is answered once");
            assert!(node.is_right(&goal, outcome, &reaction), "{goal:?}: {outcome:?} in {node:?}");
        }
        let is_down = matches!(node.state(), ServiceState::Stopped | ServiceState::Failed);
        assert!(!is_down || node.world.is_empty(), "down with something alive: {node:?}");
        node
    }

    fn carry_out(&mut self, reaction: &Reaction) {
        for effect in &reaction.effects {
            self.world.obey(effect, Duration::ZERO);
        }
    }

    /// Whether this is the truth for somebody who waited for that.
    fn is_right(&self, goal: &Goal, outcome: &Outcome, reaction: &Reaction) -> bool {
        let state = self.machine.state();
        let serves = |wanted: Option<&Wanted>| match state {
            State::Running(running) => wanted.is_none_or(|wanted| wanted.is(&running.target)),
            _ => false,
        };
        let has_given_up = matches!(
            state,
            State::Failed { .. } | State::Crashed(Crashed { next: Next::GiveUp(_), .. })
        );
        let was_down = self.state() == ServiceState::Stopped
            || reaction
                .events
                .iter()
                .filter_map(|event| state_entered(&event.kind))
                .any(|state| matches!(state, ServiceState::Stopped | ServiceState::Failed));
        match (goal, outcome) {
            (Goal::Down, Ok(())) => was_down,
            (Goal::Up, Ok(())) => serves(None),
            (Goal::Serving(wanted), Ok(())) => serves(Some(wanted)),
            (_, Err(CommandError::StillAlive(_))) => self.machine.blocked().is_some(),
            (Goal::Up | Goal::Serving(_), Err(CommandError::Failed(_))) => has_given_up,
            (Goal::Up | Goal::Serving(_), Err(CommandError::Stopped)) => matches!(
                self.state(),
                ServiceState::Stopped | ServiceState::Stopping | ServiceState::Unknown
            ),
            (Goal::Serving(Wanted { model, .. }), Err(CommandError::Superseded { to })) => {
                to != model && to == &self.machine.target().model
            }
            (Goal::Serving(it), Err(CommandError::SwitchFailed { wanted, restored, .. })) => {
                let present = &self.machine.target().model;
                *wanted == it.model && restored == present && wanted != restored
            }
            _ => false,
        }
    }

    /// That the command leads to the state, in a world where nothing more goes wrong.
    fn reaches(&self, command: &Input, goal: ServiceState) {
        let mut node = self.after(command.clone());
        for _ in 0..40 {
            // What had failed before the command came was not what it asked for.
            if goal == ServiceState::Running && node.state() == ServiceState::Failed {
                node = node.after(command.clone());
            }
            if node.state() == goal && node.world.unheard() == 0 {
                assert!(node.open.is_none(), "{:?} waits in {goal}: {self:?}", node.open);
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
        Step::Vanish(_) | Step::Diagnose(_) => Some((2, step)),
        Step::Find(Fitness::Fit) | Step::Drain(_) => Some((3, step)),
        Step::PassCheck(_) => Some((4, step)),
        Step::RingTimer(_) => Some((5, step)),
        Step::FailToStart(_)
        | Step::Die(_)
        | Step::Linger(_)
        | Step::FailToLook
        | Step::Find(Fitness::Unfit)
        | Step::FailCheck(_)
        | Step::MissModel(_)
        | Step::LoadFurther(_) => None,
    }
}

fn goal_of(request: &Request) -> Goal {
    match request {
        Request::Stop(_) => Goal::Down,
        Request::Start | Request::Ensure | Request::Restart => Goal::Up,
        Request::Load { wanted, .. } => Goal::Serving(wanted.clone()),
    }
}
