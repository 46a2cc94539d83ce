//! From looks and faults to findings: what is raised when it has lasted, and cleared when it has been
//! gone for long enough.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reading::{self, Wrong};
use super::xid::{XidClass, in_words};
use super::{
    DriverFault, DriverFaults, FindingKind, Gpu, GpuAction, GpuFinding, GpuRules, GpuSnapshot,
    Reachability,
};

/// What has become of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingNews {
    /// This is wrong from now on, or more is to be done about it than before.
    Raised(GpuFinding),
    /// This is not wrong any more.
    Cleared(GpuFinding),
}

impl FindingNews {
    /// Brings what is known to be wrong up to date.
    pub fn enter(&self, known: &mut Vec<GpuFinding>) {
        let (Self::Raised(finding) | Self::Cleared(finding)) = self;
        known.retain(|it| !it.is_of_same(finding));
        if let Self::Raised(finding) = self {
            known.push(finding.clone());
        }
    }
}

/// A GPU is vLLM's for so long after a process of it was last seen there: it may have died of the
/// fault.
const OURS_FOR: Duration = Duration::from_secs(60);

/// And for so many looks at it, where these are far apart.
const OURS_FOR_LOOKS: u32 = 3;

/// The same fault, closer to the one before than this, is no other one.
const EPISODE: Duration = Duration::from_secs(30);

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
    /// The looks since then that would have shown it.
    looks: u32,
}

impl Known {
    fn is_ours(&self, now: Duration) -> bool {
        let lately =
            |used: Duration| now.saturating_sub(used) < OURS_FOR || self.looks < OURS_FOR_LOOKS;
        self.used.is_some_and(lately)
    }
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
        snapshot.gpus.iter().for_each(|gpu| self.rename(gpu));
        for gpu in &snapshot.gpus {
            let known = self.known.get(&name(gpu.index, &gpu.uuid));
            wrong.extend(reading::wrongs(gpu, known.map(|known| &known.gpu)));
        }
        let is_gone = |of: &Name| snapshot.gpus.iter().all(|it| name(it.index, &it.uuid) != *of);
        let gone = self.known.iter().filter(|(name, _)| is_gone(name));
        wrong.extend(gone.map(|(_, known)| reading::missing(&known.gpu)));
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
        self.own(now, &mut news);
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
            if self.rules.xids.is_overridden(fault.xid) {
                self.raise_fault(fault, action, now, &mut news);
            } else if says {
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
        let known = self.known.entry(name(gpu.index, &gpu.uuid));
        let known = known.or_insert_with(|| Known { gpu: gpu.clone(), used: None, looks: 0 });
        known.gpu = gpu.clone();
        if is_used {
            (known.used, known.looks) = (Some(now), 0);
        } else if gpu.condition.reachability == Reachability::Answers {
            known.looks = known.looks.saturating_add(1);
        } else if known.is_ours(now) {
            // Who cannot be asked does not say that vLLM has gone.
            known.used = Some(now);
        }
    }

    /// A GPU that has said who it is is the one that had not, at the same place.
    fn rename(&mut self, gpu: &Gpu) {
        if gpu.uuid.is_empty() {
            return;
        }
        let unnamed = name(gpu.index, "");
        self.known.remove(&unnamed);
        let (renamed, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.active).into_iter().partition(|((of, _), _)| *of == unnamed);
        self.active = others.into_iter().collect();
        for ((_, kind), mut active) in renamed {
            active.finding.uuid.clone_from(&gpu.uuid);
            self.active.insert((gpu.uuid.clone(), kind), active);
        }
    }

    /// Where it is certain whose GPUs are, what blocks them is told as that.
    fn own(&mut self, now: Duration, news: &mut Vec<FindingNews>) {
        let names: Vec<Name> = self.active.keys().map(|(name, _)| name.clone()).collect();
        let owned: Vec<Option<bool>> = names.iter().map(|name| self.is_ours(name, now)).collect();
        for (active, is_ours) in self.active.values_mut().zip(owned) {
            let finding = &mut active.finding;
            if let Some(is_ours) = is_ours
                && finding.action.blocks()
                && finding.is_ours != is_ours
            {
                finding.is_ours = is_ours;
                news.push(FindingNews::Raised(finding.clone()));
            }
        }
    }

    /// Whether vLLM uses it: by its processes there, or, where they cannot be told, by what vLLM was
    /// given; `None` if nobody can say.
    fn is_ours(&self, name: &Name, now: Duration) -> Option<bool> {
        let given = |gpu: &Gpu| self.rules.devices.include(gpu, self.known.len());
        let is_seen = self.known.values().any(|known| known.is_ours(now));
        match self.known.get(name) {
            Some(known) if is_seen => Some(known.is_ours(now)),
            Some(known) => given(&known.gpu),
            // It is not there, and vLLM is on others, or is given others.
            None if is_seen => Some(false),
            None => self.known.values().any(|it| given(&it.gpu) == Some(true)).then_some(false),
        }
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
        let is_ours = self.is_ours(&key.0, now) == Some(true);
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
            Some(field) => match GpuAction::of_recovery_field(field) {
                // The GPU can be used again at once, by another process.
                GpuAction::None => prescribed.min(GpuAction::RestartApplication),
                action => action,
            },
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
            // Of the same fault, which is told for each context.
            Some(active)
                if active.finding.action >= action
                    && (action.blocks() || now.saturating_sub(active.seen) < EPISODE) =>
            {
                active.seen = now;
            }
            Some(_) | None => self.raise(wrong, now, news),
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
