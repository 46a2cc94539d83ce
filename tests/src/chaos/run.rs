//! One run: what is scheduled, step by step, with a look after each, and an end that leaves nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::fault::Order;
use super::invariants::Invariants;
use super::observer::{Listener, Look};
use super::place::{Place, Programs};
use super::schedule::{Form, Schedule, Step, StopOnExit, When};
use super::strangers::Strangers;
use super::supervisor::{Heard, Supervisor};

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// Within so long a supervisor that is told to end has ended.
pub(super) const END: Duration = Duration::from_secs(20);
/// Within so long it serves again, when nothing hinders it any more.
const RECOVERY: Duration = Duration::from_secs(90);
/// Within so long nothing is left, once it has ended.
pub(super) const CLEAN: Duration = Duration::from_secs(2);
/// Within so long every caller is answered, once it serves.
const ANSWER: Duration = Duration::from_secs(15);

/// What is broken, in words.
pub(super) type Outcome<T = ()> = Result<T, String>;

/// A run in which every invariant held.
#[derive(Debug)]
pub struct Report {
    /// How many faults were injected.
    pub faults: usize,
    /// What was left out or not checked, and why.
    pub unchecked: BTreeSet<String>,
    /// The schedule, and everything that happened.
    pub story: String,
}

/// A run in which one did not hold.
#[derive(Debug)]
pub struct Broken {
    /// Which, and how.
    pub what: String,
    /// The schedule, and everything that happened.
    pub story: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nbroken: {}", self.story, self.what)
    }
}

/// Runs a schedule.
///
/// # Errors
///
/// The first invariant that did not hold.
pub async fn run(schedule: &Schedule, programs: &Programs) -> Result<Report, Broken> {
    let without_story = |what: String| Broken { what, story: schedule.to_string() };
    let mut run = Run::prepare(schedule, programs).map_err(without_story)?;
    let outcome = run.go().await;
    let outcome = outcome.and_then(|()| run.without_panic());
    let story = run.story();
    match outcome {
        Ok(()) => {
            Ok(Report { faults: run.faults, unchecked: std::mem::take(&mut run.unchecked), story })
        }
        Err(what) => Err(Broken { what, story }),
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) schedule: &'a Schedule,
    pub(super) supervisor: Supervisor,
    pub(super) heard: Heard,
    pub(super) invariants: Invariants,
    strangers: Strangers,
    /// The supervisor is stopped, and cannot be asked for anything.
    pub(super) suspended: bool,
    tickets: u64,
    /// Whether another model was asked for: the next supervisor then has other settings.
    switched: bool,
    /// How many launches there had been when all later ones were made healthy.
    before_healing: u32,
    faults: usize,
    pub(super) unchecked: BTreeSet<String>,
    began: Instant,
    log: Vec<(Instant, String)>,
    // Last: it ends whatever is left.
    pub(super) place: Place,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.place.census.kill_all();
        // What is broken may have left them.
        for segment in self.invariants.segments_left(|_| false) {
            std::fs::remove_file(segment).ok();
        }
    }
}

impl<'a> Run<'a> {
    fn prepare(schedule: &'a Schedule, programs: &Programs) -> Outcome<Self> {
        let prepared = |error: std::io::Error| format!("the run cannot begin: {error}");
        let place = Place::of(schedule, programs).map_err(prepared)?;
        let strangers = Strangers::start(&place).map_err(prepared)?;
        let heard = Heard::default();
        let supervisor = place.supervisor().and_then(|command| Supervisor::start(command, &heard));
        let mut invariants = Invariants::new(schedule.restart_cap);
        invariants.begin_life();
        let mut unchecked = BTreeSet::new();
        unchecked.insert("a jump of the wall clock: it would be the whole machine's".to_owned());
        if schedule.form == Form::Command {
            unchecked.insert("answers: `vllmd run` has no callers".to_owned());
        }
        Ok(Self {
            schedule,
            supervisor: supervisor.map_err(prepared)?,
            heard,
            invariants,
            strangers,
            suspended: false,
            tickets: 0,
            switched: false,
            before_healing: 0,
            faults: 0,
            unchecked,
            began: Instant::now(),
            log: Vec::new(),
            place,
        })
    }

    async fn go(&mut self) -> Outcome {
        let end = self.began + self.schedule.length;
        for (at, step) in self.schedule.steps.iter().enumerate() {
            if Instant::now() >= end {
                break;
            }
            self.step(at + 1, step).await?;
        }
        self.recover().await?;
        self.all_are_answered().await?;
        self.end().await
    }

    async fn step(&mut self, number: usize, step: &Step) -> Outcome {
        self.advance(step.pause, |_, _| false).await?;
        self.follow_one_that_gave_up().await?;
        // What does not come in time is not waited for: the fault hits whatever is there.
        let (patience, when) = (Duration::from_secs(3), step.when);
        let is_time = |look: &Look, _: &mut Self| match when {
            When::Now => true,
            When::Loading => look.loads(),
            When::Serving => look.serves(),
        };
        self.advance(patience, is_time).await?;
        self.follow_one_that_gave_up().await?;
        self.note(format!("step {number}: {:?}", step.fault));
        self.faults += 1;
        self.apply(&step.fault).await?;
        let look = self.look()?;
        self.note(look.summary());
        Ok(())
    }

    /// One look, judged.
    pub(super) fn look(&mut self) -> Outcome<Look> {
        // What was published before the look: news that come during it are for the next.
        let state = {
            let heard = self.heard.lock();
            if let Some(wrong) = heard.wrong.first() {
                return Err(wrong.clone());
            }
            if let Some(code) = heard.gave_up_too_soon() {
                return Err(format!("it gave up for {code}, which passes"));
            }
            heard.state().filter(|_| !self.suspended).map(str::to_owned)
        };
        let mut look = Look::at(&self.place);
        if look.incarnations().len() > 1 {
            // A look takes a while: one may have ended and the next begun.
            look = Look::at(&self.place);
        }
        if look.incarnations().len() > 1 {
            return Err(format!("several launches are alive: {:#?}", look.members));
        }
        if let Some(harm) = self.strangers.harmed() {
            return Err(harm);
        }
        let (place, invariants) = (&self.place, &mut self.invariants);
        match invariants.judge(&look, state.as_deref(), place.launches(), |it| place.names(it)) {
            Some(broken) => Err(format!("{broken}: {}", look.summary())),
            None => Ok(look),
        }
    }

    /// Looks again and again until it is so, or the time is over; says which.
    pub(super) async fn advance(
        &mut self,
        patience: Duration,
        mut reached: impl FnMut(&Look, &mut Self) -> bool,
    ) -> Outcome<bool> {
        let end = Instant::now() + patience;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let look = self.look()?;
            if reached(&look, self) {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
        }
    }

    /// As a service manager would: one that gave up for the restart limit is followed by another.
    async fn follow_one_that_gave_up(&mut self) -> Outcome {
        let Some(status) = self.supervisor.ended() else { return Ok(()) };
        // Its last words may still be on their way.
        let gave_up = |run: &Self| run.heard.lock().gave_up_for.is_some();
        self.advance(Duration::from_secs(1), |_, run| gave_up(run)).await?;
        if status.code() != Some(3) || !gave_up(self) {
            return Err(format!("the supervisor ended by itself: {status}"));
        }
        self.note("it gave up, and another follows".to_owned());
        self.nothing_lives(CLEAN).await?;
        self.begin_another()
    }

    /// Starts the next supervisor.
    pub(super) fn begin_another(&mut self) -> Outcome {
        let command = self.place.supervisor();
        let next = command.and_then(|command| Supervisor::start(command, &self.heard));
        self.supervisor = next.map_err(|error| format!("no further supervisor: {error}"))?;
        self.invariants.begin_life();
        Ok(())
    }

    /// Waits for the end that was asked for.
    pub(super) async fn ends(&mut self, expected: &[i32]) -> Outcome<ExitStatus> {
        self.advance(END, |_, run| run.supervisor.ended().is_some()).await?;
        let Some(status) = self.supervisor.ended() else {
            let pending = self.heard.lock().pending.clone();
            return Err(format!("told to end, it has not after {END:?}; unanswered: {pending:?}"));
        };
        // Before it listens to signals, a signal ends it; so does giving up at the same time.
        let early = self.heard.lock().state.is_none() && status.signal().is_some();
        let gave_up = status.code() == Some(3);
        if early || gave_up || status.code().is_some_and(|code| expected.contains(&code)) {
            return Ok(status);
        }
        Err(format!("told to end, it ended so: {status}"))
    }

    /// Nothing of vLLM is alive, within so long.
    pub(super) async fn nothing_lives(&mut self, patience: Duration) -> Outcome {
        if self.advance(patience, |look, _| look.all().next().is_none()).await? {
            return Ok(());
        }
        Err(format!("vLLM is alive {patience:?} later: {}", self.look()?.summary()))
    }

    pub(super) async fn order(&mut self, order: Order) {
        self.tickets += 1;
        self.switched |= order.is_a_switch();
        let ticket = self.tickets;
        self.heard.lock().pending.insert(ticket, order);
        self.invariants.expect_launches(order.launches());
        self.supervisor.order(ticket, order).await;
    }

    /// When nothing hinders it any more, it serves again.
    async fn recover(&mut self) -> Outcome {
        self.note("the end: every launch from now on is healthy".to_owned());
        self.invariants.expect_launches(u32::try_from(self.schedule.launches.len()).unwrap_or(0));
        self.before_healing = self.place.launches();
        let healed = self.place.heal(self.schedule);
        healed.map_err(|error| format!("launches cannot be counted: {error}"))?;
        let end = Instant::now() + RECOVERY;
        while Instant::now() < end {
            self.follow_one_that_gave_up().await?;
            let rests = matches!(self.heard.lock().state(), Some("stopped" | "failed"));
            if rests && self.schedule.form == Form::Embedded {
                self.order(Order::Start).await;
            }
            let serves = self.advance(Duration::from_secs(2), |look, run| {
                look.serves() && matches!(run.heard.lock().state(), Some("running") | None)
            });
            if serves.await? {
                return Ok(());
            }
        }
        let state = self.heard.lock().state().map(str::to_owned);
        Err(format!("it does not come back; {state:?}, {}", self.look()?.summary()))
    }

    async fn all_are_answered(&mut self) -> Outcome {
        let answered = |run: &Self| run.heard.lock().pending.is_empty();
        if self.advance(ANSWER, |_, run| answered(run)).await? {
            return Ok(());
        }
        Err(format!("never answered: {:?}", self.heard.lock().pending))
    }

    /// It ends as it is told; one more ends what was left running; nothing is left.
    async fn end(&mut self) -> Outcome {
        self.note("the supervisor is told to end".to_owned());
        let served_by = |look: &Look| look.incarnations().iter().map(|&it| it.to_owned()).collect();
        let before: Vec<String> = served_by(&self.look()?);
        self.supervisor.signal(Signal::TERM);
        self.ends(&[143, 0]).await?;
        self.invariants.forget_time();
        if self.schedule.stop_on_exit == StopOnExit::No {
            self.heard.lock().state = None;
            self.note("vLLM lives on, and the next one is to take it along".to_owned());
            let configured = self.place.configure(StopOnExit::Yes);
            configured.map_err(|error| format!("no configuration: {error}"))?;
            self.begin_another()?;
            let serves = |look: &Look, run: &mut Self| {
                look.serves() && run.heard.lock().state().is_some_and(|state| state == "running")
            };
            if !self.advance(RECOVERY, serves).await? {
                return Err("what was left running is not served again".to_owned());
            }
            let after: Vec<String> = served_by(&self.look()?);
            if before != after && !self.switched && self.serves_for_good() {
                return Err(format!(
                    "what was left running was not adopted: {before:?}, {after:?}"
                ));
            }
            self.supervisor.signal(Signal::TERM);
            self.ends(&[143, 0]).await?;
        }
        self.nothing_is_left().await
    }

    /// Whether the launch that serves at the end is one that goes on serving.
    fn serves_for_good(&self) -> bool {
        let plans = u32::try_from(self.schedule.launches.len()).unwrap_or(u32::MAX);
        let is_healed = self.place.launches() > self.before_healing + plans;
        is_healed || self.schedule.serves_for_good(self.before_healing)
    }

    async fn nothing_is_left(&mut self) -> Outcome {
        self.heard.lock().state = None;
        self.nothing_lives(CLEAN).await?;
        let left = self.place.census.wait_until_empty(CLEAN).await;
        left.map_err(|left| format!("processes are left: {left:#?}"))?;
        let look = self.look()?;
        let named = |segment: &Path| self.place.names(segment);
        let (segments, scratch) = (self.invariants.segments_left(named), self.place.scratch());
        if look.listener == Listener::Nobody && segments.is_empty() && scratch.is_empty() {
            return Ok(());
        }
        Err(format!("left: listener {:?}, {segments:?}, {scratch:?}", look.listener))
    }

    fn without_panic(&self) -> Outcome {
        let words = self.place.last_words();
        if words.contains("panicked at") { Err("it panicked".to_owned()) } else { Ok(()) }
    }

    pub(super) fn note(&mut self, what: String) {
        self.log.push((Instant::now(), what));
    }

    fn story(&self) -> String {
        let heard = self.heard.lock();
        let said = heard.lines.iter().map(|(at, line)| (*at, format!("    {line}")));
        let mut lines: Vec<(Instant, String)> = self.log.iter().cloned().chain(said).collect();
        lines.sort_by_key(|(at, _)| *at);
        let lines = lines.iter().map(|(at, line)| {
            let seconds = at.saturating_duration_since(self.began).as_secs_f64();
            format!("{seconds:8.3} {line}\n")
        });
        let lines: String = lines.collect();
        format!("{}{lines}--- stderr\n{}", self.schedule, self.place.last_words())
    }
}
