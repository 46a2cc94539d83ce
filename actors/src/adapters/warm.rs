//! A process that has imported what vLLM imports, and forks one ready-made for each launch.
//!
//! vLLM spends nearly all of a start on imports, and does them anew in every process that it is made
//! of. Here they are done once, and a launch begins behind them.
//!
//! - It is vLLM's own Python, with the environment that vLLM is given, and a program of ours
//!   (`warm/program/`), which says what it relies on.
//! - It is started by a thread that lives as long as it does, and told by the kernel to end with that
//!   (`PR_SET_PDEATHSIG`): nothing is left of it however we end.
//! - What it forks heads a session of its own, shows the marks of its launch in its environment, and
//!   waits for our word before it runs anything of vLLM. By then it is held and on record.
//! - Once a launch serves, it goes ahead with the next one like it, up to the first thing that others
//!   would notice, and has that wait.
//! - It may die, hang, or refuse at any time: the launch is then made without it, and another one is
//!   prepared. After three in a row that came to nothing there is none any more.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::proc_fs::{self, Stat};
use crate::domain::report::Work;
use crate::domain::secret::{Secret, redact};

mod channel;
mod forked;
mod interpreter;
mod process;

use channel::Heard;
pub(super) use forked::{Ahead, Came, Orders, Parent, Standing};
pub(super) use interpreter::of_script;
use process::Process;

/// The version of what is said on the socket.
const PROTOCOL: u64 = 1;

/// Seconds that one module may take to be imported.
const MODULE_LIMIT: f64 = 10.0;

/// How long it may say nothing while it imports: longer than a module may take, and than a cold disk
/// keeps it waiting; shorter than a launch that waits for it is waited for (`lifecycle.start_timeout`).
const SILENCE: Duration = Duration::from_secs(20);

/// How many in a row may come to nothing: two for a module each, one for all that would follow, and one
/// that does without.
const ATTEMPTS: u32 = 4;

/// The pause before another is prepared in the place of one that was lost. It doubles with each that
/// does not live long, so many times.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: u32 = 9;
const LONG_LIFE: Duration = Duration::from_secs(600);

/// What it takes to have one.
pub(super) struct Kit {
    /// Its command, with vLLM's environment; a process that begins clean.
    pub(super) command: Box<dyn Fn() -> Command + Send>,
    /// Where Python looks for modules first: the directory of the script.
    pub(super) path: PathBuf,
    /// What is not to be read in what it says.
    pub(super) secrets: Vec<Secret>,
    /// Where it keeps what it learns; `None` to forget it.
    pub(super) lessons: Option<PathBuf>,
}

/// See the module. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Warm(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stage: Mutex<Stage>,
    changed: Condvar,
}

#[derive(Debug)]
struct Stage {
    present: Present,
    is_dismissed: bool,
    /// Whether a launch waits for one: then there is no pause before it is prepared.
    is_awaited: bool,
    /// How many have come to nothing for no module that the next one does without, and why the last.
    useless: (u64, String),
    /// The models whose launches have nothing new to teach.
    learnt: BTreeSet<String>,
}

/// What there is now.
#[derive(Debug)]
enum Present {
    /// One that imports, once it has been started.
    Preparing(Option<Arc<Parent>>),
    /// One that forks.
    Ready(Arc<Parent>),
    /// None, and there will be none.
    Unavailable(String),
}

impl Present {
    fn parent(&self) -> Option<&Arc<Parent>> {
        match self {
            Self::Preparing(parent) => parent.as_ref(),
            Self::Ready(parent) => Some(parent),
            Self::Unavailable(_) => None,
        }
    }
}

/// How one of them ended.
enum End {
    /// Before it was ready, amid this module.
    Unprepared { module: Option<String>, had_been_ready: bool, why: String },
    /// When it had been ready.
    Lost(String),
}

impl Warm {
    /// Prepares one, on a thread of its own.
    ///
    /// # Errors
    ///
    /// The system's, when it has no thread to give.
    pub(super) fn begin(kit: Kit) -> io::Result<Self> {
        let stage = Stage {
            present: Present::Preparing(None),
            is_dismissed: false,
            is_awaited: false,
            useless: (0, String::new()),
            learnt: BTreeSet::new(),
        };
        let shared = Arc::new(Shared { stage: Mutex::new(stage), changed: Condvar::new() });
        let kept = Arc::clone(&shared);
        let thread = thread::Builder::new().name("vllm-warm".to_owned());
        thread.spawn(move || kept.keep(&kit))?;
        Ok(Self(shared))
    }

    /// The one that forks. Waits for it for as long as it is being prepared, unless it is called off; not
    /// for another one, where nothing tells why that should do better.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) fn ready(&self, called_off: &AtomicBool) -> Result<Arc<Parent>, String> {
        let mut stage = self.0.stage();
        let (before, _) = stage.useless;
        loop {
            if called_off.load(Ordering::SeqCst) {
                return Err("the launch was called off".to_owned());
            }
            match &stage.present {
                Present::Ready(parent) => return Ok(Arc::clone(parent)),
                Present::Unavailable(why) => return Err(why.clone()),
                Present::Preparing(_) => {}
            }
            if stage.useless.0 > before {
                return Err(stage.useless.1.clone());
            }
            if !stage.is_awaited {
                stage.is_awaited = true;
                self.0.changed.notify_all();
            }
            stage = self.0.changed.wait(stage).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes whoever waits, who then looks whether he was called off.
    pub(super) fn wake(&self) {
        drop(self.0.stage());
        self.0.changed.notify_all();
    }

    /// Ends the one there is, which does not answer. Another is prepared.
    pub(super) fn give_up(&self) {
        if let Some(parent) = self.0.stage().present.parent() {
            parent.give_up();
        }
    }

    /// What it has done so far, which a launch that waits for it counts as its own.
    pub(super) fn work(&self) -> Work {
        let pid = self.0.stage().present.parent().map(|parent| parent.pid);
        let stat = pid.and_then(|pid| Stat::of(pid).ok().flatten());
        stat.map_or_else(Work::default, |stat| Work {
            cpu: stat.cpu,
            // What it may not be asked does not count.
            io_bytes: proc_fs::io_bytes(stat.pid).ok().flatten().unwrap_or(0),
        })
    }

    /// Whether a launch of this model may have something new to teach.
    pub(super) fn is_to_learn(&self, model: &str) -> bool {
        !self.0.stage().learnt.contains(model)
    }

    /// Has it ask its present launch, which serves this model by now, what there is to import.
    pub(super) fn learn(&self, model: &str) {
        if let Present::Ready(parent) = &self.0.stage().present {
            parent.tell(&json!({"do": "learn", "model": model}));
        }
    }

    /// Has it go ahead with the next launch like this one, as far as nobody notices.
    pub(super) fn go_ahead(&self, next: &Ahead) {
        if let Present::Ready(parent) = &self.0.stage().present {
            parent.go_ahead(next);
        }
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        let mut stage = self.0.stage();
        stage.is_dismissed = true;
        if let Some(parent) = stage.present.parent() {
            parent.kill();
        }
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one, until it is dismissed or they come to nothing.
    fn keep(&self, kit: &Kit) {
        let mut without: Vec<String> = Vec::new();
        let (mut failures, mut losses) = (0, 0);
        while failures < ATTEMPTS && !self.stage().is_dismissed {
            self.stage().is_awaited = false;
            let began = Instant::now();
            let end = self.live(kit, &without);
            let why = match end {
                End::Unprepared { module, had_been_ready, why } => {
                    // One that learns more than it bears has not come to nothing before.
                    failures = if had_been_ready { 1 } else { failures + 1 };
                    if module.is_none() {
                        let useless = &mut self.stage().useless;
                        *useless = (useless.0 + 1, why.clone());
                    }
                    without.extend(module);
                    why
                }
                End::Lost(why) => {
                    failures = 0;
                    losses = if began.elapsed() < LONG_LIFE { losses + 1 } else { 1 };
                    why
                }
            };
            let mut stage = self.stage();
            if stage.is_dismissed {
                break;
            }
            tracing::warn!(
                why,
                failures,
                "a warm process has ended; vLLM is launched without it meanwhile"
            );
            stage.present = if failures < ATTEMPTS {
                Present::Preparing(None)
            } else {
                Present::Unavailable(why)
            };
            self.changed.notify_all();
            let pause = pause_after(losses);
            let is_idle = |stage: &mut Stage| !stage.is_dismissed && !stage.is_awaited;
            drop(self.changed.wait_timeout_while(stage, pause, is_idle));
        }
    }

    fn note_lesson(&self, word: &Value) {
        if let (Some(model), Some(false)) = (word["model"].as_str(), word["news"].as_bool()) {
            self.stage().learnt.insert(model.to_owned());
        }
    }

    /// One of them, from its start to its end.
    fn live(&self, kit: &Kit, without: &[String]) -> End {
        let process = match Process::start(kit) {
            Ok(process) => process,
            Err(error) => {
                return End::Unprepared {
                    module: None,
                    had_been_ready: false,
                    why: format!("it cannot be started: {error}"),
                };
            }
        };
        let parent = Arc::clone(&process.parent);
        {
            let mut stage = self.stage();
            if stage.is_dismissed {
                return End::Lost("it was dismissed".to_owned());
            }
            stage.present = Present::Preparing(Some(Arc::clone(&parent)));
        }
        parent.tell(&json!({
            "path": [kit.path.to_string_lossy()],
            "lessons": kit.lessons.as_ref().map(|path| path.to_string_lossy()),
            "without": without,
            "seconds": MODULE_LIMIT,
        }));
        let mut so_far = SoFar::default();
        let why = loop {
            match parent.control.hear(SILENCE) {
                Heard::Word(word) if word["say"] == "hello" && word["protocol"] != PROTOCOL => {
                    break format!("it speaks another language: {word}");
                }
                Heard::Word(word) => self.heed(&word, &parent, &mut so_far),
                Heard::Silence if so_far.is_idle() => {}
                Heard::Silence => break format!("it has said nothing for {SILENCE:?}"),
                Heard::End => break process.last_words(),
            }
        };
        drop(process);
        if parent.is_given_up.load(Ordering::Relaxed) {
            // No module is to blame for it.
            return End::Lost("it did not answer in time".to_owned());
        }
        so_far.end(redact(&why, &kit.secrets))
    }

    fn heed(&self, word: &Value, parent: &Arc<Parent>, so_far: &mut SoFar) {
        tracing::trace!(%word, "a warm process says");
        match word["say"].as_str() {
            Some("importing") => {
                so_far.importing = word["module"].as_str().map(str::to_owned);
                parent.is_busy.store(true, Ordering::Relaxed);
            }
            Some("ready") => {
                *so_far = SoFar { is_ready: true, had_been_ready: true, importing: None };
                parent.is_busy.store(false, Ordering::Relaxed);
                self.stage().present = Present::Ready(Arc::clone(parent));
                self.changed.notify_all();
            }
            Some("anew") => {
                so_far.is_ready = false;
                self.stage().present = Present::Preparing(Some(Arc::clone(parent)));
            }
            Some("learnt") => self.note_lesson(word),
            _ => {}
        }
    }
}

/// The pause before another is prepared, after so many in a row that were lost before long: each costs a
/// processor some ten seconds.
fn pause_after(losses: u32) -> Duration {
    PAUSE * 2_u32.pow(losses.clamp(1, LONGEST_PAUSE) - 1)
}

/// How far one of them has come.
#[derive(Debug, Default)]
struct SoFar {
    is_ready: bool,
    had_been_ready: bool,
    /// The module that it is amid.
    importing: Option<String>,
}

impl SoFar {
    fn is_idle(&self) -> bool {
        self.is_ready && self.importing.is_none()
    }

    fn end(self, why: String) -> End {
        match self.importing {
            None if self.is_ready => End::Lost(why),
            module => {
                let why =
                    module.as_ref().map_or_else(|| why.clone(), |it| format!("{why}, amid {it}"));
                End::Unprepared { module, had_been_ready: self.had_been_ready, why }
            }
        }
    }
}

#[cfg(test)]
mod tests;
