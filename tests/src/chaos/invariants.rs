//! What must hold whatever happens. Each look is judged; what lasts too long is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::fault::Role;
use super::observer::{Listener, Look};

/// For so long the published state may differ from what is there.
const TRUTH: Duration = Duration::from_secs(1);
/// What this program itself may take to look, on a machine with much else to do.
const OBSERVER_LAG: Duration = Duration::from_millis(500);
/// A pause between two looks that says that this program stood still, and whoever it judges perhaps
/// too.
const STANDSTILL: Duration = Duration::from_millis(400);
/// The window that restarts are counted in.
const WINDOW: Duration = Duration::from_secs(60);

/// What was seen so far, as far as the next look is judged by it.
#[derive(Debug)]
pub(super) struct Invariants {
    restart_cap: u32,
    last_look: Option<Instant>,
    /// Since when each of these holds.
    since: BTreeMap<String, Instant>,
    /// Every segment that was ever mapped.
    segments: BTreeSet<PathBuf>,
    launches: Launches,
}

/// The launches of the present supervisor that nobody asked for.
#[derive(Debug, Default)]
struct Launches {
    known: u32,
    /// How many were asked for and have not been seen.
    asked: u32,
    restarts: Vec<Instant>,
}

impl Invariants {
    pub(super) fn new(restart_cap: u32) -> Self {
        let launches = Launches::default();
        let (since, segments) = (BTreeMap::new(), BTreeSet::new());
        Self { restart_cap, last_look: None, since, segments, launches }
    }

    /// Another supervisor counts restarts afresh, and starts vLLM once.
    pub(super) fn begin_life(&mut self) {
        self.forget_time();
        self.launches.restarts.clear();
        self.launches.asked = 1;
    }

    /// So many launches may follow from an order.
    pub(super) fn expect_launches(&mut self, count: u32) {
        self.launches.asked += count;
    }

    /// What lasted began only now: the supervisor could not act.
    pub(super) fn forget_time(&mut self) {
        self.since.clear();
    }

    /// What this look shows to be broken. A segment that the supervisor has named as one whose owner
    /// nobody could see is not taken for left.
    pub(super) fn judge(
        &mut self,
        look: &Look,
        state: Option<&str>,
        launched: u32,
        named: impl Fn(&Path) -> bool,
    ) -> Option<String> {
        self.segments.extend(look.segments.iter().cloned());
        if self.last_look.replace(look.at).is_some_and(|last| look.at - last > STANDSTILL) {
            self.forget_time();
        }
        let left = || self.segments_left(&named);
        let found = differences(look, state, left);
        let differs = self.lasting(look, found);
        differs.or_else(|| self.too_many_restarts(look.at, launched))
    }

    /// The segments that are left of all that there were, and are not named.
    pub(super) fn segments_left(&self, named: impl Fn(&Path) -> bool) -> Vec<&PathBuf> {
        let left = self.segments.iter().filter(|segment| segment.exists());
        left.filter(|segment| !named(segment)).collect()
    }

    /// The first of these that has lasted too long.
    fn lasting(&mut self, look: &Look, found: Vec<String>) -> Option<String> {
        self.since.retain(|what, _| found.contains(what));
        let mut broken = None;
        for what in found {
            let since = *self.since.entry(what.clone()).or_insert(look.at);
            if look.at - since > TRUTH + OBSERVER_LAG {
                broken = broken.or(Some(format!("{what}, for more than a second")));
            }
        }
        broken
    }

    fn too_many_restarts(&mut self, now: Instant, launched: u32) -> Option<String> {
        let launches = &mut self.launches;
        for _ in launches.known..launched {
            if launches.asked > 0 {
                launches.asked -= 1;
            } else {
                launches.restarts.push(now);
            }
        }
        launches.known = launched;
        launches.restarts.retain(|at| now - *at < WINDOW);
        let count = launches.restarts.len();
        let is_broken = count > self.restart_cap as usize;
        is_broken.then(|| format!("{count} restarts within a minute, not {}", self.restart_cap))
    }
}

/// How what is there differs from what was published.
fn differences<'a>(
    look: &Look,
    state: Option<&str>,
    are_left: impl Fn() -> Vec<&'a PathBuf>,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut find = |differs: bool, what: String| found.extend(differs.then_some(what));
    match state {
        Some("running") => {
            let listens = look.listener == Listener::Ours;
            find(!listens, format!("running, and on the port is {:?}", look.listener));
            find(listens && !look.serves(), "running, and vLLM is not whole".to_owned());
        }
        Some(rest @ ("stopped" | "failed")) => {
            find(!look.members.is_empty(), format!("{rest}, and vLLM's processes are alive"));
            find(!look.warm.is_empty(), format!("{rest}, and a launch is kept warm"));
            let left = are_left();
            find(!left.is_empty(), format!("{rest}, and of shared memory {left:?} is left"));
        }
        // On the way from one to another there is no promise about what is there.
        Some(_) | None => {}
    }
    for role in [Role::Warm, Role::Ahead] {
        if look.warm.iter().filter(|member| member.role == role).count() > 1 {
            found.push(format!("of {role:?} there are several"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: Instant, listener: Listener) -> Look {
        let (members, warm) = (Vec::new(), Vec::new());
        Look { at, members, warm, listener, segments: BTreeSet::new() }
    }

    #[test]
    fn a_state_is_wrong_only_when_it_stays_wrong() {
        let mut invariants = Invariants::new(3);
        let start = Instant::now();
        let mut wrong_at = |from: u64, to: u64, state| {
            let times = (from..to).step_by(100).map(|it| start + Duration::from_millis(it));
            let mut judged = times
                .map(|at| invariants.judge(&look(at, Listener::Nobody), Some(state), 0, |_| false));
            judged.position(|broken| broken.is_some())
        };
        assert_eq!(wrong_at(0, 1400, "running"), None);
        assert_eq!(wrong_at(1400, 1500, "crashed"), None);
        assert_eq!(wrong_at(1500, 4000, "running"), Some(16));
        assert_eq!(wrong_at(4000, 9000, "stopped"), None);
        // Who looks may be held up himself.
        assert_eq!(wrong_at(9000, 10_000, "running"), None);
        assert_eq!(wrong_at(15_000, 16_000, "running"), None);
    }

    #[test]
    fn restarts_are_what_nobody_asked_for() {
        let mut invariants = Invariants::new(2);
        let start = Instant::now();
        invariants.begin_life();
        let mut judge = |seconds, launches| {
            let at = start + Duration::from_secs(seconds);
            invariants.judge(&look(at, Listener::Nobody), None, launches, |_| false)
        };
        assert_eq!(judge(0, 1), None);
        assert_eq!(judge(2, 2), None);
        assert_eq!(judge(5, 3), None);
        assert_eq!(judge(65, 5), None);
        assert!(judge(66, 6).is_some());
    }
}
