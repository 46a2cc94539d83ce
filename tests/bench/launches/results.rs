//! What was measured, as rows: for each thing that is measured those of all contestants.

use std::collections::BTreeMap;

use super::Variant;
use super::contestant::Contestant;
use crate::figure::{Figure, Unit};

/// What is measured of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Measure {
    FirstStart,
    KillToServed,
    KillToServedLessDelay,
    Switch,
    Memory,
}

impl Measure {
    const ALL: [Self; 5] = [
        Self::FirstStart,
        Self::KillToServed,
        Self::KillToServedLessDelay,
        Self::Switch,
        Self::Memory,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::FirstStart => "first start to healthy",
            Self::KillToServed => "SIGKILL of the worker to the next completion",
            Self::KillToServedLessDelay => "of it without the pause before the restart",
            Self::Switch => "switch of models to the first completion",
            Self::Memory => "memory while idle, with vLLM's",
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::Memory => Unit::Megabytes,
            _ => Unit::Seconds,
        }
    }

    fn remark(self, contestant: Contestant) -> &'static str {
        match (self, contestant) {
            (Self::FirstStart, Contestant::Warm) => {
                "a supervisor anew, whose predecessor has left in the cache what to import"
            }
            (Self::Switch, Contestant::Plain | Contestant::Supervisord) => {
                "SIGTERM, its end, a start with the other model"
            }
            (Self::Switch, Contestant::Cold | Contestant::Warm) => "by the library's handle",
            (Self::Memory, Contestant::Warm) => "PSS, the warm process included",
            (Self::Memory, _) => "PSS",
            _ => "",
        }
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(super) struct Results {
    samples: BTreeMap<(Variant, Measure, Contestant), Vec<f64>>,
    failures: BTreeMap<(Variant, Contestant), Vec<String>>,
}

impl Results {
    /// A time in seconds, or memory in KiB.
    pub(super) fn note(
        &mut self,
        variant: Variant,
        measure: Measure,
        contestant: Contestant,
        value: f64,
    ) {
        eprintln!("    {}: {value:.2}", measure.name());
        self.samples.entry((variant, measure, contestant)).or_default().push(value);
    }

    pub(super) fn note_failure(&mut self, variant: Variant, contestant: Contestant, why: &str) {
        self.failures.entry((variant, contestant)).or_default().push(why.to_owned());
    }

    /// All of it, and how the medians compare.
    pub(super) fn figures(&self) -> Vec<Figure> {
        Variant::ALL.into_iter().flat_map(|it| self.of(it).chain(self.ratios(it))).collect()
    }

    fn of(&self, variant: Variant) -> impl Iterator<Item = Figure> {
        let pairs = Measure::ALL.into_iter().flat_map(|measure| {
            Contestant::ALL.into_iter().map(move |contestant| (measure, contestant))
        });
        pairs.filter_map(move |(measure, contestant)| {
            let failures = self.failures.get(&(variant, contestant));
            let samples = self.samples.get(&(variant, measure, contestant));
            if samples.is_none() && (failures.is_none() || !is_possible(measure, contestant)) {
                return None;
            }
            let fault = failures.map(|them| format!("{} came to nothing: {them:?}", them.len()));
            let remark = [measure.remark(contestant), fault.as_deref().unwrap_or_default()];
            let remark: Vec<&str> = remark.into_iter().filter(|it| !it.is_empty()).collect();
            let what = format!("{}, {}: {}", variant.name(), measure.name(), contestant.name());
            let samples = samples.cloned().unwrap_or_default();
            Some(Figure::of(what, measure.unit(), samples).noting(remark.join("; ")))
        })
    }

    fn ratios(&self, variant: Variant) -> impl Iterator<Item = Figure> {
        let compared = [
            (Measure::FirstStart, Contestant::Plain),
            (Measure::KillToServed, Contestant::Supervisord),
            (Measure::Switch, Contestant::Plain),
        ];
        compared.into_iter().filter_map(move |(measure, other)| {
            let warm = self.median(variant, measure, Contestant::Warm)?;
            let ratio = warm / self.median(variant, measure, other)?;
            let (variant, measure, other) = (variant.name(), measure.name(), other.name());
            let what = format!("{variant}, {measure}: warm / {other}");
            Some(Figure::of(what, Unit::Percent, vec![ratio]).noting("of the medians"))
        })
    }

    fn median(&self, variant: Variant, measure: Measure, contestant: Contestant) -> Option<f64> {
        let samples = self.samples.get(&(variant, measure, contestant))?;
        Figure::of("", Unit::Count, samples.clone()).median()
    }
}

/// Whether there is such a figure: only `vllmd` tells of its pauses.
fn is_possible(measure: Measure, contestant: Contestant) -> bool {
    measure != Measure::KillToServedLessDelay || contestant.is_vllmd()
}
