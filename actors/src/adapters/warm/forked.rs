//! A process that was forked for a launch, until it runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use serde_json::{Value, json};

use super::channel::{Channel, Heard};
use crate::adapters::ownership;

/// How long it may take to stand: a hundred times as long as a gigabyte takes to be forked.
const STANDING: Duration = Duration::from_secs(5);

/// The same, where it may be amid a module.
const STANDING_WHEN_BUSY: Duration = Duration::from_secs(15);

/// What a launch is to be.
#[derive(Debug)]
pub(in crate::adapters) struct Orders<'a> {
    /// The words of the command, program first.
    pub(in crate::adapters) words: Vec<String>,
    /// What others see in its environment.
    pub(in crate::adapters) marks: BTreeMap<String, String>,
    /// Further variables of this launch alone.
    pub(in crate::adapters) environment: BTreeMap<String, String>,
    /// Whether its engine and workers may be forked too.
    pub(in crate::adapters) engines: bool,
    /// Whether it may be one that has gone ahead.
    pub(in crate::adapters) ahead: bool,
    /// Whether it is to tell what it has imported, when it is asked.
    pub(in crate::adapters) learn: bool,
    /// Where it writes.
    pub(in crate::adapters) log: &'a File,
    /// Where it joins its cgroup.
    pub(in crate::adapters) entrance: Option<File>,
}

/// A launch that may follow.
#[derive(Debug)]
pub(in crate::adapters) struct Ahead {
    /// The words of the command, program first.
    pub(in crate::adapters) words: Vec<String>,
    /// Whether its engine and workers may be forked too.
    pub(in crate::adapters) engines: bool,
}

/// A process that will become vLLM's main process when it is told to. Dropped, it ends.
#[derive(Debug)]
pub(in crate::adapters) struct Standing {
    pub(in crate::adapters) pid: u32,
    pub(in crate::adapters) came: Came,
    channel: Channel,
}

/// When what was forked was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters) enum Came {
    /// When it was ordered.
    ToOrder,
    /// Before; and it had gone ahead.
    Ahead,
}

impl Standing {
    /// Has it run.
    pub(in crate::adapters) fn begin(self) {
        // One that has ended meanwhile is seen to have.
        self.channel.say(&json!({"do": "begin"}), &[]).ok();
    }
}

/// What forks, as others have it.
#[derive(Debug)]
pub(in crate::adapters) struct Parent {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) control: Channel,
    /// Whether it imports something.
    pub(super) is_busy: AtomicBool,
    /// Whether nobody waits for it any longer.
    pub(super) is_given_up: AtomicBool,
}

impl ownership::Parent for Parent {
    fn reap(&self, pid: u32) {
        self.tell(&json!({"do": "reap", "pid": pid}));
    }
}

impl Parent {
    /// One that does not listen any more has ended, or will be found to hang.
    pub(super) fn tell(&self, word: &Value) {
        if let Err(error) = self.control.say(word, &[]) {
            tracing::debug!(%error, "a warm process does not listen");
        }
    }

    pub(super) fn go_ahead(&self, next: &Ahead) {
        self.tell(&json!({"do": "ahead", "words": next.words, "engines": next.engines}));
    }

    /// Ends what does not answer: whatever it is amid is not to blame.
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
        self.kill();
    }

    pub(super) fn kill(&self) {
        pidfd_send_signal(self.pidfd.as_fd(), Signal::KILL).ok();
    }
}

impl Parent {
    /// Forks one that stands ready.
    ///
    /// # Errors
    ///
    /// Why there is none: then nothing of it is left, or it ends by itself.
    pub(in crate::adapters) fn fork(&self, orders: &Orders<'_>) -> Result<Standing, String> {
        let (channel, theirs) = Channel::pair().map_err(|error| error.to_string())?;
        let word = json!({
            "do": "launch",
            "words": orders.words,
            "marks": orders.marks,
            "environment": orders.environment,
            "learn": orders.learn,
            "engines": orders.engines,
            "ahead": orders.ahead,
        });
        self.order(&word, orders, &theirs)
            .map_err(|error| format!("it does not listen: {error}"))?;
        drop(theirs);
        let is_busy = self.is_busy.load(Ordering::Relaxed);
        let limit = if is_busy { STANDING_WHEN_BUSY } else { STANDING };
        match channel.hear(limit) {
            Heard::Word(word) => {
                if let (Some("standing"), Some(pid)) = (word["say"].as_str(), pid_in(&word)) {
                    let went_ahead = word["ahead"].as_bool() == Some(true);
                    let came = if went_ahead { Came::Ahead } else { Came::ToOrder };
                    return Ok(Standing { pid, came, channel });
                }
                // What stands in its way now will stand there the next time. Another may do.
                self.kill();
                Err(word["why"].as_str().map_or_else(|| word.to_string(), str::to_owned))
            }
            Heard::End => Err("it has ended".to_owned()),
            Heard::Silence => {
                // It would never answer anybody.
                self.kill();
                Err(format!("it has not forked within {limit:?}"))
            }
        }
    }

    fn order(
        &self,
        word: &Value,
        orders: &Orders<'_>,
        theirs: &OwnedFd,
    ) -> Result<(), rustix::io::Errno> {
        let mut descriptors = vec![orders.log.as_fd(), theirs.as_fd()];
        descriptors.extend(orders.entrance.as_ref().map(AsFd::as_fd));
        self.control.say(word, &descriptors)
    }
}

fn pid_in(word: &Value) -> Option<u32> {
    word["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
}
