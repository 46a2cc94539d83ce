//! A launch from its claim to its proven end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError, Weak};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::adapters::directory::Directory;
use crate::adapters::kernel_log::KernelLog;
use crate::adapters::log_tail::LaunchLog;
use crate::adapters::memory_kills::MemoryKills;
use crate::adapters::ownership::on_own_thread;
use crate::adapters::pause::pause;
use crate::adapters::process_record::{ProcessRecord, RecordFile};
use crate::adapters::process_tree::ProcessTree;
use crate::adapters::scratch;
use crate::adapters::state_directory::StateDirectory;
use crate::adapters::warm::{Ahead, Came, Warm};
use crate::domain::absence::{Doubt, Proof, ScanError};
use crate::domain::cause::{Cause, Code};
use crate::domain::diagnosis::{Evidence, Exit};
use crate::domain::report::Sample;
use crate::domain::secret::{Secret, redact};
use crate::domain::trust::{LaunchMethod, Memories};
use crate::ports::{Claim, DeathSource, Head, Pending, Signal};

use super::before::Before;
use super::memory::Known;
use super::starting::{Start, warm_parent};

/// How long the end of a launch waits for one that is just being forked: some ten times what that takes.
const FORKED_WITHIN: Duration = Duration::from_millis(500);

/// Lines of output that a crash is explained by.
pub(super) const LAST_LINES: usize = 20;

/// A launch, yet to be started, running, or not yet proven gone.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) tree: ProcessTree,
    /// What it takes to start it; gone once it was started, or is not to be started any more. Held
    /// while it is started, so that no sweep looks away from a process that is just being forked.
    pub(super) start: Mutex<Option<Start>>,
    /// How it was started; as from nothing, if it was found.
    pub(super) made: OnceLock<LaunchMethod>,
    /// What is known of launches like it.
    pub(super) known: Known,
    /// What is to be told to what it was forked from, once it serves.
    pub(super) news: Mutex<Option<News>>,
    /// What it may be forked from, for as long as that is kept.
    pub(super) warm: Weak<Warm>,
    /// Whether it is not to be started any more, for whoever waits to start it.
    pub(super) called_off: AtomicBool,
    /// What was written of it, for the next supervisor.
    pub(super) written: Mutex<Option<ProcessRecord>>,
    /// Where that is written.
    pub(super) directory: Arc<Directory>,
    pub(super) log: LaunchLog,
    pub(super) memory_kills: MemoryKills,
    pub(super) kernel_log: KernelLog,
    pub(super) secrets: Vec<Secret>,
    pub(super) traces: Traces,
}

/// What a launch that serves means for those that may follow.
#[derive(Debug)]
pub(super) struct News {
    /// What it serves, if there may be something to learn from it.
    lesson: Option<String>,
    /// One like it, if it may go ahead.
    ahead: Option<Ahead>,
}

impl Launch {
    fn start(&self) -> Result<u32, Cause> {
        let parent = self.warm.upgrade().and_then(|warm| warm_parent(&warm, &self.called_off));
        let mut start = self.start.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut start) = start.take() else {
            return Err(called_off());
        };
        // Before there is anything to be watched: at the limit of threads nothing is started.
        self.tree.watch().map_err(|error| cannot_watch(&error))?;
        let forked = parent.and_then(|parent| start.fork(&self.tree, parent, &self.called_off));
        let pid = match &forked {
            Some(standing) => standing.pid,
            None if self.called_off.load(Ordering::SeqCst) => return Err(called_off()),
            None => start.run(&self.tree)?,
        };
        let made = forked.as_ref().map_or(LaunchMethod::Cold, |standing| match standing.came {
            Came::Ahead => LaunchMethod::Ahead,
            Came::ToOrder => start.method.min(LaunchMethod::Tree),
        });
        self.made.get_or_init(|| made);
        let words = start.words().filter(|_| forked.is_some());
        let goes_ahead = start.method == LaunchMethod::Ahead;
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = words.map(|words| News {
            lesson: start.lesson,
            ahead: goes_ahead.then_some(Ahead { words, engines: true }),
        });
        let mut record = start.record;
        record.main = self.tree.main();
        if let Err(error) = self.traces.record.write(&record) {
            tracing::error!(%error, "the running vLLM cannot be recorded: no other supervisor will find it");
        }
        self.written.lock().unwrap_or_else(PoisonError::into_inner).replace(record);
        if let Some(standing) = forked {
            standing.begin();
        }
        Ok(pid)
    }

    fn call_off(&self) {
        self.called_off.store(true, Ordering::SeqCst);
        if let Some(warm) = self.warm.upgrade() {
            warm.wake();
            let began = Instant::now();
            while matches!(self.start.try_lock(), Err(TryLockError::WouldBlock)) {
                if began.elapsed() >= FORKED_WITHIN {
                    // Whoever starts it waits for an answer, which comes or not.
                    warm.give_up();
                    break;
                }
                pause(FORKED_WITHIN / 50);
            }
        }
        self.start.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn sweep(&self) -> Result<Proof, Doubt> {
        self.call_off();
        let proof = self.tree.sweep()?;
        self.written.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.traces.remove();
        self.tree.dismiss_guardian();
        Ok(proof)
    }

    /// What is done for it before it is started is its work too.
    fn sample(&self) -> Result<Sample, ScanError> {
        self.memory_kills.note();
        self.kernel_log.note();
        let mut sample = self.tree.sample()?;
        if let (None, Some(warm)) = (self.made.get(), self.warm.upgrade()) {
            let warm = warm.work();
            sample.work.cpu += warm.cpu;
            sample.work.io_bytes += warm.io_bytes;
        }
        Ok(sample)
    }

    fn evidence(&self) -> Evidence {
        let masked = |text: String| redact(&text, &self.secrets);
        let diagnosis = self.log.diagnosis().unwrap_or_else(|error| {
            tracing::warn!(%error, log = %self.log.path().display(), "vLLM's log cannot be read");
            None
        });
        Evidence {
            diagnosis: diagnosis.map(|it| it.map_text(masked)),
            last_lines: self.last_lines().into_iter().map(masked).collect(),
            log: Some(self.log.path()),
            memory_kills: self.memory_kills.since(),
            kernel: self.kernel_log.since(),
        }
    }

    fn last_lines(&self) -> Vec<String> {
        self.log.last_lines(LAST_LINES).unwrap_or_default()
    }
}

/// See [`Claim`].
#[derive(Debug)]
pub(super) struct LaunchClaim {
    launch: Arc<Launch>,
    /// Whether dropping it leaves nobody without an owner.
    is_disarmed: AtomicBool,
    /// What comes first.
    before: Option<Before>,
}

impl LaunchClaim {
    /// A claim that sweeps when it is dropped.
    pub(super) fn armed(launch: Arc<Launch>, before: Before) -> Self {
        Self { launch, is_disarmed: AtomicBool::new(false), before: Some(before) }
    }

    /// A claim to what somebody else started.
    pub(super) fn found(launch: Arc<Launch>) -> Self {
        Self { launch, is_disarmed: AtomicBool::new(true), before: None }
    }

    pub(super) fn head(&self) -> Option<Arc<dyn Head>> {
        let (pid, _) = self.launch.tree.main()?;
        Some(Arc::new(LaunchHead { pid, launch: Arc::clone(&self.launch) }))
    }
}

impl Claim for LaunchClaim {
    fn start(&self) -> Pending<'static, Result<Arc<dyn Head>, Cause>> {
        let (launch, before) = (Arc::clone(&self.launch), self.before.clone());
        Box::pin(async move {
            if let Some(before) = before {
                before.pass().await?;
            }
            let work = Arc::clone(&launch);
            let started = on_own_thread("vllm-start", move || work.start()).await;
            let pid = started.map_err(|error| cannot_watch(&error))??;
            Ok(Arc::new(LaunchHead { pid, launch }) as Arc<dyn Head>)
        })
    }

    fn sweep(&self) -> Pending<'static, Result<Proof, Doubt>> {
        let launch = Arc::clone(&self.launch);
        Box::pin(async move {
            on_own_thread("vllm-sweep", move || launch.sweep()).await.map_err(Doubt::Unseen)?
        })
    }

    fn take_stock(&self) -> Pending<'static, ()> {
        let launch = Arc::clone(&self.launch);
        Box::pin(async move {
            let looked = on_own_thread("vllm-stock", move || launch.tree.take_stock()).await;
            if let Err(error) = looked.flatten() {
                tracing::debug!(%error, "vLLM's shared memory could not be looked at");
            }
        })
    }

    fn sweep_blocking(&self) -> Result<Proof, Doubt> {
        let swept = self.launch.sweep();
        // Who asked knows what is left, and need not wait for a second sweep.
        self.is_disarmed.store(true, Ordering::Relaxed);
        swept
    }

    fn release(&self) {
        self.launch.keep_record();
        self.launch.tree.dismiss_guardian();
        self.is_disarmed.store(true, Ordering::Relaxed);
    }

    fn served(&self) {
        self.launch.keep_switch();
        let news = self.launch.news.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(news), Some(warm)) = (news, self.launch.warm.upgrade()) {
            if let Some(model) = &news.lesson {
                warm.learn(model);
            }
            if let Some(next) = &news.ahead {
                warm.go_ahead(next);
            }
        }
    }

    fn deaths(&self) -> Box<dyn DeathSource> {
        self.launch.tree.deaths()
    }

    fn sample(&self) -> Pending<'static, Result<Sample, ScanError>> {
        let launch = Arc::clone(&self.launch);
        Box::pin(async move { on_own_thread("vllm-sample", move || launch.sample()).await? })
    }

    fn evidence(&self) -> Pending<'static, Evidence> {
        let launch = Arc::clone(&self.launch);
        Box::pin(async move {
            // Without a thread there is none to be had now.
            on_own_thread("vllm-diagnosis", move || launch.evidence()).await.unwrap_or_default()
        })
    }
}

impl Drop for LaunchClaim {
    fn drop(&mut self) {
        let is_over = self.launch.tree.is_swept() || self.is_disarmed.load(Ordering::Relaxed);
        if is_over {
            return;
        }
        let launch = Arc::clone(&self.launch);
        let sweep = move || {
            if let Err(doubt) = launch.sweep() {
                tracing::error!(%doubt, "a launch without an owner could not be ended");
            }
        };
        if thread::Builder::new().name("vllm-guard".to_owned()).spawn(sweep).is_err() {
            // At the limit of threads: better slow than not at all.
            drop(self.launch.sweep());
        }
    }
}

/// See [`Head`].
#[derive(Debug)]
struct LaunchHead {
    pid: u32,
    launch: Arc<Launch>,
}

impl Head for LaunchHead {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn method(&self) -> LaunchMethod {
        self.launch.made.get().copied().unwrap_or(LaunchMethod::Cold)
    }

    fn memories(&self) -> Memories {
        self.launch.known.of(self.method())
    }

    fn ended(&self) -> Pending<'static, Exit> {
        Box::pin(self.launch.tree.ended())
    }

    fn signal(&self, signal: Signal) {
        self.launch.tree.signal_main(match signal {
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        });
    }
}

/// What a launch leaves in the file system, its log and its shared memory apart, and that it is ours.
#[derive(Debug)]
pub(super) struct Traces {
    pub(super) marker: String,
    pub(super) record: RecordFile,
    pub(super) scratch: Vec<PathBuf>,
    pub(super) state: Arc<StateDirectory>,
}

impl Traces {
    /// The record goes last: it is how the rest is found. Files that cannot be removed are no reason
    /// to launch nothing any more; they are named.
    pub(super) fn remove(&self) {
        for scratch in &self.scratch {
            if let Err(error) = scratch::remove(scratch) {
                let path = scratch.display().to_string();
                tracing::warn!(%error, path, "short-lived files of vLLM stay behind: remove them by hand");
            }
            self.state.launches().let_go(scratch);
        }
        self.record.remove(&self.marker);
    }
}

fn called_off() -> Cause {
    Cause::new(Code::Unrecognised, "the launch was called off")
}

pub(super) fn cannot_watch(error: &ScanError) -> Cause {
    Cause::new(Code::Unrecognised, format!("cannot watch vLLM: {error}"))
}
