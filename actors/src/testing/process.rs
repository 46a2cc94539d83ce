//! A process that lives and dies by a test's word.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::domain::diagnosis::Exit;
use crate::domain::id::Incarnation;
use crate::domain::report::Work;
use crate::domain::spec::ModelId;
use crate::ports::{Pending, RunningProcess, Signal};

/// Above every pid that Linux gives (`PID_MAX_LIMIT`, 2^22): nobody can be hit by mistake.
const FIRST_PID: u32 = 5_000_000;

/// How long a sweep waits for what outlives it.
const SWEEP_LIMIT: Duration = Duration::from_secs(1);

/// A [`RunningProcess`] that ends when it is told to: by the test, by a first SIGTERM (in order,
/// with status 0), or by SIGKILL. Clones are the same process.
#[derive(Clone, Debug)]
pub struct ScriptedProcess(Arc<Life>);

#[derive(Debug)]
struct Life {
    incarnation: Incarnation,
    model: ModelId,
    pid: u32,
    began: Instant,
    end: watch::Sender<Option<Exit>>,
    script: Mutex<Script>,
}

#[derive(Debug)]
struct Script {
    /// SIGTERMs until it heeds one; `None` if it never does.
    patience: Option<u32>,
    /// Others of the tree, which die with the first sweep.
    helpers: Vec<u32>,
    /// Others of the tree, which outlive every sweep.
    stuck: Vec<u32>,
    measure: Measure,
    last_lines: Vec<String>,
    deeds: Vec<(Duration, Deed)>,
}

/// What comes of measuring the work.
#[derive(Clone, Copy, Debug)]
enum Measure {
    Shows(Work),
    Panics,
}

/// What was done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The main process got this signal.
    Signalled(Signal),
    /// Everything was killed.
    Swept,
    /// Everything was killed by a guard, without a runtime.
    SweptByGuard,
}

impl ScriptedProcess {
    pub(super) fn begin(place: usize, incarnation: Incarnation, model: ModelId) -> Self {
        let script = Script {
            patience: Some(1),
            helpers: Vec::new(),
            stuck: Vec::new(),
            measure: Measure::Shows(Work::default()),
            last_lines: Vec::new(),
            deeds: Vec::new(),
        };
        Self(Arc::new(Life {
            incarnation,
            model,
            pid: FIRST_PID + u32::try_from(place).unwrap_or_default(),
            began: Instant::now(),
            end: watch::Sender::new(None),
            script: Mutex::new(script),
        }))
    }

    /// Which launch it is.
    pub fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }

    /// The main process ends. What else there is of the tree lives on.
    pub fn end(&self, exit: Exit) {
        self.0.end.send_if_modified(|end| end.is_none() && end.replace(exit).is_none());
    }

    /// Others of the tree live as well, and outlive the main process.
    pub fn grow(&self, helpers: &[u32]) {
        self.script().helpers = helpers.to_vec();
    }

    /// Others of the tree live as well, and outlive SIGKILL too, until [`Self::come_loose`].
    pub fn get_stuck(&self, pids: &[u32]) {
        self.script().stuck = pids.to_vec();
    }

    /// What outlived SIGKILL is gone.
    pub fn come_loose(&self) {
        self.script().stuck.clear();
    }

    /// The SIGTERM that it heeds is this one, counted from now; 1 is the next.
    pub fn heed_sigterm(&self, number: u32) {
        self.script().patience = Some(number);
    }

    /// It heeds no SIGTERM.
    pub fn ignore_sigterm(&self) {
        self.script().patience = None;
    }

    /// What the tree has worked so far.
    pub fn show_work(&self, work: Work) {
        self.script().measure = Measure::Shows(work);
    }

    /// Whoever measures its work panics.
    pub fn panic_when_measured(&self) {
        self.script().measure = Measure::Panics;
    }

    /// The end of what it wrote.
    pub fn write_last(&self, lines: &[&str]) {
        self.script().last_lines = lines.iter().map(|line| (*line).to_owned()).collect();
    }

    /// What was done to it, and how long after it began.
    pub fn deeds(&self) -> Vec<(Duration, Deed)> {
        self.script().deeds.clone()
    }

    /// Whether anything of the tree lives.
    pub fn is_alive(&self) -> bool {
        let script = self.script();
        self.main_is_alive() || !script.helpers.is_empty() || !script.stuck.is_empty()
    }

    pub(super) fn main_serves(&self, model: &ModelId) -> bool {
        self.main_is_alive() && self.0.model == *model
    }

    fn main_is_alive(&self) -> bool {
        self.0.end.borrow().is_none()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, deed: Deed) {
        self.script().deeds.push((self.0.began.elapsed(), deed));
    }

    /// Returns who lives all the same.
    fn kill_all(&self) -> Vec<u32> {
        self.end(Exit::Signal(9));
        let mut script = self.script();
        script.helpers.clear();
        script.stuck.clone()
    }

    /// An orderly end takes the whole tree along.
    fn heed(&self) {
        let mut script = self.script();
        let Some(left) = &mut script.patience else { return };
        *left = left.saturating_sub(1);
        if *left == 0 {
            script.helpers.clear();
            drop(script);
            self.end(Exit::Code(0));
        }
    }
}

impl RunningProcess for ScriptedProcess {
    fn pid(&self) -> u32 {
        self.0.pid
    }

    fn ended(&self) -> Pending<'static, Exit> {
        let mut end = self.0.end.subscribe();
        Box::pin(async move {
            match end.wait_for(Option::is_some).await.map(|end| *end) {
                Ok(Some(exit)) => exit,
                // Nobody is left to end it.
                Ok(None) | Err(_) => std::future::pending().await,
            }
        })
    }

    fn signal_main(&self, signal: Signal) {
        self.note(Deed::Signalled(signal));
        match signal {
            Signal::Terminate => self.heed(),
            Signal::Kill => self.end(Exit::Signal(9)),
        }
    }

    fn sweep(&self) -> Pending<'static, Vec<u32>> {
        let process = self.clone();
        Box::pin(async move {
            process.note(Deed::Swept);
            if process.kill_all().is_empty() {
                return Vec::new();
            }
            sleep(SWEEP_LIMIT).await;
            process.kill_all()
        })
    }

    fn sweep_blocking(&self) -> Vec<u32> {
        self.note(Deed::SweptByGuard);
        self.kill_all()
    }

    fn work(&self) -> Pending<'static, Work> {
        let measure = self.script().measure;
        Box::pin(async move {
            match measure {
                Measure::Shows(work) => work,
                Measure::Panics => panic!("the measurement was scripted to panic"),
            }
        })
    }

    fn last_lines(&self) -> Pending<'static, Vec<String>> {
        let lines = self.script().last_lines.clone();
        Box::pin(async move { lines })
    }
}
