//! Reads `/proc`: who runs, under which title, in whose session, holding which shared memory.
//!
//! Every reading is a snapshot: a process may be gone by the time its row is looked at, so what
//! cannot be read any more is left out rather than reported.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, getpid};

/// One row of the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub pid: Pid,
    /// Its parent's id; `None` for a process whose parent lies outside this pid namespace.
    pub parent: Option<Pid>,
    /// The id of its session, which is the pid of the process that called `setsid`; `None` when that
    /// process lies outside this pid namespace, as where a container's tests are started from.
    pub session: Option<Pid>,
    /// The state letter of `proc(5)`: `R`, `S`, `T` for stopped, `Z` for a zombie.
    pub state: char,
    /// The thread name of its main thread, cut by the kernel to 15 bytes.
    pub comm: String,
    /// Its command line with blanks between the arguments; for a process with a title, the title.
    pub title: String,
}

impl Process {
    /// Reads the row of `pid`; `None` when there is no such process.
    pub fn of(pid: Pid) -> Option<Self> {
        let stat = fs::read_to_string(proc_path(pid, "stat")).ok()?;
        let cmdline = fs::read(proc_path(pid, "cmdline")).ok()?;
        let title = String::from_utf8_lossy(&cmdline).replace('\0', " ").trim_end().to_owned();
        Self::parse(pid, &stat, title)
    }

    /// The row of the process that asks.
    pub fn this() -> Option<Self> {
        Self::of(getpid())
    }

    fn parse(pid: Pid, stat: &str, title: String) -> Option<Self> {
        // The name stands in brackets and may contain brackets and blanks itself.
        let (before, after) = stat.rsplit_once(") ")?;
        let mut fields = after.split(' ');
        let state = fields.next()?.chars().next()?;
        // The kernel writes 0 for whoever lies outside this pid namespace.
        let mut pid_field = || Some(Pid::from_raw(fields.next()?.parse().ok()?));
        let (parent, _group, session) = (pid_field()?, pid_field()?, pid_field()?);
        let comm = before.split_once('(')?.1.to_owned();
        Some(Self { pid, parent, session, state, comm, title })
    }

    /// Whether the environment that `/proc` shows for it holds exactly `variable` (`NAME=value`).
    ///
    /// A zombie shows no environment, and neither does a process whose title was written over it,
    /// as vLLM's are unless `SPT_NOENV` is set (setproctitle 1.3.8).
    pub fn has_in_environment(&self, variable: &str) -> bool {
        fs::read(proc_path(self.pid, "environ"))
            .is_ok_and(|block| block.split(|byte| *byte == 0).any(|it| it == variable.as_bytes()))
    }

    /// Whether it is one that launches of vLLM are forked from. What was forked from it shows the
    /// same for a moment, until it shows the marks of its launch.
    pub fn is_warm(&self) -> bool {
        self.has_variable("VLLMD_RESERVE")
    }

    /// Whether it is a launch that is made ahead of its order, and waits for that.
    pub fn is_ahead(&self) -> bool {
        self.has_variable("VLLMD_AHEAD")
    }

    fn has_variable(&self, name: &str) -> bool {
        let begin = format!("{name}=");
        fs::read(proc_path(self.pid, "environ")).is_ok_and(|block| {
            block.split(|byte| *byte == 0).any(|it| it.starts_with(begin.as_bytes()))
        })
    }

    /// Whether it neither catches nor ignores this signal (`SigCgt` and `SigIgn` of `proc(5)`).
    pub fn dies_of(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(proc_path(self.pid, "status")).unwrap_or_default();
        let masks = status.lines().filter_map(|line| {
            line.strip_prefix("SigCgt:").or_else(|| line.strip_prefix("SigIgn:"))
        });
        let mut masks = masks.filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        masks.all(|mask| mask & (1 << (signal.as_raw() - 1)) == 0)
    }

    /// Whether it has a file mapped with these letters in its path.
    pub fn has_mapped(&self, part: &str) -> bool {
        fs::read_to_string(proc_path(self.pid, "maps")).is_ok_and(|maps| maps.contains(part))
    }

    /// The files under `/dev/shm` that it has mapped and that still exist.
    pub fn shared_memory(&self) -> BTreeSet<PathBuf> {
        let maps = fs::read_to_string(proc_path(self.pid, "maps")).unwrap_or_default();
        let mapped = maps.lines().filter_map(|line| line.find("/dev/shm/").map(|at| &line[at..]));
        mapped.map(PathBuf::from).filter(|path| path.exists()).collect()
    }
}

/// The memory that a process has in RAM (`VmRSS` of `proc(5)`); 0 when there is no such process.
pub fn resident_kib(pid: Pid) -> u64 {
    let status = fs::read_to_string(proc_path(pid, "status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

/// The memory in RAM that is a process's own (`RssAnon` of `proc(5)`), and not mapped of a file, which comes
/// and goes as the kernel likes.
pub fn own_kib(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(proc_path(pid, "status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Everything that runs now, zombies included.
pub fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter_map(Pid::from_raw).filter_map(Process::of).collect()
}

/// The children of `root`, their children, and so on, parents before their children.
pub fn descendants(root: Pid) -> Vec<Process> {
    descendants_among(&processes(), root)
}

/// The same, by a table that was read before.
pub fn descendants_among(table: &[Process], root: Pid) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        let children = table.iter().filter(|process| process.parent == Some(parent)).cloned();
        for child in children {
            parents.push(child.pid);
            found.push(child);
        }
    }
    found
}

fn proc_path(pid: Pid, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{file}", pid.as_raw_pid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leads_from_outside_the_pid_namespace_has_no_number() {
        let row = Process::parse(Pid::INIT, "1 (a) b (c)) S 0 0 0 0 -1", "title".to_owned());
        let row = row.expect("it is a row");
        assert_eq!((row.parent, row.session, row.state), (None, None, 'S'));
        assert_eq!(row.comm, "a) b (c)");
    }

    #[test]
    fn this_process_has_a_row() {
        assert_eq!(Process::this().map(|row| row.pid), Some(getpid()));
    }
}
