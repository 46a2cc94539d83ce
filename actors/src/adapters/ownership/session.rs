//! Who belongs to a launch by session, by the marker in its environment, or by descent from one that
//! does.
//!
//! The session's number counts only as long as the kernel cannot have given it to somebody else,
//! that is while the main process lives or waits to be reaped. A process that is older than the main
//! process does not belong, whatever it looks like; neither do we, nor anybody we descend from.

use std::collections::{BTreeMap, BTreeSet};

use super::pidfd::Held;
use super::roster::Roster;
use crate::adapters::proc_fs::{self, Stat};
use crate::domain::absence::ScanError;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters) enum Depth {
    /// As cheap as can be, for every second of a launch that serves.
    Glance,
    /// At those who were not there at the last look.
    Newcomers,
    /// At everybody: who was amid an `exec` shows no environment (Linux, `fs/exec.c`,
    /// `begin_new_exec`), and may show one now.
    Everyone,
}

/// What marks the members of a launch.
#[derive(Debug)]
pub(in crate::adapters) struct Marked {
    /// `NAME=value`, which is in the environment of each unless it took it out.
    variable: String,
}

impl Marked {
    pub(in crate::adapters) fn by(variable: String) -> Self {
        Self { variable }
    }

    /// Enters whoever belongs, and takes out who has died.
    pub(super) fn look(&self, roster: &mut Roster, depth: Depth) -> Result<(), ScanError> {
        roster.bury();
        let head = roster.head().cloned();
        let session = match &head {
            Some(head) if head.has_its_number()? => Some(head.pid),
            Some(_) | None => None,
        };
        let mut look = Look::at_everybody(roster, depth)?;
        if let Some(head) = &head {
            look.set_apart_older_than(head.start_time);
        }
        look.reap_adopted(session);
        look.notice_dead(roster)?;
        let mut found = self.matching(&mut look, session);
        let (mut strangers, mut flaw) = (std::mem::take(&mut look.strangers), look.flaw.take());
        look.add_descendants(roster, &mut found);
        if !found.is_empty() {
            let us = ourselves()?;
            found.retain(|pid| !us.contains(pid));
        }
        for pid in &found {
            strangers.remove(pid);
            if let Err(error) = look.candidates.get(pid).map_or(Ok(()), |it| roster.enter(it)) {
                flaw.get_or_insert(error);
            }
        }
        roster.strangers = strangers;
        flaw.map_or(Ok(()), Err)
    }

    /// Those that belong by themselves. Who surely does not is a stranger from now on.
    fn matching(&self, look: &mut Look, session: Option<u32>) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let living = look.candidates.values().filter(|stat| !stat.is_zombie());
        let living: Vec<_> = living.map(|stat| (stat.pid, stat.session)).collect();
        for (pid, its_session) in living {
            if session == Some(its_session) {
                found.insert(pid);
                continue;
            }
            match self.is_marked(pid) {
                Ok(Mark::Ours) => {
                    found.insert(pid);
                }
                Ok(Mark::Another) => {
                    look.strangers.insert(pid);
                }
                Ok(Mark::NoneYet) => {}
                Ok(Mark::Gone) => look.missed_somebody(),
                Err(error) => {
                    look.flaw.get_or_insert(error);
                }
            }
        }
        found
    }

    fn is_marked(&self, pid: u32) -> Result<Mark, ScanError> {
        let environment = match proc_fs::environment(pid) {
            Ok(Some(environment)) => environment,
            Ok(None) => return Ok(Mark::Gone),
            Err(error) if proc_fs::is_refusal(&error) && !may_be_ours(pid)? => {
                return Ok(Mark::Another);
            }
            Err(error) => return Err(error),
        };
        if environment.is_empty() {
            let lives = Stat::of(pid)?.is_some_and(|stat| !stat.is_zombie());
            return Ok(if lives { Mark::NoneYet } else { Mark::Gone });
        }
        let ours = proc_fs::has_variable(&environment, |it| it == self.variable.as_bytes());
        Ok(if ours { Mark::Ours } else { Mark::Another })
    }
}

/// What an environment says.
enum Mark {
    Ours,
    Another,
    /// It shows none: it has none, or it is amid an `exec`.
    NoneYet,
    /// It has ended before it could be asked.
    Gone,
}

/// Whether one whose environment we may not read can be one that we started. Who guards its memory
/// belongs to root, as `/proc` tells it; who may do more than we (ptrace(2), access mode checking)
/// has not got that from us.
fn may_be_ours(pid: u32) -> Result<bool, ScanError> {
    let us = rustix::process::geteuid().as_raw();
    if proc_fs::owner(pid)?.is_none_or(|owner| owner != us) {
        return Ok(false);
    }
    let ours = proc_fs::capabilities(std::process::id())?.unwrap_or(u64::MAX);
    Ok(proc_fs::capabilities(pid)?.is_some_and(|its| its & !ours == 0))
}

/// What one look has shown.
struct Look {
    candidates: BTreeMap<u32, Stat>,
    strangers: BTreeSet<u32>,
    flaw: Option<ScanError>,
}

impl Look {
    /// Those who are new come first: the sooner they are read, the fewer are gone by then.
    fn at_everybody(roster: &Roster, depth: Depth) -> Result<Self, ScanError> {
        let mut look = Self { candidates: BTreeMap::new(), strangers: BTreeSet::new(), flaw: None };
        let is_stranger = |pid: &u32| roster.strangers.contains(pid);
        let (strangers, new): (Vec<u32>, Vec<u32>) =
            proc_fs::pids()?.into_iter().partition(is_stranger);
        for pid in new {
            match Stat::of(pid) {
                Ok(Some(stat)) => {
                    look.candidates.insert(pid, stat);
                }
                Ok(None) if roster.member(pid).is_some() => {}
                Ok(None) => look.missed_somebody(),
                Err(error) => {
                    look.flaw.get_or_insert(error);
                }
            }
        }
        if depth != Depth::Everyone {
            look.strangers.extend(strangers);
            return Ok(look);
        }
        for pid in strangers {
            match Stat::of(pid) {
                Ok(stat) => look.candidates.extend(stat.map(|stat| (pid, stat))),
                Err(error) => {
                    look.flaw.get_or_insert(error);
                }
            }
        }
        Ok(look)
    }

    fn set_apart_older_than(&mut self, start_time: u64) {
        let older = self.candidates.values().filter(|stat| stat.start_time < start_time);
        self.strangers.extend(older.map(|stat| stat.pid));
        self.candidates.retain(|_, stat| stat.start_time >= start_time);
    }

    /// Who came and went may have belonged, and have left a child that is not listed.
    fn missed_somebody(&mut self) {
        let said = "somebody came and went while it was read";
        self.flaw.get_or_insert_with(|| ScanError::passing("/proc", &said));
    }

    /// One that is dead at first sight has come and gone too, unless it is the child of a stranger;
    /// its parent may never reap it, so it counts once.
    fn notice_dead(&mut self, roster: &Roster) -> Result<(), ScanError> {
        let head = roster.head().map(|head| head.pid);
        let dead = self.candidates.values().filter(|it| it.is_zombie() && head != Some(it.pid));
        let dead: Vec<_> = dead.map(|stat| (stat.pid, stat.parent)).collect();
        let is_new = |pid: u32| !roster.strangers.contains(&pid);
        let fresh: Vec<u32> = dead.iter().filter(|it| is_new(it.0)).map(|it| it.1).collect();
        if !fresh.is_empty() {
            let reapers = reapers(roster)?;
            let stranger = |parent: &u32| {
                roster.strangers.contains(parent)
                    && reapers.as_ref().is_some_and(|reapers| !reapers.contains(parent))
            };
            if !fresh.iter().all(stranger) {
                self.missed_somebody();
            }
        }
        self.strangers.extend(dead.into_iter().map(|(pid, _)| pid));
        Ok(())
    }

    /// Children of members, their children, and so on.
    fn add_descendants(&self, roster: &Roster, found: &mut BTreeSet<u32>) {
        loop {
            let is_parent = |pid: u32, born: u64| {
                let known = roster.member(pid).map(|member| member.held.start_time);
                let fresh = found.contains(&pid).then(|| self.candidates.get(&pid)).flatten();
                let start_time = known.or_else(|| fresh.map(|stat| stat.start_time));
                start_time.is_some_and(|start_time| start_time <= born)
            };
            let us = std::process::id();
            let children: Vec<u32> = self
                .candidates
                .values()
                .filter(|it| !it.is_zombie() && it.pid != us && !found.contains(&it.pid))
                .filter(|it| is_parent(it.parent, it.start_time))
                .map(|it| it.pid)
                .collect();
            if children.is_empty() {
                return;
            }
            found.extend(children);
        }
    }

    /// Waits for the dead of the session that have become our children, as happens where the
    /// supervisor is process 1 of a container.
    fn reap_adopted(&self, session: Option<u32>) {
        let dead = self.candidates.values().filter(|stat| {
            stat.is_zombie()
                && session == Some(stat.session)
                && session != Some(stat.pid)
                && stat.parent == std::process::id()
        });
        for stat in dead {
            if let Ok(Some(held)) = Held::open(stat.pid, stat.start_time) {
                held.reap();
            }
        }
    }
}

/// Who may have become the parent of a member whose parent has ended (prctl(2),
/// `PR_SET_CHILD_SUBREAPER`): process 1, or somebody whom the main process descends from. `None` if
/// that cannot be known.
fn reapers(roster: &Roster) -> Result<Option<BTreeSet<u32>>, ScanError> {
    let Some(parent) = roster.parent_of_head() else { return Ok(None) };
    let mut reapers = ourselves()?;
    reapers.extend([1, parent]);
    Ok(Some(reapers))
}

/// We, our parent, its parent, and so on.
fn ourselves() -> Result<BTreeSet<u32>, ScanError> {
    let mut us = BTreeSet::new();
    let mut next = std::process::id();
    while next != 0 && us.insert(next) {
        next = Stat::of(next)?.map_or(0, |stat| stat.parent);
    }
    Ok(us)
}
