//! What the kernel has written to its log since a launch began (Linux, `Documentation/ABI/testing/dev-kmsg`).
//!
//! It is readable where `kernel.dmesg_restrict` is 0 or with `CAP_SYSLOG`, and else perhaps as systemd's journal
//! has it. It names processes by their numbers in the initial pid namespace: in a container nobody could say
//! whose they are.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::system_journal::SystemJournal;
use crate::domain::diagnosis::KernelMessage;

mod system_journal;

/// The most messages that are kept of one look, the latest.
const MOST: usize = 256;

/// The most records that are read at one look, so that it ends though the kernel goes on writing: as many
/// as a buffer of 8 MiB has (Linux, `kernel/printk/printk.c`, `PRB_AVGBITS`).
const MOST_READ: usize = 1 << 18;

/// A record is no longer (Linux, `kernel/printk/internal.h`, `PRINTK_MESSAGE_MAX`); what is shorter than
/// the record is refused.
const LONGEST_RECORD: usize = 8192;

/// Of the initial pid namespace (Linux, `include/linux/proc_ns.h`, `PROC_PID_INIT_INO`).
const INITIAL_NAMESPACE: &str = "pid:[4026531836]";

/// What it has said since one of the last two moments that were noted: what was said hours ago explains
/// nothing, and of a process that had the number before.
#[derive(Debug)]
pub(super) struct KernelLog {
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The log itself, which forgets: it is read at every moment.
    Buffer(File, Mutex<Heard>),
    /// The journal, and the last two moments.
    Journal(SystemJournal, Mutex<[Duration; 2]>),
    /// Nobody can say.
    None,
}

/// What was said up to the last moment, and up to the one before; `None` where it could not be read.
#[derive(Debug)]
struct Heard {
    before: Option<Vec<KernelMessage>>,
    lately: Option<Vec<KernelMessage>>,
}

impl KernelLog {
    /// From now on.
    pub(super) fn from_now() -> Self {
        let namespace = fs::read_link("/proc/self/ns/pid");
        if !namespace.is_ok_and(|it| it == Path::new(INITIAL_NAMESPACE)) {
            return Self { source: Source::None };
        }
        match open(Path::new("/dev/kmsg")) {
            Some(file) => Self::reading(file),
            None => Self::asking(SystemJournal::new()),
        }
    }

    fn reading(file: File) -> Self {
        let heard = Heard { before: Some(Vec::new()), lately: Some(Vec::new()) };
        Self { source: Source::Buffer(file, Mutex::new(heard)) }
    }

    fn asking(journal: SystemJournal) -> Self {
        let now = system_journal::now();
        Self { source: Source::Journal(journal, Mutex::new([now, now])) }
    }

    /// Another moment.
    pub(super) fn note(&self) {
        match &self.source {
            Source::Buffer(file, heard) => {
                let mut heard = held(heard);
                let news = news(file);
                heard.before = std::mem::replace(&mut heard.lately, news);
            }
            Source::Journal(_, moments) => {
                let mut moments = held(moments);
                *moments = [moments[1], system_journal::now()];
            }
            Source::None => {}
        }
    }

    /// What it has said of processes since the moment before the last; `None` if nobody can say.
    pub(super) fn since(&self) -> Option<Vec<KernelMessage>> {
        match &self.source {
            Source::Buffer(file, heard) => {
                let mut heard = held(heard);
                let news = news(file);
                let lately =
                    heard.lately.take().zip(news).map(|(lately, news)| [lately, news].concat());
                heard.lately.clone_from(&lately);
                Some([heard.before.clone()?, lately?].concat())
            }
            Source::Journal(journal, moments) => {
                let [before, _] = *held(moments);
                journal.since(before)
            }
            Source::None => None,
        }
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path) -> Option<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    file.seek(SeekFrom::End(0)).ok()?;
    Some(file)
}

/// What it has said of processes since it was last read.
fn news(mut file: &File) -> Option<Vec<KernelMessage>> {
    let mut record = vec![0; LONGEST_RECORD];
    let mut found = VecDeque::new();
    for _ in 0..MOST_READ {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => found.extend(messages(&record[..length])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // What was not read in time is overwritten; it goes on with what is there.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => {
                tracing::debug!(%error, "the kernel's log cannot be read");
                return None;
            }
        }
        found.drain(..found.len().saturating_sub(MOST));
    }
    Some(found.into())
}

/// `<priority and facility>,<number>,<time>,<flags>[,…];<message>`, with lines about it that are
/// indented.
fn messages(records: &[u8]) -> impl Iterator<Item = KernelMessage> {
    let text = String::from_utf8_lossy(records).into_owned();
    let found: Vec<_> = text.lines().filter_map(message).collect();
    found.into_iter()
}

fn message(line: &str) -> Option<KernelMessage> {
    /// Below it is the kernel that speaks, from it on a process (syslog(3)).
    const LOG_USER: u32 = 8;
    let (head, text) = line.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    (priority < LOG_USER).then(|| KernelMessage::read(text)).flatten()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::domain::diagnosis::KernelMessageKind;

    const BEFORE: &str = "4,1,10,-;Out of memory: Killed process 1 (old) total-vm:1kB\n";

    fn log(at: &Path) -> KernelLog {
        open(at).map_or(KernelLog { source: Source::None }, KernelLog::reading)
    }

    fn pids(log: &KernelLog) -> Vec<u32> {
        log.since().unwrap().iter().map(|it| it.pid).collect()
    }

    fn written(records: &str) -> Vec<(u32, KernelMessageKind)> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(BEFORE.as_bytes()).unwrap();
        let log = log(file.path());
        file.write_all(records.as_bytes()).unwrap();
        log.since().unwrap().into_iter().map(|it| (it.pid, it.kind)).collect()
    }

    #[test]
    fn what_was_said_since_is_read_and_what_was_said_before_is_not() {
        let records = "6,2,20,-;usb 1-1: new device\n SUBSYSTEM=usb\n DEVICE=+usb:1-1\n\
            4,3,30,-,caller=T9;Out of memory: Killed process 7 (a;b) total-vm:1kB\n\
            6,4,40,-;b[8]: segfault at 0 ip 0 sp 0 error 4 in c.so[1,2+3]\n";
        let expected = [
            (7, KernelMessageKind::KilledForMemory),
            (8, KernelMessageKind::Fault(Some("c.so".to_owned()))),
        ];
        assert_eq!(written(records), expected);
    }

    #[test]
    fn what_was_said_before_the_moment_before_the_last_is_history() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let log = log(file.path());
        let mut say = |pid: u32| {
            writeln!(file, "4,3,30,-;Out of memory: Killed process {pid} (a) total-vm:1kB")
                .unwrap();
        };
        say(7);
        log.note();
        say(8);
        log.note();
        say(9);
        assert_eq!(pids(&log), [7, 8, 9]);
        log.note();
        assert_eq!(pids(&log), [8, 9]);
        log.note();
        assert!(pids(&log).is_empty());
    }

    #[test]
    fn what_a_process_writes_there_is_not_the_kernels_word() {
        let said = "Out of memory: Killed process 7 (a) total-vm:1kB";
        assert_eq!(written(&format!("12,2,20,-;{said}\n")), []);
        assert_eq!(written(&format!("what is this;{said}\n")), []);
        assert_eq!(written(&format!("6,2,20,-;a\n {said}\n")), []);
    }

    #[test]
    fn of_a_flood_the_latest_is_kept() {
        let killed =
            |pid| format!("4,3,30,-;Out of memory: Killed process {pid} (a) total-vm:1kB\n");
        let records: Vec<String> = (1..=1000).map(killed).collect();
        let found = written(&records.concat());
        assert_eq!(found.len(), MOST);
        assert_eq!(found.last().map(|it| it.0), Some(1000));
    }

    #[test]
    fn a_log_that_cannot_be_read_says_nothing_and_not_that_there_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(log(&directory.path().join("none")).since(), None);
        assert_eq!(log(directory.path()).since(), None);
    }
}
