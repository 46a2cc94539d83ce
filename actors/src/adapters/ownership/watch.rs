//! Watches over a launch from a thread of its own: who appears, what they map, and who dies.
//!
//! A death is heard at once, by its descriptor. A birth is not: somebody has to look.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;

use rustix::event::{Timespec, poll};
use tokio::time::{Duration, Instant};

use super::Ownership;
use super::pidfd::Held;
use super::roster::Roster;
use super::segments::Segments;
use super::session::Depth;
use crate::adapters::guardian::Guardian;
use crate::domain::absence::ScanError;
use crate::domain::report::{Halt, Sample};

/// The pause between two looks while a launch grows, which is while it loads.
const LOADING_PAUSE: Duration = Duration::from_millis(100);

/// The pause between two looks afterwards: an idle supervisor costs less than a thousandth of a
/// processor.
const SERVING_PAUSE: Duration = Duration::from_secs(2);

/// How long nobody must have come for a launch to count as grown.
const GROWN_AFTER: Duration = Duration::from_secs(60);

/// The pause between two readings of maps once it is grown: a map of a real vLLM has thousands of
/// lines.
const MAPS_PAUSE: Duration = Duration::from_secs(10);

/// The time that maps may take at one look, so that a death is heard meanwhile.
const MAPS_BUDGET: Duration = Duration::from_millis(4);

/// What is watched.
#[derive(Debug)]
pub(in crate::adapters) struct Watched {
    pub(in crate::adapters) ownership: Ownership,
    roster: Mutex<Roster>,
    /// The main process, beside the roster, which is held for as long as somebody looks.
    head: OnceLock<Arc<Held>>,
    segments: Mutex<Segments>,
    /// Who ends all of it if we are killed.
    guardian: Mutex<Option<Guardian>>,
    /// Why there is none that lives, as it was told.
    unguarded: Mutex<Told>,
}

/// What was told last, so that it is told once, however often it is found.
#[derive(Debug, Default)]
struct Told(Option<String>);

impl Told {
    fn is_news(&mut self, said: String) -> bool {
        let is_news = self.0.as_ref() != Some(&said);
        self.0 = Some(said);
        is_news
    }
}

impl Watched {
    pub(in crate::adapters) fn new(
        ownership: Ownership,
        roster: Roster,
        segments: Segments,
    ) -> Self {
        let (roster, segments) = (Mutex::new(roster), Mutex::new(segments));
        let (head, guardian, unguarded) = (OnceLock::new(), Mutex::default(), Mutex::default());
        Self { ownership, roster, head, segments, guardian, unguarded }
    }

    /// What the members have done, and which of them are stopped.
    pub(in crate::adapters) fn sample(&self) -> Result<Sample, ScanError> {
        let mut roster = self.roster();
        let (work, front) = (roster.work()?, roster.front()?);
        let is_frozen = match self.ownership.cgroup() {
            Some(cgroup) => cgroup.is_frozen()?,
            None => false,
        };
        // Whoever is new is entered by the watch, sooner than it has done much.
        let halt = if is_frozen { Halt::All } else { roster.halt()? };
        Ok(Sample { work, front, halt })
    }

    /// Enters the main process, which stays the one.
    pub(in crate::adapters) fn lead(&self, roster: &mut Roster, head: Held) {
        let head = Arc::clone(self.head.get_or_init(|| Arc::new(head)));
        roster.lead(head);
    }

    /// Nobody of the launch began before, but for a main process that was made ahead of it; and what
    /// shared memory is older than the claim is not the launch's.
    pub(in crate::adapters) fn claimed_at(&self, claimed: u64) {
        let mut roster = self.roster();
        let begun = roster.origin().map_or(claimed, |(_, start_time)| start_time.min(claimed));
        roster.begin(begun);
        drop(roster);
        self.segments().claimed_at(claimed);
    }

    /// Waits for nobody.
    pub(in crate::adapters) fn head(&self) -> Option<&Arc<Held>> {
        self.head.get()
    }

    pub(in crate::adapters) fn guard(&self, guardian: Guardian) {
        self.guardian().replace(guardian);
        self.segments().tell_anew();
        self.tell_segments();
        self.tell_guardian(&self.roster());
    }

    pub(in crate::adapters) fn dismiss_guardian(&self) {
        self.guardian().take();
    }

    /// Puts another guardian in the place of one that was killed.
    fn keep_guarded(&self) {
        let mut guardian = self.guardian();
        let mut unguarded = self.unguarded.lock().unwrap_or_else(PoisonError::into_inner);
        match guardian.as_ref().map(Guardian::successor) {
            None | Some(Ok(None)) => return,
            Some(Ok(successor)) => *guardian = successor,
            Some(Err(error)) => {
                if unguarded.is_news(error.to_string()) {
                    tracing::warn!(%error, "the guardian of vLLM is dead, and has no successor yet");
                }
                return;
            }
        }
        *unguarded = Told::default();
        drop(unguarded);
        drop(guardian);
        tracing::warn!("the guardian of vLLM was killed; another one guards it now");
        self.segments().tell_anew();
        self.tell_segments();
        self.tell_guardian(&self.roster());
    }

    /// Names those who live, and first the main process, whether it lives or not: its session may.
    pub(in crate::adapters) fn tell_guardian(&self, roster: &Roster) {
        let guardian = self.guardian();
        let Some(guardian) = &*guardian else { return };
        let named = |held: &Arc<Held>| (held.pid, held.start_time);
        let main = roster.origin();
        let others = roster.members().map(|member| named(&member.held));
        let others = others.filter(|one| Some(*one) != main);
        // Nobody has the number 0.
        let all: Vec<_> = std::iter::once(main.unwrap_or_default()).chain(others).collect();
        guardian.note(&all);
    }

    #[cfg(test)]
    pub(in crate::adapters) fn guardian_pid(&self) -> Option<u32> {
        self.guardian().as_ref().map(Guardian::pid)
    }

    fn guardian(&self) -> MutexGuard<'_, Option<Guardian>> {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::adapters) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::adapters) fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks whose the shared memory is that has appeared, if that is to be asked now.
    fn claim_segments(&self, living: &[Arc<Held>]) {
        let mut segments = self.segments();
        segments.hear();
        if segments.is_due() {
            segments.claim(living.iter().map(|held| held.pid));
        }
        drop(segments);
        self.tell_segments();
    }

    /// Whoever has them may die together with us.
    fn tell_segments(&self) {
        let guardian = self.guardian();
        let Some(guardian) = &*guardian else { return };
        if let Some(known) = self.segments().news() {
            guardian.note_segments(&known);
        }
    }

    /// Remembers what all members have mapped or open.
    pub(in crate::adapters) fn remember_segments(&self, roster: &Roster) -> Result<(), ScanError> {
        let mut segments = self.segments();
        let mut remembered = Ok(());
        for member in roster.members() {
            remembered = remembered.and(segments.remember_all(member.held.pid));
        }
        drop(segments);
        self.tell_segments();
        remembered
    }
}

/// Watches until what is watched is dropped, and for as long as anybody lives.
///
/// # Errors
///
/// The system's, when it has no thread to give.
pub(in crate::adapters) fn watch(watched: &Arc<Watched>) -> Result<(), ScanError> {
    let watched = Arc::downgrade(watched);
    let thread = thread::Builder::new().name("vllm-watch".to_owned());
    let spawned = thread.spawn(move || Watch::begin(watched).run());
    spawned.map(drop).map_err(|error| ScanError::new("thread vllm-watch", &error))
}

struct Watch {
    watched: Weak<Watched>,
    /// How many had been entered at the last look, and when that last changed.
    growth: (u64, Instant),
    read_maps: Option<Instant>,
    /// Whose map is read next.
    turn: usize,
}

impl Watch {
    fn begin(watched: Weak<Watched>) -> Self {
        let growth = (0, Instant::now());
        Self { watched, growth, read_maps: None, turn: 0 }
    }

    fn run(mut self) {
        loop {
            let Some(watched) = self.watched.upgrade() else { return };
            let living = self.look(&watched);
            drop(watched);
            if living.is_empty() && self.growth.0 > 0 && self.growth.1.elapsed() >= GROWN_AFTER {
                // Nobody is left to be watched; whoever sweeps looks for himself.
                return;
            }
            self.await_death(&living);
        }
    }

    /// Waits until one of them has died, or it is time to look again. Meanwhile it is seen whose the
    /// shared memory is that appears.
    fn await_death(&self, living: &[Arc<Held>]) {
        let until = Instant::now() + self.pause();
        loop {
            let Some(watched) = self.watched.upgrade() else { return };
            let (births, due) = watched.segments().births();
            drop(watched);
            let limit = due.map_or(until, |due| due.min(until));
            let pause = limit.saturating_duration_since(Instant::now());
            let mut descriptors: Vec<_> = living.iter().map(|held| held.descriptor()).collect();
            descriptors.extend(births.iter().map(|births| births.descriptor()));
            if let Err(error) = poll(&mut descriptors, Timespec::try_from(pause).ok().as_ref()) {
                tracing::debug!(%error, "a wait was cut short");
                return;
            }
            let has_died = descriptors[..living.len()].iter().any(|it| !it.revents().is_empty());
            if has_died || Instant::now() >= until {
                return;
            }
            let Some(watched) = self.watched.upgrade() else { return };
            watched.claim_segments(living);
        }
    }

    fn pause(&self) -> Duration {
        if self.growth.1.elapsed() < GROWN_AFTER { LOADING_PAUSE } else { SERVING_PAUSE }
    }

    /// Tells of the dead, and then looks for the new. Returns those who live.
    fn look(&mut self, watched: &Watched) -> Vec<Arc<Held>> {
        let mut roster = watched.roster();
        roster.bury();
        let depth = if self.pause() == LOADING_PAUSE { Depth::Newcomers } else { Depth::Glance };
        let origin = roster.origin();
        if let Err(error) = watched.ownership.members(&mut roster, depth) {
            tracing::debug!(%error, "not all of vLLM's processes could be looked at");
        }
        if roster.entered() != self.growth.0 {
            self.growth = (roster.entered(), Instant::now());
            watched.tell_guardian(&roster);
        } else if roster.origin() != origin {
            watched.tell_guardian(&roster);
        }
        let living: Vec<_> = roster.members().map(|member| Arc::clone(&member.held)).collect();
        drop(roster);
        watched.keep_guarded();
        watched.claim_segments(&living);
        let is_due = self.pause() == LOADING_PAUSE
            || self.read_maps.is_none_or(|read| read.elapsed() >= MAPS_PAUSE);
        if is_due {
            self.read_maps(watched, &living);
        }
        living
    }

    fn read_maps(&mut self, watched: &Watched, living: &[Arc<Held>]) {
        let began = Instant::now();
        self.read_maps = Some(began);
        for _ in living {
            self.turn = (self.turn + 1) % living.len();
            if let Err(error) = watched.segments().remember(living[self.turn].pid) {
                tracing::debug!(%error, "vLLM's shared memory could not be looked at");
            }
            if began.elapsed() >= MAPS_BUDGET {
                break;
            }
        }
        watched.tell_segments();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_until_it_changes() {
        let mut told = Told::default();
        let is_news = ["a", "a", "b", "a", "a"].map(|said| told.is_news(said.to_owned()));
        assert_eq!(is_news, [true, false, true, true, false]);
    }
}
