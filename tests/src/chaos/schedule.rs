//! The faults of one run, their times, and how each launch of vLLM behaves: all of it follows from
//! the seed.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::fault::{Fault, Hindrance, Order, Role, Shared, Successor, Thief, Tracker};
use super::random::Random;
use crate::fake_vllm::{FakeVllm, fake_vllm};

/// What supervises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `vllmd run`.
    Command,
    /// A program that embeds the library and takes orders.
    Embedded,
}

/// Whether vLLM ends with its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopOnExit {
    /// It does.
    Yes,
    /// It lives on, and the next supervisor adopts it.
    No,
}

/// How vLLM is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Launching {
    /// It is a program, and there is one way.
    Program,
    /// It is a script of Python, and the supervisor chooses.
    Script,
    /// It is a script of Python, and always to be launched warm.
    Warm,
}

/// When a step comes, after its pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// At once.
    Now,
    /// When vLLM loads, if it comes to that soon.
    Loading,
    /// When it serves, if it comes to that soon.
    Serving,
}

/// One fault and its time.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) pause: Duration,
    pub(super) when: When,
    pub(super) fault: Fault,
}

/// How one launch of vLLM behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch {
    loads_in: Duration,
    behaviour: Behaviour,
}

#[derive(Clone, Copy, Debug)]
enum Behaviour {
    Healthy,
    LeavesGrandchild,
    IgnoresSigterm,
    FloodsLog,
    WorkerDies(Duration),
    Exits(u8, Duration),
    ExitsWhileLoading(Duration),
    ApiServerHangs(Duration),
    WorkersHang(Duration),
    HealthTakes(Duration),
    HealthFails(Duration),
}

/// All that one seed decides.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The seed.
    pub seed: u64,
    pub(super) length: Duration,
    pub(super) form: Form,
    pub(super) stop_on_exit: StopOnExit,
    pub(super) restart_cap: u32,
    pub(super) launching: Launching,
    pub(super) launches: Vec<Launch>,
    pub(super) steps: Vec<Step>,
}

impl Schedule {
    /// Whether this launch, counted from 1, goes on serving once it does, unless a fault ends it.
    pub(super) fn serves_for_good(&self, launch: u32) -> bool {
        let place = launch.checked_sub(1).and_then(|it| usize::try_from(it).ok());
        let launch = place.and_then(|place| self.launches.get(place));
        match launch.map(|launch| launch.behaviour) {
            None
            | Some(
                Behaviour::Healthy
                | Behaviour::LeavesGrandchild
                | Behaviour::IgnoresSigterm
                | Behaviour::FloodsLog
                | Behaviour::HealthTakes(_),
            ) => true,
            Some(
                Behaviour::WorkerDies(_)
                | Behaviour::Exits(..)
                | Behaviour::ExitsWhileLoading(_)
                | Behaviour::ApiServerHangs(_)
                | Behaviour::WorkersHang(_)
                | Behaviour::HealthFails(_),
            ) => false,
        }
    }

    /// The schedule of this seed. A longer one begins as a shorter one does.
    pub fn of(seed: u64, length: Duration) -> Self {
        let mut random = Random::of(seed);
        let form = random.one_of(&[Form::Command, Form::Embedded]);
        let stop_on_exit = random.one_of(&[StopOnExit::Yes, StopOnExit::Yes, StopOnExit::No]);
        let restart_cap = random.one_of(&[3, 1000, 1000]);
        let launching = match seed % 4 {
            1 => Launching::Warm,
            3 => Launching::Script,
            _ => Launching::Program,
        };
        // Streams of their own, so that the length of one does not change the other.
        let (mut behaving, mut stepping) = (Random::of(!seed), Random::of(seed.rotate_left(32)));
        let launches = (0..launches_within(length)).map(|_| Launch::draw(&mut behaving)).collect();
        let (mut steps, mut passed) = (Vec::new(), Duration::ZERO);
        while passed < length {
            let step = Step::draw(&mut stepping, form, launching);
            passed += step.least_time();
            steps.push(step);
        }
        Self { seed, length, form, stop_on_exit, restart_cap, launching, launches, steps }
    }

    /// The plan for `fake_vllm`: launch by launch, and healthy from then on.
    pub(super) fn plan(&self, counter: &Path) -> FakeVllm {
        let mut plans = self.launches.iter().map(|launch| launch.plan());
        let first = plans.next().unwrap_or_else(fake_vllm).counts_launches_in(counter);
        plans.fold(first, FakeVllm::then).then(fake_vllm())
    }
}

/// More than there can be: a restart waits for two seconds.
fn launches_within(length: Duration) -> u64 {
    4 + length.as_secs() / 2
}

impl Launch {
    fn draw(random: &mut Random) -> Self {
        let loads_in = random.millis(100..700);
        let soon = random.millis(100..2500);
        let behaviour = match random.number(0..20) {
            0 | 1 => Behaviour::LeavesGrandchild,
            2 => Behaviour::IgnoresSigterm,
            3 => Behaviour::FloodsLog,
            4 => Behaviour::WorkerDies(soon),
            5 => Behaviour::Exits(random.one_of(&[0, 1, 137]), soon),
            6 => Behaviour::ExitsWhileLoading(loads_in / 2),
            7 => Behaviour::ApiServerHangs(soon),
            8 => Behaviour::WorkersHang(soon),
            9 => Behaviour::HealthTakes(random.millis(50..1500)),
            10 => Behaviour::HealthFails(soon),
            _ => Behaviour::Healthy,
        };
        Self { loads_in, behaviour }
    }

    fn plan(self) -> FakeVllm {
        let plan = fake_vllm().loads_in(self.loads_in);
        match self.behaviour {
            Behaviour::Healthy => plan,
            Behaviour::LeavesGrandchild => plan.leaves_grandchild(),
            Behaviour::IgnoresSigterm => plan.ignores_sigterm(),
            Behaviour::FloodsLog => plan.floods_log(),
            Behaviour::WorkerDies(after) => plan.worker_dies_after(after),
            Behaviour::Exits(code, after) => plan.exits_with(code).after(after),
            Behaviour::ExitsWhileLoading(after) => plan.exits_while_loading(1, after),
            Behaviour::ApiServerHangs(after) => plan.api_hangs_after(after),
            Behaviour::WorkersHang(after) => plan.hangs_after(after),
            Behaviour::HealthTakes(time) => plan.health_takes(time),
            Behaviour::HealthFails(after) => plan.health_fails_after(after),
        }
    }
}

impl Step {
    fn draw(random: &mut Random, form: Form, launching: Launching) -> Self {
        let pause = random.millis(0..500);
        let when =
            random.one_of(&[When::Now, When::Now, When::Loading, When::Serving, When::Serving]);
        let fault = if form == Form::Embedded && random.happens(40) {
            orders(random)
        } else if random.happens(45) {
            moment(random, launching)
        } else {
            let lasting = random.millis(200..1800);
            let meanwhile = random.happens(60).then(|| Box::new(small(random, launching)));
            Fault::Hindrance { hindrance: hindrance(random, launching), lasting, meanwhile }
        };
        Self { pause, when, fault }
    }

    /// The time that it takes at least; waiting for vLLM not counted.
    fn least_time(&self) -> Duration {
        let lasting = match &self.fault {
            Fault::Hindrance { lasting, .. } => *lasting,
            Fault::KillSupervisor { successor: Successor::Later } => Duration::from_secs(2),
            Fault::Kill { .. }
            | Fault::Massacre { .. }
            | Fault::Term { .. }
            | Fault::KillSupervisor { .. }
            | Fault::SecondSupervisor { .. }
            | Fault::Orders(_) => Duration::ZERO,
        };
        self.pause + lasting
    }
}

fn orders(random: &mut Random) -> Fault {
    let count = random.one_of(&[1, 1, 1, 2, 2, 3, 5]);
    Fault::Orders((0..count).map(|_| random.one_of(&Order::ALL)).collect())
}

/// What can happen in the middle of something else.
fn small(random: &mut Random, launching: Launching) -> Fault {
    if launching != Launching::Program && random.happens(25) {
        let victim = random.one_of(&[Role::Warm, Role::Ahead]);
        return Fault::Kill { victim, signal: Signal::KILL };
    }
    let victims = [
        Role::ApiServer,
        Role::EngineCore,
        Role::Worker,
        Role::Worker,
        Role::Grandchild,
        Role::Importing,
        Role::ResourceTracker,
    ];
    match random.number(0..8) {
        0 => Fault::Massacre { tracker: Tracker::Spared },
        1 => Fault::Massacre { tracker: Tracker::Killed },
        _ => {
            let signal = random.one_of(&[Signal::KILL, Signal::TERM, Signal::SEGV]);
            Fault::Kill { victim: random.one_of(&victims), signal }
        }
    }
}

fn moment(random: &mut Random, launching: Launching) -> Fault {
    match random.number(0..12) {
        0 => Fault::Term { times: random.number(1..3) },
        1 => Fault::Term { times: random.number(3..9) },
        2 | 3 => Fault::KillSupervisor { successor: Successor::AtOnce },
        4 => Fault::KillSupervisor { successor: Successor::Later },
        5 => Fault::SecondSupervisor { shares: Shared::StateDirectory },
        6 => Fault::SecondSupervisor { shares: Shared::Port },
        _ => small(random, launching),
    }
}

fn hindrance(random: &mut Random, launching: Launching) -> Hindrance {
    if launching != Launching::Program && random.happens(25) {
        return Hindrance::StoppedMember(random.one_of(&[Role::Warm, Role::Ahead]));
    }
    let members = [Role::ApiServer, Role::EngineCore, Role::Worker];
    match random.number(0..8) {
        0 | 1 => Hindrance::Suspension,
        2 => Hindrance::FullDisk,
        3 => Hindrance::NoDescriptors,
        4 | 5 => Hindrance::StoppedMember(random.one_of(&members)),
        6 => Hindrance::StolenPort(Thief::Silent),
        _ => Hindrance::StolenPort(Thief::Lying),
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, length, form, stop_on_exit, restart_cap, launching, launches, steps } =
            self;
        writeln!(f, "seed {seed}, {length:?}: {form:?}, stop_on_exit {stop_on_exit:?}")?;
        writeln!(f, "launched as {launching:?}")?;
        writeln!(f, "at most {restart_cap} restarts a minute")?;
        for (at, launch) in launches.iter().enumerate() {
            writeln!(f, "launch {}: {:?}, {:?}", at + 1, launch.loads_in, launch.behaviour)?;
        }
        for (at, step) in steps.iter().enumerate() {
            writeln!(
                f,
                "step {}: after {:?}, {:?}: {:?}",
                at + 1,
                step.pause,
                step.when,
                step.fault
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_schedule_again_and_a_longer_one_begins_alike() {
        let text = |seed, seconds| Schedule::of(seed, Duration::from_secs(seconds)).to_string();
        assert_eq!(text(3, 8), text(3, 8));
        assert_ne!(text(3, 8), text(4, 8));
        let steps = |seconds| {
            let steps = Schedule::of(3, Duration::from_secs(seconds)).steps;
            steps.iter().map(|step| format!("{step:?}")).collect::<Vec<_>>()
        };
        assert!(steps(60).starts_with(&steps(8)));
    }
}
