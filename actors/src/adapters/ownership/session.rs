//! Who belongs to a launch by session, by the marker in its environment, or by descent from one that
//! does.
//!
//! A session that a member made is inherited by his descendants alone, so whoever is in one that a
//! member heads descends from him. Of those who show no environment `hidden` tells.
//!
//! The kernel gives the session's number to nobody else while anybody is in it (Linux, `kernel/pid.c`,
//! `free_pid`). So nobody is left once another process has it, or nobody is seen in it, and it counts no
//! more. Where its leader has ended, that may have been the main process, or a stranger that was given
//! the number in between, as a daemon's first process is: it counts if one in it is known otherwise, and
//! is a doubt if none is.
//!
//! A process that is older than the main process, or than the claim, does not belong, whatever it looks
//! like; neither do we, nor anybody we descend from.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::pidfd::Held;
use super::roster::Roster;
use crate::adapters::proc_fs::{self, Stat};
use crate::domain::absence::ScanError;

/// How often those are looked at who were born during the look before: each time there are fewer.
const MOST_ROUNDS: u32 = 20;

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
    /// `NAME=value` each, one of which is in the environment of each unless it took it out.
    variables: Vec<Vec<u8>>,
}

impl Marked {
    pub(in crate::adapters) fn by(variable: String) -> Self {
        Self::by_any(vec![variable.into_bytes()])
    }

    pub(in crate::adapters) fn by_any(variables: Vec<Vec<u8>>) -> Self {
        Self { variables }
    }

    /// Enters whoever belongs, and takes out who has died.
    ///
    /// Somebody always comes and goes meanwhile, and may leave a child. Numbers are given upwards, so
    /// whoever is born meanwhile is known by his, and is looked at until nobody was. Only where
    /// numbers begin anew does that not hold. One whose number is given already, and who cannot be
    /// seen yet, is just being started by a member, who then is seen to have ended since, or lives.
    pub(super) fn look(&self, roster: &mut Roster, depth: Depth) -> Result<(), ScanError> {
        roster.bury();
        let session = Session::of(roster)?;
        let latest = proc_fs::latest_pid()?;
        let mut look = Look::begin(self, session, roster.begun());
        proc_fs::each_pid(|pid| look.at(pid, roster, depth))?;
        look.catch_up(latest, roster, depth)?;
        look.reap_adopted();
        look.add_descendants(roster);
        look.judge_session(roster);
        look.judge_hidden(roster);
        look.judge_blank(roster);
        let Look { candidates, mut found, mut strangers, mut flaw, .. } = look;
        if !found.is_empty() {
            let us = ourselves()?;
            found.retain(|pid| !us.contains(pid));
        }
        for pid in &found {
            strangers.remove(pid);
            if let Err(error) = candidates.get(pid).map_or(Ok(()), |it| roster.enter(it)) {
                flaw.get_or_insert(error);
            }
        }
        let lives = |pid: u32| roster.member(pid).is_some_and(|it| !it.held.has_ended());
        if let Some(pid) = found.into_iter().find(|pid| !lives(*pid)) {
            // Its child may have been born when all numbers had been visited.
            let said = "it has ended since it was seen, and may have left another";
            flaw.get_or_insert(ScanError::new(format!("process {pid}"), &said));
        }
        roster.strangers = strangers;
        flaw.map_or(Ok(()), Err)
    }

    pub(super) fn has_marked(&self, pid: u32) -> Result<bool, ScanError> {
        match self.is_marked(pid)? {
            Mark::Ours => Ok(true),
            Mark::Another | Mark::NoneYet => Ok(false),
            Mark::Hidden(error) => Err(error),
        }
    }

    fn is_marked(&self, pid: u32) -> Result<Mark, ScanError> {
        let environment = match proc_fs::environment(pid) {
            Ok(environment) => environment.unwrap_or_default(),
            Err(error) if proc_fs::is_refusal(&error) => return Mark::of_refused(pid, error),
            Err(error) => return Err(error),
        };
        if environment.is_empty() {
            return Ok(Mark::NoneYet);
        }
        let is_ours =
            proc_fs::has_variable(&environment, |it| self.variables.iter().any(|one| one == it));
        Ok(if is_ours { Mark::Ours } else { Mark::Another })
    }
}

/// What an environment says.
enum Mark {
    Ours,
    Another,
    /// It shows none: it has none, or it is amid an `exec`.
    NoneYet,
    /// We may not read it, though it is our user's.
    Hidden(ScanError),
}

impl Mark {
    fn of_refused(pid: u32, error: ScanError) -> Result<Self, ScanError> {
        Ok(if proc_fs::is_of_another_user(pid)? { Self::Another } else { Self::Hidden(error) })
    }
}

/// Whose the session is that has the number of the main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters) enum Session {
    /// Nobody's of the launch.
    Nobodys,
    /// Of the launch: the main process has its number, dead or alive.
    Led(u32),
    /// Of the launch, or of a stranger: whoever had the number has ended.
    Leaderless(u32),
}

impl Session {
    fn of(roster: &mut Roster) -> Result<Self, ScanError> {
        let Some((number, start_time)) = roster.origin() else { return Ok(Self::Nobodys) };
        match Stat::of(number) {
            Ok(None) => return Ok(Self::Leaderless(number)),
            Ok(Some(leader)) if leader.start_time == start_time => return Ok(Self::Led(number)),
            Ok(Some(_)) => {}
            Err(error) if proc_fs::is_refusal(&error) && proc_fs::is_of_another_user(number)? => {}
            Err(error) => return Err(error),
        }
        roster.lose_session();
        Ok(Self::Nobodys)
    }

    pub(super) fn number(self) -> Option<u32> {
        match self {
            Self::Nobodys => None,
            Self::Led(number) | Self::Leaderless(number) => Some(number),
        }
    }
}

/// What one look has shown.
pub(super) struct Look<'a> {
    marked: &'a Marked,
    pub(super) session: Session,
    /// Whoever is older does not belong.
    pub(super) begun: u64,
    pub(super) candidates: BTreeMap<u32, Stat>,
    pub(super) found: BTreeSet<u32>,
    pub(super) strangers: BTreeSet<u32>,
    /// Those who show nothing to tell by, and what the system said.
    pub(super) hidden: BTreeMap<u32, ScanError>,
    /// Those who show no environment, though it may be read.
    blank: BTreeSet<(u32, u64)>,
    flaw: Option<ScanError>,
}

impl<'a> Look<'a> {
    fn begin(marked: &'a Marked, session: Session, begun: u64) -> Self {
        Self {
            marked,
            session,
            begun,
            candidates: BTreeMap::new(),
            found: BTreeSet::new(),
            strangers: BTreeSet::new(),
            hidden: BTreeMap::new(),
            blank: BTreeSet::new(),
            flaw: None,
        }
    }

    /// Looks at those who were born after this number was given.
    fn catch_up(&mut self, mut seen: u32, roster: &Roster, depth: Depth) -> Result<(), ScanError> {
        for _ in 0..MOST_ROUNDS {
            let latest = proc_fs::latest_pid()?;
            match latest.cmp(&seen) {
                Ordering::Equal => return Ok(()),
                Ordering::Less => {
                    let said = "numbers began anew while it was read";
                    self.flawed_by(ScanError::new("/proc", &said));
                    return Ok(());
                }
                Ordering::Greater => {}
            }
            let born = seen..latest;
            proc_fs::each_pid(|pid| {
                if born.contains(&(pid - 1)) {
                    self.at(pid, roster, depth);
                }
            })?;
            seen = latest;
        }
        self.flawed_by(ScanError::new("/proc", &"more are born than can be looked at"));
        Ok(())
    }

    pub(super) fn flawed_by(&mut self, error: ScanError) {
        self.flaw.get_or_insert(error);
    }

    /// Whether this one belongs by itself. Who surely does not is a stranger from now on.
    fn at(&mut self, pid: u32, roster: &Roster, depth: Depth) {
        if depth != Depth::Everyone && roster.strangers.contains(&pid) {
            self.strangers.insert(pid);
            return;
        }
        let stat = match Stat::of(pid) {
            Ok(Some(stat)) => stat,
            Ok(None) => return,
            Err(error) if proc_fs::is_refusal(&error) => {
                return self.judge(pid, Mark::of_refused(pid, error));
            }
            Err(error) => return self.flawed_by(error),
        };
        if stat.start_time < self.begun {
            self.strangers.insert(pid);
            return;
        }
        if stat.is_zombie() || stat.is_kernel_thread {
            // Its parent may never reap it.
            self.strangers.insert(pid);
        } else if self.session == Session::Led(stat.session) {
            self.found.insert(pid);
        } else {
            let mark = match self.marked.is_marked(pid) {
                // That it carries no marker is not all: see `judge_session`.
                Ok(Mark::Another) if self.session == Session::Leaderless(stat.session) => None,
                Ok(Mark::NoneYet) => {
                    self.blank.insert((pid, stat.start_time));
                    None
                }
                mark => Some(mark),
            };
            if let Some(mark) = mark {
                self.judge(pid, mark);
            }
        }
        self.candidates.insert(pid, stat);
    }

    fn judge(&mut self, pid: u32, mark: Result<Mark, ScanError>) {
        match mark {
            Ok(Mark::Ours) => {
                self.found.insert(pid);
            }
            Ok(Mark::Another) => {
                self.strangers.insert(pid);
            }
            Ok(Mark::NoneYet) => {}
            Ok(Mark::Hidden(error)) => {
                self.hidden.insert(pid, error);
            }
            Err(error) => self.flawed_by(error),
        }
    }

    /// Children of members, whoever is in a session that a member heads, their children, and so on.
    fn add_descendants(&mut self, roster: &Roster) {
        loop {
            let is_ancestor = |pid: u32, born: u64| {
                let known = roster.member(pid).map(|member| member.held.start_time);
                let fresh = self.found.contains(&pid).then(|| self.candidates.get(&pid)).flatten();
                let start_time = known.or_else(|| fresh.map(|stat| stat.start_time));
                start_time.is_some_and(|start_time| start_time <= born)
            };
            let us = std::process::id();
            let children: Vec<u32> = self
                .candidates
                .values()
                .filter(|it| !it.is_zombie() && it.pid != us && !self.found.contains(&it.pid))
                .filter(|it| {
                    is_ancestor(it.parent, it.start_time) || is_ancestor(it.session, it.start_time)
                })
                .map(|it| it.pid)
                .collect();
            if children.is_empty() {
                return;
            }
            self.found.extend(children);
        }
    }

    /// Says whose a session is whose leader has ended, once it is known who else belongs.
    fn judge_session(&mut self, roster: &mut Roster) {
        let Session::Leaderless(number) = self.session else { return };
        let living = self.candidates.values().filter(|it| !it.is_zombie());
        let inside: Vec<&Stat> = living.filter(|it| it.session == number).collect();
        // We make no launch a session of ours.
        if inside.iter().any(|stat| stat.pid == std::process::id()) {
            return roster.lose_session();
        }
        let is_known = |stat: &&Stat| {
            let known = roster.member(stat.pid);
            self.found.contains(&stat.pid)
                || known.is_some_and(|member| member.held.start_time == stat.start_time)
        };
        if inside.iter().any(is_known) {
            let pids: Vec<u32> = inside.iter().map(|stat| stat.pid).collect();
            self.found.extend(pids);
            self.add_descendants(roster);
            return;
        }
        if let Some(stat) = inside.first() {
            let who = format!("process {} ({})", stat.pid, stat.name);
            let said = format!(
                "it is in session {number}, which was vLLM's and whose leader has ended, and shows \
                 nothing of vLLM; end it if it is vLLM's"
            );
            return self.flawed_by(ScanError::undecided(who, &said));
        }
        let all_are_seen = self.hidden.keys().all(|pid| self.candidates.contains_key(pid));
        if all_are_seen && self.flaw.is_none() {
            roster.lose_session();
        }
    }

    /// Who is amid an `exec` is waited for: it shows what it carries at the next look. Others have no
    /// environment, and are not asked twice.
    fn judge_blank(&mut self, roster: &mut Roster) {
        let blank = std::mem::take(&mut self.blank);
        let is_new =
            |one: &&(u32, u64)| !roster.blank.contains(*one) && !self.found.contains(&one.0);
        if let Some((pid, _)) = blank.iter().find(is_new) {
            let error = ScanError::new(format!("process {pid}"), &"it may be amid an exec");
            self.flawed_by(error);
        }
        roster.blank = blank;
    }

    /// Waits for the dead of the session that have become our children, as happens where the
    /// supervisor is process 1 of a container.
    fn reap_adopted(&self) {
        let session = self.session.number();
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

/// We, our parent, its parent, and so on, up to one that we may not look at (proc(5), `hidepid`).
///
/// That one is another user's, or hides itself: it shows no mark, and nobody finds it. Beyond it there is
/// nobody of a launch of ours, who would be younger than we are; and of another's only if we were started
/// out of that launch, by way of a program like sudo.
pub(super) fn ourselves() -> Result<BTreeSet<u32>, ScanError> {
    let mut us = BTreeSet::new();
    let mut next = std::process::id();
    while next != 0 && us.insert(next) {
        next = match Stat::of(next) {
            Err(error) if proc_fs::is_refusal(&error) => 0,
            stat => stat?.map_or(0, |stat| stat.parent),
        };
    }
    Ok(us)
}
