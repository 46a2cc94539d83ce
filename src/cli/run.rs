//! `vllmd run`: supervises in the foreground, until a signal or until the service gives up.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::watch;

use super::Output;
use super::complaint::Complaint;
use super::exit::Exit;
use super::orphans::Orphans;
use super::printer::{Form, Printer, TextForm};
use super::progress::Progress;
use super::render::{self, Service};
use super::signals::{LAST, LAST_GRACE, Listener, Signals};
use super::stderr::Stderr;
use super::{log, screen};
use crate::builder::left_running;
use crate::config::{Config, ExitPolicy, Resolved, Setting, Sources};
use crate::preflight::Finding;
use crate::{
    Cause, EventStream, LaunchKind, LifecycleMode, ServiceState, Snapshot, StartError, StopMode,
    Supervisor, SupervisorHandle,
};

/// The actors mostly wait: one thread for them, and one that is free when something blocks.
const WORKER_THREADS: usize = 2;

/// How long what a start would meet is looked at; some milliseconds are usual.
const LOOKED_WITHIN: Duration = Duration::from_millis(500);

/// How long a look at the system that hangs may hold up the end of the process.
const BLOCKING_GRACE: Duration = Duration::from_secs(1);

/// Supervises as the configuration says.
pub(super) fn run(sources: &Sources, output: Output, log_format: Output) -> Exit {
    let progress = Progress::for_output(output);
    let stderr = match Stderr::open(log_format, progress.clone()) {
        Ok(stderr) => stderr,
        Err(error) => {
            screen::tell(Complaint::of_error(&error));
            return Exit::Failure;
        }
    };
    let exit = run_with(sources, output, log_format, progress, &stderr);
    stderr.flush();
    exit
}

fn run_with(
    sources: &Sources,
    output: Output,
    log_format: Output,
    progress: Progress,
    stderr: &Stderr,
) -> Exit {
    let Resolved { config, file, origins } = match Resolved::load(sources) {
        Ok(resolved) => resolved,
        Err(error) => return misconfigured(stderr, &Complaint::of_config(&error)),
    };
    if let Err(complaint) = log::install(log_format, stderr) {
        return misconfigured(stderr, &[complaint]);
    }
    if let Some(file) = file {
        stderr.tell(format_args!("configured by {}", file.display()));
    }
    let runtime =
        runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let run = Run::new(&config, origins, output, progress, stderr.clone());
            let done = runtime.block_on(Box::pin(run.run_until_last_signal(config)));
            let grace = match done {
                Done::AtLeisure(_) => BLOCKING_GRACE,
                // vLLM has a guard, which kills or keeps it as configured when the runtime ends.
                Done::AtOnce(_) => LAST_GRACE,
            };
            runtime.shutdown_timeout(grace);
            match done {
                Done::AtLeisure(exit) => exit.unwrap_or_else(|error| failed(stderr, &error)),
                Done::AtOnce(exit) => exit,
            }
        }
        Err(error) => failed(stderr, &error),
    }
}

fn misconfigured(stderr: &Stderr, complaints: &[Complaint]) -> Exit {
    for complaint in complaints {
        stderr.complain(complaint);
    }
    Exit::Misconfigured
}

/// Nothing has been started when one of the things that every run needs could not be had.
fn failed(stderr: &Stderr, error: &io::Error) -> Exit {
    let remedy =
        "start it again; if it recurs, allow it more open files or threads (`ulimit -n`, `-u`)";
    stderr.complain(&Complaint::new(format!("vllmd cannot begin: {error}"), remedy));
    Exit::Failure
}

/// How a run was left.
#[derive(Debug)]
enum Done {
    /// It has ended.
    AtLeisure(io::Result<Exit>),
    /// It was dropped at the last signal.
    AtOnce(Exit),
}

/// Why a run ends.
#[derive(Debug)]
enum End {
    /// A signal asked for it.
    Asked(Exit),
    /// The service gave up.
    GaveUp(Cause),
    /// The supervisor ended by itself: a bug, of which its log tells.
    Lost,
}

/// One run, from the configuration to the exit code.
#[derive(Debug)]
struct Run {
    service: Service,
    settings: Vec<Setting>,
    mode: LifecycleMode,
    on_exit: ExitPolicy,
    output: Output,
    progress: Progress,
    stderr: Stderr,
}

impl Run {
    fn new(
        config: &Config,
        settings: Vec<Setting>,
        output: Output,
        progress: Progress,
        stderr: Stderr,
    ) -> Self {
        let (service, lifecycle) = (Service::of(config), &config.lifecycle);
        let (mode, on_exit) = (lifecycle.mode, lifecycle.stop_on_exit);
        Self { service, settings, mode, on_exit, output, progress, stderr }
    }

    async fn run_until_last_signal(self, config: Config) -> Done {
        // Before anything is started, so that a signal cannot come too early.
        let listener = match Listener::start() {
            Ok(listener) => listener,
            Err(error) => return Done::AtLeisure(Err(error)),
        };
        let mut last = listener.signals();
        tokio::select! {
            biased;
            exit = last.came(LAST) => Done::AtOnce(exit),
            done = self.run(config, listener.signals()) => Done::AtLeisure(done),
        }
    }

    async fn run(mut self, config: Config, mut signals: Signals) -> io::Result<Exit> {
        if let Some(exit) = self.refuse(&config).await {
            return Ok(exit);
        }
        let _orphans = Orphans::reap(&config.state_dir)?;
        let handle = match Supervisor::builder().config(config).spawn().await {
            Ok(handle) => handle,
            Err(error) => return Ok(self.refused(&error)),
        };
        let found = handle.watch().borrow().clone();
        self.service.switch_to(&found.model, found.extra_args.as_deref());
        let printer = Printer::start(self.events(&handle), self.form())?;
        self.greet(&found);
        let end = tokio::select! {
            biased;
            exit = signals.came(1) => End::Asked(exit),
            end = self.supervise(&handle) => end,
        };
        self.take_leave(&end, &handle);
        let last = wind_down(handle, &mut signals).await;
        printer.finished().await;
        self.progress.hide();
        Ok(self.report(&end, &last))
    }

    /// What `check` finds fatal is told once, and nothing is begun; but what was left running may be taken
    /// over, whatever has become of its files.
    async fn refuse(&self, config: &Config) -> Option<Exit> {
        let looked = config.clone();
        let looked = tokio::task::spawn_blocking(move || Supervisor::check_quickly(&looked));
        // What takes long is found out by the start.
        let findings = tokio::time::timeout(LOOKED_WITHIN, looked).await.ok()?.ok()?;
        let causes: Vec<&Cause> = findings.iter().filter_map(Finding::fatal).collect();
        let address = SocketAddr::new(config.host, config.port);
        if causes.is_empty() || left_running(&config.state_dir, address).is_some() {
            return None;
        }
        for cause in causes {
            self.stderr.complain(&Complaint::from(cause));
        }
        Some(Exit::Misconfigured)
    }

    fn refused(&self, error: &StartError) -> Exit {
        for complaint in Complaint::of_start(error, &self.settings) {
            self.stderr.complain(&complaint);
        }
        match error {
            StartError::Config(_)
            | StartError::VllmNotFound(_)
            | StartError::StateDirectory(_)
            | StartError::Journal(_) => Exit::Misconfigured,
            StartError::ParentEnded | StartError::System { .. } => Exit::Failure,
        }
    }

    fn form(&self) -> Form {
        match self.output {
            Output::Json => Form::Json,
            Output::Text => {
                let form = TextForm::new(self.service.clone(), self.progress.clone());
                Form::Text(Box::new(form))
            }
        }
    }

    /// For a program everything that this supervisor did, from its first look around on; for people
    /// what happens from now on.
    fn events(&self, handle: &SupervisorHandle) -> EventStream {
        match self.output {
            Output::Json => handle.subscribe_from(handle.first_event()),
            Output::Text => handle.subscribe(),
        }
    }

    fn tell(&self, message: impl std::fmt::Display) {
        self.stderr.tell(message);
    }

    fn greet(&self, snapshot: &Snapshot) {
        if self.mode != LifecycleMode::Managed {
            self.tell(render::watching(snapshot, &self.service));
        }
        if let (Some(LaunchKind::Adopted), Some(pid)) = (snapshot.launch, snapshot.pid) {
            self.tell(render::adopted(pid, &self.service));
        }
    }

    fn take_leave(&self, end: &End, handle: &SupervisorHandle) {
        let runs = handle.watch().borrow().pid.is_some();
        if let (End::Asked(_), ExitPolicy::Stop, true) = (end, self.on_exit, runs) {
            self.tell("stopping vLLM; a second signal kills it, a third exits at once");
        }
    }

    async fn supervise(&self, handle: &SupervisorHandle) -> End {
        match self.mode {
            LifecycleMode::Managed => supervise(handle).await,
            LifecycleMode::Monitored | LifecycleMode::External => watch_on(handle).await,
        }
    }

    /// Tells how it ended.
    fn report(&self, end: &End, last: &Last) -> Exit {
        match end {
            // What is not ours is neither stopped nor left.
            End::Asked(exit) if self.mode != LifecycleMode::Managed => {
                self.tell("vLLM was left alone: it is not ours");
                *exit
            }
            End::Asked(exit) => match (self.on_exit, last.lives_on, &last.blocked) {
                (ExitPolicy::Detach, Some(pid), _) => {
                    self.tell(render::lives_on(&self.service, pid));
                    *exit
                }
                // It was to be stopped, and outlives SIGKILL.
                (ExitPolicy::Stop, _, Some(cause)) => {
                    self.stderr.complain(&Complaint::from(cause));
                    Exit::Failure
                }
                (ExitPolicy::Detach | ExitPolicy::Stop, _, _) => *exit,
            },
            End::GaveUp(cause) => {
                self.stderr.complain(&Complaint::from(cause));
                Exit::GaveUp
            }
            End::Lost => {
                let remedy = "this is a bug: please report it with the log (VLLMD_LOG=debug)";
                self.stderr.complain(&Complaint::new("the supervisor ended by itself", remedy));
                Exit::Failure
            }
        }
    }
}

/// Starts the service, and returns when it will not be brought up any more.
async fn supervise(handle: &SupervisorHandle) -> End {
    // Whatever comes of it shows in the state, as does what happens afterwards.
    handle.start().await.ok();
    let mut snapshots = handle.watch();
    match snapshots.wait_for(|snapshot| snapshot.state == ServiceState::Failed).await {
        Ok(snapshot) => snapshot.last_error.clone().map_or(End::Lost, End::GaveUp),
        Err(_) => End::Lost,
    }
}

/// Somebody else starts it, and starts it again: there is no end to that.
async fn watch_on(handle: &SupervisorHandle) -> End {
    let mut snapshots = handle.watch();
    while snapshots.changed().await.is_ok() {}
    End::Lost
}

/// What was known of vLLM when its supervisor ended.
#[derive(Debug)]
struct Last {
    /// Its pid, if it was loading or serving: only then is it left running.
    lives_on: Option<u32>,
    /// What could not be removed.
    blocked: Option<Cause>,
}

/// Ends the supervisor, and vLLM with it or not; faster if a second signal comes.
async fn wind_down(handle: SupervisorHandle, signals: &mut Signals) -> Last {
    let snapshots = handle.watch();
    let mut ended = Box::pin(handle.clone().shutdown());
    let end = async {
        tokio::select! {
            () = &mut ended => {}
            _ = signals.came(2) => {
                // If it comes too late, there is nothing left to kill.
                handle.stop_by(StopMode::Immediate).await.ok();
                ended.await;
            }
        }
    };
    // The last snapshot of all says only that nobody supervises any more.
    let (lives_on, ()) = tokio::join!(last_pid(snapshots.clone()), end);
    let blocked = snapshots.borrow().blocked.clone();
    Last { lives_on, blocked }
}

/// The pid of the vLLM that loads or serves when the supervisor ends.
async fn last_pid(mut snapshots: watch::Receiver<Snapshot>) -> Option<u32> {
    let mut last = None;
    loop {
        {
            let snapshot = snapshots.borrow_and_update();
            match snapshot.state {
                ServiceState::Starting | ServiceState::Running => last = snapshot.pid,
                ServiceState::Unknown => {}
                ServiceState::Stopped
                | ServiceState::Stopping
                | ServiceState::Crashed
                | ServiceState::Failed => last = None,
            }
        }
        if snapshots.changed().await.is_err() {
            return last;
        }
    }
}
