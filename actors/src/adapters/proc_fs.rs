//! The few things that `/proc` tells of a process.

use std::fs;
use std::time::Duration;

/// What `/proc/<pid>/stat` tells (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    pub(super) state: char,
    pub(super) parent: u32,
    pub(super) session: u32,
    /// In clock ticks since boot. With the pid and the boot it names a process for good.
    pub(super) start_time: u64,
    /// User and system time.
    pub(super) cpu: Duration,
}

impl Stat {
    /// `None` if there is no such process.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(pid, &String::from_utf8_lossy(&bytes))
    }

    fn parse(pid: u32, text: &str) -> Option<Self> {
        // The name may hold anything, blanks and parentheses too: fields count from the last ')'.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let ticks = number(14)? + number(15)?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Some(Self {
            pid,
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(4)?).ok()?,
            session: u32::try_from(number(6)?).ok()?,
            start_time: number(22)?,
            cpu: Duration::from_millis(ticks * 1000 / per_second),
        })
    }

    /// Whether it has ended and only waits to be reaped.
    pub(super) fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Every process there is.
pub(super) fn processes() -> impl Iterator<Item = Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Stat::of)
}

/// Whether the process was started with this variable, `NAME=value`, in its environment. False for
/// the processes of others, whose environment cannot be read.
pub(super) fn has_variable(pid: u32, variable: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes()))
}

/// Whether it was started with a variable that begins like this, `NAME=value` cut short.
pub(super) fn has_variable_with_prefix(pid: u32, prefix: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|bytes| {
        bytes.split(|byte| *byte == 0).any(|entry| entry.starts_with(prefix.as_bytes()))
    })
}

/// The command line, its words joined by blanks; empty for a zombie.
pub(super) fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

/// Bytes that it made the disks read and write.
pub(super) fn io_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let value = |line: &str| line.split_once(": ").and_then(|(_, value)| value.parse::<u64>().ok());
    let counted = |line: &&str| line.starts_with("read_bytes") || line.starts_with("write_bytes");
    text.lines().filter(counted).filter_map(value).sum()
}

/// Names this boot of the machine: a pid and start time from another one mean nothing.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// A fresh random UUID.
pub(super) fn random_uuid() -> std::io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b (c)) S 3 7 5 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 4242 0 0";
        let stat = Stat::parse(7, text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.session, stat.start_time), ('S', 3, 5, 4242));
        assert_eq!(stat.cpu, Duration::from_secs(2));
    }

    #[test]
    fn this_process_is_among_all_processes() {
        let me = std::process::id();
        let stat = processes().find(|stat| stat.pid == me).unwrap();
        assert!(!stat.is_zombie());
        assert!(!command_line(me).is_empty());
    }
}
