//! The kernel's log as systemd's journal keeps it, for those who may read that and not the log itself: the
//! groups `adm` and `systemd-journal` (journalctl(1)).

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tokio::time::Instant;

use crate::domain::diagnosis::KernelMessage;

/// How long it may take to answer; some 20 ms are usual.
const WITHIN: Duration = Duration::from_secs(2);

/// The most entries that it is asked for: others fill the kernel's log as well, such as a firewall.
const MOST: usize = 4096;

/// The most that it may answer, in bytes: [`MOST`] entries have some 1 KiB each, but a message may be long.
const MOST_BYTES: usize = 16 << 20;

/// The facility of the kernel; what a process writes to the kernel's log has another (syslog(3)).
const KERNEL: &str = "0";

/// It keeps what it has, and is asked only when somebody wants to know: that takes a process.
#[derive(Debug)]
pub(super) struct SystemJournal {
    journalctl: PathBuf,
}

impl SystemJournal {
    pub(super) fn new() -> Self {
        Self::asking(Path::new("journalctl"))
    }

    pub(super) fn asking(journalctl: &Path) -> Self {
        Self { journalctl: journalctl.to_owned() }
    }

    /// What the kernel has said of processes since this moment, see [`now`]; `None` if nobody can say.
    pub(super) fn since(&self, moment: Duration) -> Option<Vec<KernelMessage>> {
        let lines = MOST.to_string();
        let of_this_boot = ["--dmesg", "--output=json", "--no-pager", "--quiet", "--lines", &lines];
        #[expect(clippy::disallowed_methods, reason = "it is no part of a launch")]
        let mut command = Command::new(&self.journalctl);
        let streams = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let asked = streams.args(of_this_boot).spawn();
        let mut asked = asked.inspect_err(|error| tracing::debug!(%error, "no journalctl")).ok()?;
        let answer = answer(&mut asked);
        // It has ended, or is not waited for any longer.
        asked.kill().ok();
        asked.wait().ok();
        read(&String::from_utf8_lossy(&answer?), moment)
    }
}

/// The time that entries have: since boot, without what was slept through.
pub(super) fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

/// All that it writes; `None` if that is too much, or takes too long.
fn answer(asked: &mut Child) -> Option<Vec<u8>> {
    let mut output = asked.stdout.take()?;
    let began = Instant::now();
    let (mut answer, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    while answer.len() <= MOST_BYTES {
        let left = Timespec::try_from(WITHIN.checked_sub(began.elapsed())?).ok()?;
        let mut readable = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)];
        if poll(&mut readable, Some(&left)).ok()? == 0 {
            return None;
        }
        match output.read(&mut part).ok()? {
            0 => return Some(answer),
            length => answer.extend_from_slice(&part[..length]),
        }
    }
    None
}

/// Whoever may not read the system's journal is answered with nothing, and no error (systemd 257); but no
/// boot is without a word of the kernel.
fn read(answer: &str, moment: Duration) -> Option<Vec<KernelMessage>> {
    let entries: Vec<Value> =
        answer.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let is_since = |entry: &&Value| {
        let at = entry["__MONOTONIC_TIMESTAMP"].as_str().and_then(|it| it.parse().ok());
        at.is_some_and(|microseconds| Duration::from_micros(microseconds) >= moment)
    };
    // What was said first has been pushed out by others.
    if entries.len() >= MOST && entries.first().as_ref().is_some_and(is_since) {
        return None;
    }
    let said = entries.iter().filter(is_since).filter(|it| it["SYSLOG_FACILITY"] == KERNEL);
    let found = said.filter_map(|it| KernelMessage::read(it["MESSAGE"].as_str()?)).collect();
    (!entries.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entry(at: u64, facility: &str, message: &str) -> String {
        format!(
            r#"{{"__MONOTONIC_TIMESTAMP":"{at}","SYSLOG_FACILITY":"{facility}","MESSAGE":"{message}"}}"#
        )
    }

    fn killed(pid: u32) -> String {
        format!("Out of memory: Killed process {pid} (a) total-vm:1kB")
    }

    /// What a `journalctl` that does this is taken to say.
    fn said(script: &str) -> Option<Vec<u32>> {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("journalctl");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let found = SystemJournal::asking(&program).since(Duration::from_millis(1))?;
        Some(found.iter().map(|it| it.pid).collect())
    }

    fn of_entries(entries: &[String]) -> Option<Vec<u32>> {
        said(&format!("cat <<'END'\n{}\nEND", entries.join("\n")))
    }

    #[test]
    fn what_the_kernel_has_said_since_is_told_and_nobody_elses_word() {
        let entries = [
            entry(999, "0", &killed(1)),
            entry(1000, "0", &killed(2)),
            entry(2000, "3", &killed(3)),
            r#"{"__MONOTONIC_TIMESTAMP":"3000","SYSLOG_FACILITY":"0","MESSAGE":[1,2]}"#.to_owned(),
            "what is this".to_owned(),
            entry(4000, "0", &killed(4)),
        ];
        assert_eq!(of_entries(&entries), Some(vec![2, 4]));
    }

    #[test]
    fn a_journal_without_a_word_of_the_kernel_cannot_be_read_and_one_without_news_can() {
        assert_eq!(said(":"), None);
        assert_eq!(of_entries(&[entry(1, "0", "Linux version 6.18")]), Some(Vec::new()));
    }

    #[test]
    fn of_a_journal_that_others_fill_nobody_knows_what_was_said_first() {
        let flood = |first: u64| {
            let others = (0..MOST as u64).map(|at| entry(first + at, "0", "IN=eth0 OUT="));
            others.collect::<Vec<_>>().join("\n")
        };
        let read = |answer: &str| read(answer, Duration::from_millis(1)).map(|it| it.len());
        assert_eq!(read(&flood(999)), Some(0));
        assert_eq!(read(&flood(1000)), None);
    }

    #[test]
    fn who_does_not_answer_or_without_end_has_not_answered() {
        assert_eq!(said("exec sleep 600"), None);
        assert_eq!(said(&format!("yes '{}'", entry(2000, "0", "x"))), None);
        assert_eq!(SystemJournal::asking(Path::new("/none")).since(Duration::ZERO), None);
    }
}
