//! Who is known to belong to a launch and lives, each held by a descriptor; and who has died.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::pidfd::Held;
use super::undecided::Undecided;
use crate::adapters::proc_fs::{self, Stat};
use crate::domain::absence::{Leftover, ScanError};
use crate::domain::diagnosis::Exit;
use crate::domain::report::{Halt, Role, Work};
use crate::ports::Death;

/// A fork that shows the title of its parent for so long has no other: it executes nothing, and is no
/// tool that vLLM uses for a moment. Longer than a fork takes to execute something on a busy machine.
const UNTITLED_AFTER: Duration = Duration::from_secs(1);

/// One that belongs to the launch.
#[derive(Debug)]
pub(in crate::adapters) struct Member {
    pub(in crate::adapters) held: Arc<Held>,
    pub(in crate::adapters) role: Role,
    /// Whether it is the resource tracker of Python's `multiprocessing`.
    pub(in crate::adapters) is_tracker: bool,
    name: String,
    /// Since when it shows the title of its parent.
    borrows_since: Option<Instant>,
    /// What it had done when that was last measured.
    work: Work,
}

impl Member {
    pub(super) fn leftover(&self) -> Leftover {
        Leftover::Process { pid: self.held.pid, name: self.name.clone() }
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::adapters) struct Roster {
    head: Option<Arc<Held>>,
    /// Pid and start time of the main process, for as long as its session may have members.
    origin: Option<(u32, u64)>,
    /// Start time that nobody of the launch is older than.
    begun: u64,
    members: BTreeMap<u32, Member>,
    /// Those who were looked at, and do not belong.
    pub(super) strangers: BTreeSet<u32>,
    pub(super) undecided: Undecided,
    /// Those who showed no environment at the last look, by number and start time.
    pub(super) blank: BTreeSet<(u32, u64)>,
    /// How many have been entered so far.
    entered: u64,
    /// What those did who have died.
    past: Work,
    deaths: mpsc::UnboundedSender<Death>,
    end: watch::Sender<Option<Exit>>,
}

impl Roster {
    pub(in crate::adapters) fn new(
        deaths: mpsc::UnboundedSender<Death>,
        end: watch::Sender<Option<Exit>>,
    ) -> Self {
        Self {
            head: None,
            origin: None,
            begun: 0,
            members: BTreeMap::new(),
            strangers: BTreeSet::new(),
            undecided: Undecided::default(),
            blank: BTreeSet::new(),
            entered: 0,
            past: Work::default(),
            deaths,
            end,
        }
    }

    /// Has the session of this main process counted, whether it lives or not.
    pub(in crate::adapters) fn originate(&mut self, main: (u32, u64)) {
        self.origin = Some(main);
        self.begin(main.1);
    }

    /// Nobody of the launch has begun before.
    pub(in crate::adapters) fn begin(&mut self, start_time: u64) {
        self.begun = self.begun.max(start_time);
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    pub(in crate::adapters) fn origin(&self) -> Option<(u32, u64)> {
        self.origin
    }

    /// Nobody is left in the session of the main process: whoever has its number now is a stranger.
    pub(super) fn lose_session(&mut self) {
        self.origin = None;
    }

    /// Nobody is left: the main process is reaped, and its session counts no more.
    pub(in crate::adapters) fn dissolve(&mut self) {
        self.lose_session();
        if let Some(head) = &self.head {
            head.reap();
        }
    }

    /// Enters the main process.
    pub(in crate::adapters) fn lead(&mut self, head: Arc<Held>) {
        self.originate((head.pid, head.start_time));
        self.head = Some(Arc::clone(&head));
        self.insert(head, "vllm".to_owned(), Role::ApiServer);
    }

    pub(in crate::adapters) fn head(&self) -> Option<&Arc<Held>> {
        self.head.as_ref()
    }

    /// Those who live.
    pub(in crate::adapters) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(super) fn member(&self, pid: u32) -> Option<&Member> {
        self.members.get(&pid)
    }

    pub(super) fn entered(&self) -> u64 {
        self.entered
    }

    fn insert(&mut self, held: Arc<Held>, name: String, role: Role) {
        self.entered += 1;
        let pid = held.pid;
        let work = Work::default();
        let member = Member { held, role, is_tracker: false, name, borrows_since: None, work };
        self.members.insert(pid, member);
    }

    /// Enters a process that was seen to belong, unless it has ended.
    pub(super) fn enter(&mut self, stat: &Stat) -> Result<(), ScanError> {
        let is_known =
            self.member(stat.pid).is_some_and(|member| member.held.start_time == stat.start_time);
        if is_known || stat.is_zombie() {
            return Ok(());
        }
        if let Some(held) = Held::open(stat.pid, stat.start_time)? {
            self.insert(Arc::new(held), stat.name.clone(), Role::Helper);
        }
        Ok(())
    }

    /// Enters all of these numbers; one that cannot be entered does not keep the others out.
    pub(super) fn enter_all(&mut self, pids: &[u32]) -> Result<(), ScanError> {
        let mut entered = Ok(());
        for pid in pids.iter().filter(|pid| **pid != std::process::id()) {
            if self.member(*pid).is_some_and(|member| !member.held.has_ended()) {
                continue;
            }
            let one = match Stat::of(*pid) {
                Ok(Some(stat)) => self.enter(&stat),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            entered = entered.and(one);
        }
        entered
    }

    /// Takes out whoever has died, and tells of it; learns the titles of the living.
    pub(super) fn refresh(&mut self) {
        self.bury();
        let is_open = |member: &&Member| matches!(member.role, Role::Helper | Role::Untitled);
        let open: Vec<u32> = self.members().filter(is_open).map(|it| it.held.pid).collect();
        for pid in open {
            // Unread, it stays what it was.
            let Ok(Some(title)) = proc_fs::command_line(pid) else { continue };
            let is_inherited = self.is_inherited(pid, &title);
            let Some(member) = self.members.get_mut(&pid) else { continue };
            let began = member.borrows_since.filter(|_| is_inherited);
            member.borrows_since = is_inherited.then(|| began.unwrap_or_else(Instant::now));
            member.role = match member.borrows_since {
                Some(since) if since.elapsed() >= UNTITLED_AFTER => Role::Untitled,
                Some(_) => Role::Helper,
                None => role_of(&title),
            };
            member.is_tracker = title.contains("multiprocessing.resource_tracker");
        }
    }

    /// Whether a process of vLLM forked this one, which shows the title of its parent until it gives
    /// itself another or executes something.
    fn is_inherited(&self, pid: u32, title: &str) -> bool {
        let parent = Stat::of(pid).ok().flatten().map(|stat| stat.parent);
        parent.is_some_and(|parent| {
            self.is_vllm(parent)
                && proc_fs::command_line(parent).is_ok_and(|it| it.as_deref() == Some(title))
        })
    }

    /// Whether this is the main process, or one that vLLM has given a title.
    fn is_vllm(&self, pid: u32) -> bool {
        self.head.as_ref().is_some_and(|head| head.pid == pid)
            || self.member(pid).is_some_and(|it| it.role != Role::Helper)
    }

    /// Takes out whoever has died, and tells of it. Who looks late sees them dead together: whoever
    /// ended least of his own accord goes first, and the youngest of those, for an engine goes down
    /// with its worker and a front with its engine.
    pub(super) fn bury(&mut self) {
        let mut dead = self.dead();
        // Asked one after the other: whoever ended before one of these may have been asked too early.
        loop {
            let all = self.dead();
            if all.len() == dead.len() {
                break;
            }
            dead = all;
        }
        dead.sort_unstable();
        for (.., pid) in dead {
            let Some(member) = self.members.remove(&pid) else { continue };
            self.past.cpu += member.work.cpu;
            self.past.io_bytes += member.work.io_bytes;
            let exit = member.held.exit();
            if self.head.as_ref().is_some_and(|head| Arc::ptr_eq(head, &member.held)) {
                self.end.send_replace(Some(exit));
                continue;
            }
            let role = last_role(&member);
            member.held.reap();
            // Nobody may be listening any more.
            self.deaths.send(Death { pid, role, exit }).ok();
        }
    }

    fn dead(&self) -> Vec<(u8, Reverse<u64>, u32)> {
        let ended = self.members().filter(|it| it.held.has_ended());
        ended.map(|it| (accord(it.held.exit()), Reverse(it.held.start_time), it.held.pid)).collect()
    }

    /// Who of those that vLLM cannot do without is stopped.
    pub(in crate::adapters) fn halt(&self) -> Result<Halt, ScanError> {
        let (mut stopped, mut is_anybody_running) = (Vec::new(), false);
        // Those that it can do without may run on, or not.
        for member in self.members().filter(|it| it.role != Role::Helper) {
            let stat = Stat::of(member.held.pid)?;
            match stat.filter(|stat| stat.start_time == member.held.start_time) {
                // Whoever looks into one of them with a debugger holds up all.
                Some(stat) if stat.is_traced() => return Ok(Halt::All),
                Some(stat) if stat.is_stopped() => stopped.push((member.held.pid, member.role)),
                Some(_) => is_anybody_running = true,
                // It has ended, which is told otherwise.
                None => {}
            }
        }
        Ok(match (stopped.len(), is_anybody_running) {
            // Of one alone nobody can say whether it was suspended: the checks of health judge it.
            (0, _) | (1, false) => Halt::None,
            (_, false) => Halt::All,
            (_, true) => Halt::Some(stopped),
        })
    }

    /// What all have done so far.
    pub(in crate::adapters) fn work(&mut self) -> Result<Work, ScanError> {
        let mut sum = self.past;
        for (pid, member) in &mut self.members {
            let stat = Stat::of(*pid)?.filter(|stat| stat.start_time == member.held.start_time);
            if let Some(stat) = stat {
                member.work.cpu = member.work.cpu.max(stat.cpu);
                member.work.io_bytes = member.work.io_bytes.max(io_bytes(*pid)?);
            }
            sum.cpu += member.work.cpu;
            sum.io_bytes += member.work.io_bytes;
        }
        Ok(sum)
    }

    /// How long those that speak HTTP and live have worked so far, or waited for a processor, by what
    /// [`Self::work`] has measured.
    pub(in crate::adapters) fn front(&self) -> Result<Duration, ScanError> {
        let fronts = self.members().filter(|it| it.role == Role::ApiServer);
        fronts.map(|it| Ok(it.work.cpu + proc_fs::waited(it.held.pid)?)).sum()
    }
}

/// What a process may not be asked does not count; its processor time does.
fn io_bytes(pid: u32) -> Result<u64, ScanError> {
    match proc_fs::io_bytes(pid) {
        Ok(bytes) => Ok(bytes.unwrap_or(0)),
        Err(error) if proc_fs::is_refusal(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

/// A zombie has no command line any more, but a name: a title may have come since the last look.
/// That of its parent is none.
fn last_role(member: &Member) -> Role {
    let zombie = Stat::of(member.held.pid).ok().flatten();
    let zombie = zombie.filter(|it| it.start_time == member.held.start_time);
    let own = zombie.filter(|it| {
        let parent = Stat::of(it.parent).ok().flatten();
        parent.is_none_or(|parent| parent.name != it.name)
    });
    match (member.role, own.map(|it| role_of(&it.name))) {
        (Role::Helper | Role::Untitled, Some(role)) if role != Role::Helper => role,
        (role, _) => role,
    }
}

/// How much an end is one of somebody's own accord.
fn accord(exit: Exit) -> u8 {
    match exit {
        Exit::Signal(signal) if signal != Signal::TERM.as_raw() => 0,
        Exit::Unknown => 1,
        Exit::Code(code) if code != 0 => 1,
        Exit::Signal(_) => 2,
        Exit::Code(_) => 3,
    }
}

/// What a process is for, by its command line or title, or by as much of it as a name holds (15
/// bytes). The prefix can be configured (vLLM 0.32, `envs.py`, `VLLM_PROCESS_NAME_PREFIX`).
fn role_of(title: &str) -> Role {
    let is_prefix = |it: &str| !it.is_empty() && !it.contains([' ', '/', '.']);
    let titled = title.split_once("::").filter(|(prefix, _)| is_prefix(prefix));
    let begins = |word: &str| titled.is_some_and(|(_, rest)| rest.starts_with(word));
    if begins("EngineCor") {
        Role::EngineCore
    } else if begins("Worker") {
        Role::Worker
    } else if begins("APIServer") {
        Role::ApiServer
    } else if begins("DPCoordin") {
        Role::Coordinator
    } else if title.contains("--multiprocessing-fork") || title.contains("spawn_main") {
        // CPython, `multiprocessing/spawn.py`, `get_command_line`.
        Role::Untitled
    } else {
        Role::Helper
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_from_title_name_and_command_line() {
        assert_eq!(role_of("VLLM::EngineCore"), Role::EngineCore);
        assert_eq!(role_of("VLLM::EngineCor"), Role::EngineCore);
        assert_eq!(role_of("VLLM::EngineCore_DP1"), Role::EngineCore);
        assert_eq!(role_of("mine::Worker_TP1"), Role::Worker);
        assert_eq!(role_of("VLLM::APIServer_0"), Role::ApiServer);
        assert_eq!(role_of("VLLM::DPCoordinator"), Role::Coordinator);
        let spawned = "python -c from multiprocessing.spawn import spawn_main; spawn_main(1) \
                       --multiprocessing-fork";
        assert_eq!(role_of(spawned), Role::Untitled);
        let tracker = "python -c from multiprocessing.resource_tracker import main;main(30)";
        assert_eq!(role_of(tracker), Role::Helper);
        assert_eq!(role_of("cc -o a::Worker b.c"), Role::Helper);
        assert_eq!(role_of(""), Role::Helper);
    }
}
