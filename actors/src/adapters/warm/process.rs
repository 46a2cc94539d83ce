//! A warm process as a child of ours.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::channel::Channel;
use super::{Kit, Parent};

/// What it runs: one text, in the order in which it is read.
const PROGRAM: &str = concat!(
    include_str!("program/begin.py"),
    "\n\n",
    include_str!("program/lessons.py"),
    "\n\n",
    include_str!("program/ahead.py"),
    "\n\n",
    include_str!("program/warm.py"),
    "\n\n",
    include_str!("program/launched.py"),
    "\n\n",
    include_str!("program/engines.py"),
    "\n\n",
    include_str!("program/main.py"),
);

/// The end of what it wrote, in bytes, that says why it is of no use.
const LAST_WORDS: u64 = 2048;

/// The process, as its own parent has it: dropped, it is killed and waited for.
pub(super) struct Process {
    child: Child,
    pub(super) parent: Arc<Parent>,
    /// What it writes.
    output: File,
}

impl Process {
    pub(super) fn start(kit: &Kit) -> io::Result<Self> {
        let (control, theirs) = Channel::pair()?;
        let output = File::from(rustix::fs::memfd_create(c"llm-warm", MemfdFlags::CLOEXEC)?);
        let mut command = (kit.command)();
        command
            .args(["-c", PROGRAM])
            .stdin(Stdio::from(theirs))
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?);
        let mut child = command.spawn()?;
        // It would hold the other end of the socket.
        drop(command);
        let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let held =
            number.map_or(Err(rustix::io::Errno::SRCH), |pid| pidfd_open(pid, PidfdFlags::empty()));
        match held {
            Ok(pidfd) => {
                let is_busy = AtomicBool::new(true);
                let (pid, is_given_up) = (child.id(), AtomicBool::new(false));
                let parent = Arc::new(Parent { pid, pidfd, control, is_busy, is_given_up });
                Ok(Self { child, parent, output })
            }
            Err(error) => {
                child.kill().and_then(|()| child.wait()).map(drop)?;
                Err(error.into())
            }
        }
    }

    pub(super) fn last_words(&self) -> String {
        let length = self.output.metadata().map_or(0, |data| data.len());
        let mut buffer = vec![0; usize::try_from(LAST_WORDS.min(length)).unwrap_or_default()];
        let read = self.output.read_at(&mut buffer, length.saturating_sub(LAST_WORDS));
        let text = String::from_utf8_lossy(&buffer[..read.unwrap_or(0)]).into_owned();
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        last.map_or_else(|| "it has ended without a word".to_owned(), str::to_owned)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.parent.kill();
        // Whatever a module has started. The number is its own until it is waited for.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(group, Signal::KILL).ok();
        }
        if let Err(error) = self.child.wait() {
            tracing::debug!(%error, "a warm process could not be waited for");
        }
    }
}
