//! How often the kernel has killed for want of memory in the cgroup that we, and whoever we start, live in.
//!
//! It sends SIGKILL, as anybody may, and says so nowhere but here and in its log. The counter is that of
//! version 2, where a memory controller is to be had there (`memory.events`, those of groups below
//! included), else that of version 1 (`memory.oom_control`, from Linux 4.13 on).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The kills since one of the last two moments that were noted: those of hours ago explain nothing.
#[derive(Debug)]
pub(super) struct MemoryKills {
    counter: Option<PathBuf>,
    /// What it said then, the older first.
    noted: Mutex<[Option<u64>; 2]>,
}

impl MemoryKills {
    /// From now on.
    pub(super) fn from_now() -> Self {
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut places = counters(&membership, &mounts).into_iter();
        Self::counted_by(places.find(|it| count(it).is_ok()))
    }

    fn counted_by(counter: Option<PathBuf>) -> Self {
        let kills = Self { counter, noted: Mutex::default() };
        *kills.noted() = [kills.now(); 2];
        kills
    }

    /// Another moment.
    pub(super) fn note(&self) {
        let now = self.now();
        let mut noted = self.noted();
        *noted = [noted[1], now];
    }

    /// How many there have been since the moment before the last; `None` if nobody can say.
    pub(super) fn since(&self) -> Option<u64> {
        let before = self.noted()[0]?;
        Some(self.now()?.saturating_sub(before))
    }

    fn now(&self) -> Option<u64> {
        count(self.counter.as_deref()?).ok()
    }

    fn noted(&self) -> MutexGuard<'_, [Option<u64>; 2]> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the counter may be, the better place first.
fn counters(membership: &str, mounts: &str) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if controllers.is_empty() {
            places
                .extend(place(mounts, "cgroup2", "", path).map(|it| (0, it.join("memory.events"))));
        } else if controllers.split(',').any(|it| it == "memory") {
            let place = place(mounts, "cgroup", "memory", path);
            places.extend(place.map(|it| (1, it.join("memory.oom_control"))));
        }
    }
    places.sort();
    places.into_iter().map(|(_, place)| place).collect()
}

/// Where a group is, by the lines of `mountinfo` (proc(5)): below the mount whose root it is below.
fn place(mounts: &str, kind: &str, controller: &str, path: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut system = system.split(' ');
        let is_kind = system.next()? == kind;
        let options = system.nth(1)?;
        if !is_kind || !controller.is_empty() && !options.split(',').any(|it| it == controller) {
            return None;
        }
        let below = Path::new(path).strip_prefix(root).ok()?;
        Some(Path::new(point).join(below))
    })
}

fn count(counter: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(counter)?;
    let value = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    value.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no count of kills"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "25 1 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "25 1 0:22 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        26 1 0:23 /box /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        27 1 0:24 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";

    fn places(membership: &str, mounts: &str) -> Vec<String> {
        counters(membership, mounts).iter().map(|it| it.display().to_string()).collect()
    }

    #[test]
    fn the_counter_is_that_of_our_own_group_wherever_it_is_mounted() {
        assert_eq!(
            places("0::/user.slice/a.service\n", UNIFIED),
            ["/sys/fs/cgroup/user.slice/a.service/memory.events"]
        );
        let hybrid = "4:memory:/box/inner\n3:cpu,cpuacct:/\n0::/\n";
        assert_eq!(
            places(hybrid, HYBRID),
            [
                "/sys/fs/cgroup/unified/memory.events",
                "/sys/fs/cgroup/memory/inner/memory.oom_control"
            ]
        );
        assert!(places("0::/../elsewhere\n", "").is_empty());
        assert!(places("what is this", UNIFIED).is_empty());
    }

    #[test]
    fn kills_are_counted_from_the_moment_on_and_what_cannot_be_read_is_not_none() {
        let directory = tempfile::tempdir().unwrap();
        let counter = directory.path().join("memory.events");
        let write = |kills: u32| {
            fs::write(&counter, format!("low 0\noom 9\noom_kill {kills}\noom_group_kill 7\n"))
        };
        write(3).unwrap();
        let kills = MemoryKills::counted_by(Some(counter.clone()));
        assert_eq!(kills.since(), Some(0));
        write(5).unwrap();
        assert_eq!(kills.since(), Some(2));
        kills.note();
        assert_eq!(kills.since(), Some(2), "the moment before the last counts");
        kills.note();
        assert_eq!(kills.since(), Some(0), "it is history");
        fs::write(&counter, "oom_kill_disable 0\nunder_oom 0\noom_kill 6\n").unwrap();
        assert_eq!(kills.since(), Some(1));
        fs::remove_file(&counter).unwrap();
        assert_eq!(kills.since(), None);
        assert_eq!(MemoryKills::counted_by(None).since(), None);
    }
}
