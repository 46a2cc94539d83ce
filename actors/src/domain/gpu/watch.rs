//! From looks and faults to findings: what is raised when it has lasted, and cleared when it has been
//! gone for long enough.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reading::{self, Wrong};
use super::xid::{XidClass, in_words, is_of_application};
use super::{
    DriverFault, DriverFaults, FindingKind, Gpu, GpuAction, GpuFinding, GpuRules, GpuSnapshot,
};

/// What has become of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingNews {
    /// This is wrong from now on, or more is to be done about it than before.
    Raised(GpuFinding),
    /// This is not wrong any more.
    Cleared(GpuFinding),
}

/// A GPU is vLLM's for so long after a process of it was last seen there: it may have died of the
/// fault.
const OURS_FOR: Duration = Duration::from_secs(60);

/// Faults of a GPU closer to each other than this are one: a fault is told of for each context.
const EPISODE: Duration = Duration::from_secs(30);

/// So many faults that vLLM has to be restarted for, within [`RECURRING_WITHIN`], are the GPU's own.
const RECURRING: usize = 3;
pub(super) const RECURRING_WITHIN: Duration = Duration::from_secs(30 * 60);

/// See the module.
#[derive(Clone, Debug)]
pub struct GpuWatch {
    rules: GpuRules,
    /// What is known of each GPU, by its name.
    known: BTreeMap<Name, Known>,
    active: BTreeMap<(Name, FindingKind), Active>,
    /// Since when something has been wrong that is not told before it has lasted.
    lasting: BTreeMap<(Name, FindingKind), Duration>,
    /// The number of the last fault that was heard of.
    heard: u64,
    /// Faults of which the driver is to say, at the next look, what is to be done.
    unjudged: Vec<(DriverFault, GpuAction)>,
}

/// A GPU's identity, else its place.
type Name = String;

#[derive(Clone, Debug)]
struct Known {
    gpu: Gpu,
    /// When vLLM was last seen on it.
    used: Option<Duration>,
    /// When it last had a fault that vLLM has to be restarted for, and when each series of them began.
    faulted: Option<Duration>,
    episodes: Vec<Duration>,
}

#[derive(Clone, Debug)]
struct Active {
    finding: GpuFinding,
    /// When it was last seen to be wrong.
    seen: Duration,
}

impl GpuWatch {
    /// Begins with what an earlier watch had found and not cleared. Faults up to this number are known.
    pub fn resume(
        rules: GpuRules,
        findings: impl IntoIterator<Item = GpuFinding>,
        heard: u64,
    ) -> Self {
        let seen = Duration::ZERO;
        let active = findings.into_iter().map(|finding| {
            let key = (name(finding.index, &finding.uuid), finding.kind);
            (key, Active { finding, seen })
        });
        Self {
            rules,
            known: BTreeMap::new(),
            active: active.collect(),
            lasting: BTreeMap::new(),
            heard,
            unjudged: Vec::new(),
        }
    }

    /// What is wrong now.
    pub fn findings(&self) -> impl Iterator<Item = &GpuFinding> {
        self.active.values().map(|active| &active.finding)
    }

    /// The GPUs were looked at. `now` is the time of any clock that does not run backwards.
    pub fn looked(&mut self, snapshot: &GpuSnapshot, now: Duration) -> Vec<FindingNews> {
        let mut news = Vec::new();
        let mut wrong = Vec::new();
        for gpu in &snapshot.gpus {
            let known = self.known.get(&name(gpu.index, &gpu.uuid));
            wrong.extend(reading::wrongs(gpu, known.map(|known| &known.gpu)));
        }
        let is_there = |gpu: &Gpu| snapshot.gpus.iter().any(|it| it.uuid == gpu.uuid);
        let gone = self.known.values().map(|known| &known.gpu).filter(|gpu| !is_there(gpu));
        wrong.extend(gone.map(reading::missing));
        for gpu in &snapshot.gpus {
            self.know(gpu, now);
        }
        self.lasting.retain(|key, _| wrong.iter().any(|wrong| *key == key_of(wrong)));
        for it in wrong {
            self.see(it, now, &mut news);
        }
        for (fault, action) in std::mem::take(&mut self.unjudged) {
            self.judge(&fault, action, now, &mut news);
        }
        self.clear(snapshot, now, &mut news);
        news
    }

    /// The driver has told of faults. Whoever sees that [`Self::is_undecided`] should have the GPUs
    /// looked at.
    pub fn told(&mut self, faults: &DriverFaults, now: Duration) -> Vec<FindingNews> {
        let mut news = Vec::new();
        for fault in faults.after(self.heard) {
            let XidClass::Fault(action) = self.rules.xids.class(fault.xid) else { continue };
            let known = self.known.get(&name(fault.index, &fault.uuid));
            let says = known.is_none_or(|known| known.gpu.condition.recovery_action.is_some());
            if says {
                self.unjudged.push((fault.clone(), action));
            } else {
                self.judge(fault, action, now, &mut news);
            }
        }
        self.heard = faults.told();
        news
    }

    /// Whether a look would decide something.
    pub fn is_undecided(&self) -> bool {
        !self.unjudged.is_empty()
    }

    /// No look comes: what was left to it is decided by what is prescribed.
    pub fn silent(&mut self, now: Duration) -> Vec<FindingNews> {
        let mut news = Vec::new();
        for (fault, action) in std::mem::take(&mut self.unjudged) {
            self.raise_fault(&fault, action, now, &mut news);
        }
        news
    }

    fn know(&mut self, gpu: &Gpu, now: Duration) {
        let is_used = gpu.processes.iter().any(|process| process.ours);
        let known = self.known.entry(name(gpu.index, &gpu.uuid)).or_insert_with(|| Known {
            gpu: gpu.clone(),
            used: None,
            faulted: None,
            episodes: Vec::new(),
        });
        known.gpu = gpu.clone();
        if is_used {
            known.used = Some(now);
        }
    }

    /// Whether vLLM uses it: by its processes there, or, where they cannot be told, by what vLLM was
    /// given.
    fn is_ours(&self, name: &Name, now: Duration) -> bool {
        let Some(known) = self.known.get(name) else { return false };
        if self.known.values().any(|known| known.used.is_some()) {
            return known.used.is_some_and(|used| now.saturating_sub(used) < OURS_FOR);
        }
        self.rules.devices.include(&known.gpu, self.known.len()) == Some(true)
    }

    fn see(&mut self, wrong: Wrong, now: Duration, news: &mut Vec<FindingNews>) {
        let key = key_of(&wrong);
        if let Some(active) = self.active.get_mut(&key) {
            active.seen = now;
            return;
        }
        let since = *self.lasting.entry(key.clone()).or_insert(now);
        if now.saturating_sub(since) >= reading::raised_after(wrong.kind) {
            self.raise(wrong, now, news);
        }
    }

    fn raise(&mut self, wrong: Wrong, now: Duration, news: &mut Vec<FindingNews>) {
        let key = key_of(&wrong);
        self.lasting.remove(&key);
        let Wrong { index, uuid, kind, action, summary } = wrong;
        let is_ours = self.is_ours(&key.0, now);
        let finding = GpuFinding { is_ours, ..GpuFinding::new(index, uuid, kind, action, summary) };
        self.active.insert(key, Active { finding: finding.clone(), seen: now });
        news.push(FindingNews::Raised(finding));
    }

    /// What a fault comes to, by what the driver now says of the GPU.
    fn judge(
        &mut self,
        fault: &DriverFault,
        prescribed: GpuAction,
        now: Duration,
        news: &mut Vec<FindingNews>,
    ) {
        let known = self.known.get(&name(fault.index, &fault.uuid));
        let action = match known.and_then(|known| known.gpu.condition.recovery_action) {
            None => prescribed,
            // The GPU can be used again at once, by another process.
            Some(0) => prescribed.min(GpuAction::RestartApplication),
            Some(field) => GpuAction::of_recovery_field(field),
        };
        self.raise_fault(fault, action, now, news);
    }

    fn raise_fault(
        &mut self,
        fault: &DriverFault,
        action: GpuAction,
        now: Duration,
        news: &mut Vec<FindingNews>,
    ) {
        let DriverFault { index, uuid, xid, .. } = fault;
        let (kind, summary) = (FindingKind::Xid(*xid), in_words(*xid));
        let wrong = Wrong { index: *index, uuid: uuid.clone(), kind, action, summary };
        match self.active.get_mut(&key_of(&wrong)) {
            Some(active) if active.finding.action >= action => active.seen = now,
            Some(_) | None => self.raise(wrong, now, news),
        }
        if action == GpuAction::RestartApplication && !is_of_application(*xid) {
            self.count(*index, uuid, now, news);
        }
    }

    /// A GPU that has one fault after another is not cured by restarts.
    fn count(&mut self, index: u32, uuid: &str, now: Duration, news: &mut Vec<FindingNews>) {
        let name = name(index, uuid);
        let is_ours = self.is_ours(&name, now);
        let Some(known) = self.known.get_mut(&name).filter(|_| is_ours) else { return };
        let before = known.faulted.replace(now);
        if before.is_some_and(|before| now.saturating_sub(before) < EPISODE) {
            return;
        }
        known.episodes.retain(|began| now.saturating_sub(*began) < RECURRING_WITHIN);
        known.episodes.push(now);
        if known.episodes.len() >= RECURRING {
            let (kind, action) = (FindingKind::RecurringFaults, GpuAction::ContactSupport);
            let minutes = RECURRING_WITHIN.as_secs() / 60;
            let summary = format!("{RECURRING} faults within {minutes} minutes");
            let wrong = Wrong { index, uuid: uuid.to_owned(), kind, action, summary };
            self.see(wrong, now, news);
        }
    }

    /// Of a GPU that is not there, or does not say, nothing is cleared.
    fn clear(&mut self, snapshot: &GpuSnapshot, now: Duration, news: &mut Vec<FindingNews>) {
        for gpu in &snapshot.gpus {
            let name = name(gpu.index, &gpu.uuid);
            self.active.retain(|(of, kind), active| {
                if *of != name {
                    return true;
                }
                let action = active.finding.action;
                match reading::is_wrong(*kind, action, gpu) {
                    Some(false) => {}
                    Some(true) => active.seen = now,
                    None => return true,
                }
                let is_over =
                    now.saturating_sub(active.seen) >= reading::cleared_after(*kind, action);
                if is_over {
                    news.push(FindingNews::Cleared(active.finding.clone()));
                }
                !is_over
            });
        }
    }
}

fn key_of(wrong: &Wrong) -> (Name, FindingKind) {
    (name(wrong.index, &wrong.uuid), wrong.kind)
}

fn name(index: u32, uuid: &str) -> Name {
    if uuid.is_empty() { format!("#{index}") } else { uuid.to_owned() }
}

#[cfg(test)]
mod tests;
