//! A process that lives and dies by a test's word.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::domain::absence::{Doubt, Leftover, Proof, ScanError};
use crate::domain::cause::Cause;
use crate::domain::diagnosis::{Evidence, Exit};
use crate::domain::id::Incarnation;
use crate::domain::report::{Role, Sample, Work};
use crate::domain::target::Target;
use crate::domain::trust::{LaunchMethod, Memories, Recall};
use crate::ports::{Claim, Death, DeathSource, Head, Pending, Signal};

/// Above every pid that Linux gives (`PID_MAX_LIMIT`, 2^22): nobody can be hit by mistake.
const FIRST_PID: u32 = 5_000_000;

/// How long a sweep waits for what outlives it.
const SWEEP_LIMIT: Duration = Duration::from_secs(1);

/// A [`Head`], and the [`Claim`] to its launch: it ends when it is told to: by the test, by a first SIGTERM (in order,
/// with status 0), or by SIGKILL. Clones are the same process.
#[derive(Clone, Debug)]
pub struct ScriptedProcess(Arc<Life>);

#[derive(Debug)]
struct Life {
    incarnation: Incarnation,
    target: Target,
    pid: u32,
    began: Instant,
    start: watch::Sender<Start>,
    end: watch::Sender<Option<Exit>>,
    script: Mutex<Script>,
}

/// What comes of starting it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Start {
    Succeeded,
    Held,
    Failed(Cause),
}

#[derive(Debug)]
struct Script {
    /// SIGTERMs until it heeds one; `None` if it never does.
    patience: Option<u32>,
    /// Others of the tree, which die with the first sweep.
    helpers: Vec<u32>,
    /// Others of the tree, which outlive every sweep.
    stuck: Vec<u32>,
    /// What looking for them comes to, if it fails.
    unseen: Option<ScanError>,
    measure: Measure,
    /// `None` if reading it takes for ever.
    evidence: Option<Evidence>,
    deaths: Option<mpsc::UnboundedSender<Death>>,
    /// How it says it was started.
    method: LaunchMethod,
    recall: Recall,
    is_known_to_serve: bool,
    calls: Vec<(Duration, Call)>,
}

/// What comes of measuring the work.
#[derive(Clone, Debug)]
enum Measure {
    Shows(Sample),
    Fails(ScanError),
    Panics,
}

/// What was done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The main process got this signal.
    Signalled(Signal),
    /// Everything was killed.
    Swept,
    /// Everything was killed by a guard, without a runtime.
    SweptByGuard,
}

impl ScriptedProcess {
    /// From now on it says that it was started so.
    pub fn says_it_was(&self, method: LaunchMethod) {
        self.script().method = method;
    }

    /// From now on launches like it have come to this.
    pub fn recalls(&self, recall: Recall) {
        self.script().recall = recall;
    }

    /// Whether it was told that it is known to serve.
    pub fn is_known_to_serve(&self) -> bool {
        self.script().is_known_to_serve
    }

    pub(super) fn begin(place: usize, incarnation: Incarnation, target: Target) -> Self {
        let script = Script {
            patience: Some(1),
            helpers: Vec::new(),
            stuck: Vec::new(),
            unseen: None,
            measure: Measure::Shows(Sample::default()),
            evidence: Some(Evidence::default()),
            deaths: None,
            method: LaunchMethod::Cold,
            recall: Recall::NotCompared,
            is_known_to_serve: false,
            calls: Vec::new(),
        };
        Self(Arc::new(Life {
            incarnation,
            target,
            pid: FIRST_PID + u32::try_from(place).unwrap_or_default(),
            began: Instant::now(),
            start: watch::Sender::new(Start::Succeeded),
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
        self.script().measure = Measure::Shows(Sample { work, ..Sample::default() });
    }

    /// Its work cannot be measured.
    pub fn fail_when_measured(&self, error: ScanError) {
        self.script().measure = Measure::Fails(error);
    }

    /// Whoever measures its work panics.
    pub fn panic_when_measured(&self) {
        self.script().measure = Measure::Panics;
    }

    /// The end of what it wrote.
    pub fn write_last(&self, lines: &[&str]) {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        self.script().evidence = Some(Evidence { last_lines: lines, ..Evidence::default() });
    }

    /// Reading what it wrote takes for ever.
    pub fn hold_evidence(&self) {
        self.script().evidence = None;
    }

    /// Whoever starts it waits for [`Self::let_start`].
    pub fn hold_start(&self) {
        self.0.start.send_replace(Start::Held);
    }

    /// A start that was held succeeds.
    pub fn let_start(&self) {
        self.0.start.send_replace(Start::Succeeded);
    }

    /// Starting it fails.
    pub fn fail_start(&self, cause: Cause) {
        self.0.start.send_replace(Start::Failed(cause));
    }

    /// Another of its tree dies.
    pub fn lose(&self, pid: u32, role: Role, exit: Exit) {
        let mut script = self.script();
        script.helpers.retain(|helper| *helper != pid);
        if let Some(deaths) = &script.deaths {
            // Nobody needs to listen.
            deaths.send(Death { pid, role, exit }).ok();
        }
    }

    /// Nobody can look at it from now on.
    pub fn hide(&self, error: ScanError) {
        self.script().unseen = Some(error);
    }

    /// It can be looked at again.
    pub fn show(&self) {
        self.script().unseen = None;
    }

    /// What was done to it, and how long after it began.
    pub fn calls(&self) -> Vec<(Duration, Call)> {
        self.script().calls.clone()
    }

    /// Whether anything of the tree lives.
    pub fn is_alive(&self) -> bool {
        let script = self.script();
        self.main_is_alive() || !script.helpers.is_empty() || !script.stuck.is_empty()
    }

    pub(super) fn main_serves(&self, target: &Target) -> bool {
        self.main_is_alive() && self.0.target == *target
    }

    /// The main process, if it lives.
    pub(super) fn head_alive(&self) -> Option<Arc<dyn Head>> {
        self.main_is_alive().then(|| Arc::new(self.clone()) as _)
    }

    fn main_is_alive(&self) -> bool {
        self.0.end.borrow().is_none()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, call: Call) {
        self.script().calls.push((self.0.began.elapsed(), call));
    }

    /// Returns who lives all the same.
    fn kill_all(&self) -> Result<Vec<Leftover>, ScanError> {
        self.end(Exit::Signal(9));
        let mut script = self.script();
        script.helpers.clear();
        let name = || "stuck".to_owned();
        let left = script.stuck.iter().map(|pid| Leftover::Process { pid: *pid, name: name() });
        script.unseen.clone().map_or_else(|| Ok(left.collect()), Err)
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

impl Head for ScriptedProcess {
    fn pid(&self) -> u32 {
        self.0.pid
    }

    fn method(&self) -> LaunchMethod {
        self.script().method
    }

    fn memories(&self) -> Memories {
        Memories { recall: self.script().recall.clone(), course: None }
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

    fn signal(&self, signal: Signal) {
        self.note(Call::Signalled(signal));
        match signal {
            Signal::Terminate => self.heed(),
            Signal::Kill => self.end(Exit::Signal(9)),
        }
    }
}

impl Claim for ScriptedProcess {
    fn start(&self) -> Pending<'static, Result<Arc<dyn Head>, Cause>> {
        let process = self.clone();
        let mut start = self.0.start.subscribe();
        Box::pin(async move {
            match start.wait_for(|start| *start != Start::Held).await.map(|start| start.clone()) {
                Ok(Start::Failed(cause)) => {
                    process.end(Exit::Unknown);
                    Err(cause)
                }
                Ok(Start::Succeeded | Start::Held) | Err(_) => Ok(Arc::new(process) as _),
            }
        })
    }

    fn sweep(&self) -> Pending<'static, Result<Proof, Doubt>> {
        let process = self.clone();
        Box::pin(async move {
            process.note(Call::Swept);
            let look = process.kill_all();
            if look.as_ref().is_ok_and(Vec::is_empty) {
                return Proof::of(look);
            }
            sleep(SWEEP_LIMIT).await;
            Proof::of(process.kill_all())
        })
    }

    fn sweep_blocking(&self) -> Result<Proof, Doubt> {
        self.note(Call::SweptByGuard);
        Proof::of(self.kill_all())
    }

    fn release(&self) {}

    fn served(&self) {
        self.script().is_known_to_serve = true;
    }

    fn deaths(&self) -> Box<dyn DeathSource> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.script().deaths = Some(sender);
        Box::new(ScriptedDeaths(receiver))
    }

    fn take_stock(&self) -> Pending<'static, ()> {
        Box::pin(async {})
    }

    fn sample(&self) -> Pending<'static, Result<Sample, ScanError>> {
        let measure = self.script().measure.clone();
        Box::pin(async move {
            match measure {
                Measure::Shows(sample) => Ok(sample),
                Measure::Fails(error) => Err(error),
                Measure::Panics => panic!("the measurement was scripted to panic"),
            }
        })
    }

    fn evidence(&self) -> Pending<'static, Evidence> {
        let evidence = self.script().evidence.clone();
        Box::pin(async move {
            match evidence {
                Some(evidence) => evidence,
                None => std::future::pending().await,
            }
        })
    }
}

struct ScriptedDeaths(mpsc::UnboundedReceiver<Death>);

impl DeathSource for ScriptedDeaths {
    fn next_death(&mut self) -> Pending<'_, Death> {
        Box::pin(async {
            match self.0.recv().await {
                Some(death) => death,
                // Nobody is left to die.
                None => std::future::pending().await,
            }
        })
    }
}
