//! How long a launch takes, part by part.

use std::time::Duration;

use crate::domain::loading::LoadStatus;

/// A part of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LaunchPhase {
    /// Until there is a main process: a warm one may have to be waited for.
    Preparing,
    /// Until it says its first word: Python imports vLLM.
    Importing,
    /// What vLLM says that it does.
    Load(LoadStatus),
    /// From its word that it listens to a check that finds the model served.
    Answering,
}

impl LaunchPhase {
    /// The phase's name in lower case, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Importing => "importing",
            Self::Load(status) => status.as_str(),
            Self::Answering => "answering",
        }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Preparing => 0,
            Self::Importing => 1,
            Self::Load(_) => 2,
            Self::Answering => 3,
        }
    }
}

/// The parts of one launch, in their order. What took no time was not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phases(Vec<(LaunchPhase, Duration)>);

impl FromIterator<(LaunchPhase, Duration)> for Phases {
    fn from_iter<T: IntoIterator<Item = (LaunchPhase, Duration)>>(parts: T) -> Self {
        let mut phases = Self::default();
        parts.into_iter().for_each(|(phase, took)| phases.add(phase, took));
        phases
    }
}

impl Phases {
    /// Each part and how long it took; none comes twice.
    pub fn iter(&self) -> impl Iterator<Item = (LaunchPhase, Duration)> {
        self.0.iter().copied()
    }

    /// All of it.
    pub fn total(&self) -> Duration {
        self.0.iter().map(|(_, took)| *took).sum()
    }

    fn add(&mut self, phase: LaunchPhase, took: Duration) {
        match self.0.iter_mut().find(|(known, _)| *known == phase) {
            Some((_, so_far)) => *so_far += took,
            None => self.0.push((phase, took)),
        }
    }
}

/// Takes the time of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopwatch {
    past: Phases,
    present: LaunchPhase,
    /// When that began, on the monotonic clock.
    since: Duration,
}

impl Stopwatch {
    /// Of a launch that begins now.
    pub fn begin(now: Duration) -> Self {
        Self { past: Phases::default(), present: LaunchPhase::Preparing, since: now }
    }

    /// Another phase begins now, or the same goes on. What is heard late turns nothing back.
    pub fn enter(&mut self, phase: LaunchPhase, now: Duration) {
        if phase.rank() < self.present.rank() {
            return;
        }
        self.past.add(self.present, now.saturating_sub(self.since));
        (self.present, self.since) = (phase, now);
    }

    /// The launch is over.
    pub fn stop(mut self, now: Duration) -> Phases {
        self.enter(self.present, now);
        self.past
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_part_has_its_time_and_all_have_that_of_the_launch() {
        let mut watch = Stopwatch::begin(seconds(10));
        watch.enter(LaunchPhase::Importing, seconds(11));
        watch.enter(LaunchPhase::Load(LoadStatus::Loading), seconds(14));
        watch.enter(LaunchPhase::Load(LoadStatus::Warming), seconds(15));
        watch.enter(LaunchPhase::Load(LoadStatus::Loading), seconds(16));
        watch.enter(LaunchPhase::Answering, seconds(20));
        watch.enter(LaunchPhase::Importing, seconds(20));
        let phases = watch.stop(seconds(21));
        let told: Vec<_> = phases.iter().map(|(phase, took)| (phase.as_str(), took)).collect();
        assert_eq!(
            told,
            [
                ("preparing", seconds(1)),
                ("importing", seconds(3)),
                ("loading", seconds(5)),
                ("warming", seconds(1)),
                ("answering", seconds(1)),
            ]
        );
        assert_eq!(phases.total(), seconds(11));
    }
}
