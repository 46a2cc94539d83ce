//! How the main process of a launch comes to be: as a command of its own, or forked by a warm process
//! if there is one that can.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::claim::cannot_watch;
use super::memory::Known;
use crate::adapters::process_record::ProcessRecord;
use crate::adapters::process_tree::{ProcessTree, StartError};
use crate::adapters::system_error;
use crate::adapters::warm::{Orders, Parent, Standing, Warm};
use crate::domain::cause::Cause;
use crate::domain::trust::LaunchMethod;

/// How a launch is made.
pub(super) struct Way {
    /// The most that may be forked.
    pub(super) method: LaunchMethod,
    /// What was, once it was started.
    pub(super) made: OnceLock<LaunchMethod>,
    /// What is known of launches like it.
    pub(super) known: Known,
}

impl Way {
    /// That of one that somebody else made.
    pub(super) fn adopted() -> Self {
        let made = OnceLock::from(LaunchMethod::Cold);
        Self { method: LaunchMethod::Cold, made, known: Known::nothing() }
    }
}

/// What it takes to start a launch.
pub(super) struct Start {
    pub(super) command: Command,
    pub(super) record: ProcessRecord,
    pub(super) log: File,
    pub(super) marks: BTreeMap<&'static str, OsString>,
    /// The variables of this launch alone.
    pub(super) variables: BTreeMap<&'static str, PathBuf>,
    /// What it is to serve, if a warm process may have something to learn from it.
    pub(super) lesson: Option<String>,
    /// The most that may be forked.
    pub(super) method: LaunchMethod,
}

// A command shows its variables, secrets among them.
impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Start {
    /// As a command of its own.
    pub(super) fn run(&mut self, tree: &ProcessTree) -> Result<u32, Cause> {
        let program = self.command.get_program().to_string_lossy().into_owned();
        tree.start(&mut self.command).map_err(|error| match error {
            StartError::NotStarted(error) => system_error::cannot_run(&program, &error),
            StartError::NotHeld(error) => cannot_watch(&error),
        })
    }

    /// Forked. It is held, and does nothing yet. `None` if there is none: then nothing is left of it.
    pub(super) fn fork(
        &self,
        tree: &ProcessTree,
        parent: Arc<Parent>,
        called_off: &AtomicBool,
    ) -> Option<Standing> {
        let forked = self.orders(tree).and_then(|orders| parent.fork(&orders));
        let held = forked.and_then(|standing| {
            let held = tree.take(parent, standing.pid);
            held.map(|()| standing).map_err(|error| error.to_string())
        });
        held.inspect_err(|why| tell_why_cold(why, called_off)).ok()
    }

    /// The words of the command, program first, if they are text.
    pub(super) fn words(&self) -> Option<Vec<String>> {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(|word| word.to_str().map(str::to_owned)).collect()
    }

    fn orders(&self, tree: &ProcessTree) -> Result<Orders<'_>, String> {
        let marks = self.marks.iter().map(|(name, value)| text(name, value.to_str()));
        let variables = self.variables.iter().map(|(name, value)| text(name, value.to_str()));
        let unwritable = "what it is given is not UTF-8";
        Ok(Orders {
            words: self.words().ok_or(unwritable)?,
            marks: marks.collect::<Option<_>>().ok_or(unwritable)?,
            environment: variables.collect::<Option<_>>().ok_or(unwritable)?,
            learn: self.lesson.is_some(),
            engines: self.method >= LaunchMethod::Tree,
            ahead: self.method == LaunchMethod::Ahead,
            log: &self.log,
            entrance: tree.entrance(),
        })
    }
}

fn text(name: &str, value: Option<&str>) -> Option<(String, String)> {
    Some((name.to_owned(), value?.to_owned()))
}

/// The warm process that can fork, when it can.
pub(super) fn warm_parent(warm: &Warm, called_off: &AtomicBool) -> Option<Arc<Parent>> {
    let ready = warm.ready(called_off);
    ready.inspect_err(|why| tell_why_cold(why, called_off)).ok()
}

/// What was called off is not launched at all.
fn tell_why_cold(why: &str, called_off: &AtomicBool) {
    if called_off.load(Ordering::SeqCst) {
        tracing::debug!(why, "vLLM is not launched");
    } else {
        tracing::warn!(why, "vLLM is launched cold");
    }
}
