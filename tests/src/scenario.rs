//! A supervisor with a vLLM, real or not, to be put through something and to leave nothing.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use vllm_supervisor::config::{Config, ExitPolicy, ModelReference};
use vllm_supervisor::{
    EventKind, EventStream, Incident, ModelLoadProgress, Notice, ServiceState, Snapshot,
    StartError, Supervisor, SupervisorHandle, wire,
};

use crate::census::Census;
use crate::fake_venv::FakeVenv;
use crate::fake_vllm::FakeVllm;
use crate::open_request::OpenRequest;
use crate::process_table::Process;
use crate::real_vllm::RealVllm;

/// A vLLM to be supervised.
#[derive(Clone, Debug)]
pub struct Server {
    /// The program and its first words.
    command: Vec<String>,
    model: PathBuf,
    other_model: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// How long to wait for anything to happen.
    patience: Duration,
    /// What the main process has mapped when it is amid its imports.
    imports: &'static str,
    /// Where it is kept what is learnt of it.
    cache: Option<PathBuf>,
}

impl Server {
    /// The stand-in at `command` (`env!("CARGO_BIN_EXE_fake_vllm")`), following a plan.
    pub fn fake(command: &str, plan: &FakeVllm) -> Self {
        Self {
            command: vec![command.to_owned()],
            // Any directory will do: the stand-in reads nothing from it.
            model: env!("CARGO_MANIFEST_DIR").into(),
            other_model: concat!(env!("CARGO_MANIFEST_DIR"), "/src").into(),
            arguments: Vec::new(),
            environment: vec![plan.environment()],
            patience: Duration::from_secs(30),
            imports: "",
            cache: None,
        }
    }

    /// The stand-in, as a script of Python that can be launched warm.
    pub fn fake_in(venv: &FakeVenv, plan: &FakeVllm) -> Self {
        let cache = Some(venv.path("cache"));
        Self { cache, ..Self::fake(&venv.command(), plan) }
    }

    /// With more patience than the stand-in needs otherwise.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// A real one.
    pub fn real(vllm: RealVllm) -> Self {
        let variable = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            command: vec![vllm.command.display().to_string()],
            model: vllm.tiny_model,
            other_model: vllm.other_model,
            arguments: RealVllm::quick_arguments().map(str::to_owned).to_vec(),
            environment: RealVllm::quick_environment().map(variable).to_vec(),
            patience: Duration::from_secs(300),
            imports: "libtorch",
            cache: Some(vllm.cache),
        }
    }

    /// Started by another program, so that nobody knows where it is installed: nothing is looked at
    /// before a launch, and vLLM itself has to say what is wrong.
    #[must_use]
    pub fn unlooked(mut self) -> Self {
        self.command.insert(0, "/usr/bin/env".to_owned());
        self
    }

    /// With a process beside it that has a session of its own and none of its environment; the
    /// stand-in has one where its plan says so.
    #[must_use]
    pub fn with_helper(mut self) -> Self {
        let script = format!("env -i setsid {HELPER} & exec \"$0\" \"$@\"");
        let shell = ["/bin/sh", "-c", &script].map(str::to_owned);
        self.command.splice(0..0, shell);
        self
    }

    /// Whether this main process is amid its imports, or past them.
    pub fn imports(&self, main: &Process) -> bool {
        main.has_mapped(self.imports)
    }

    /// How long to wait for anything to happen.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// What it is told besides its model.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// The second model.
    pub fn other_model(&self) -> &str {
        self.other_model.to_str().unwrap_or_default()
    }
}

/// What [`Server::with_helper`] runs.
const HELPER: &str = "sleep 86399";

/// Which of vLLM's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The main process, which speaks HTTP.
    ApiServer,
    /// `VLLM::EngineCore`.
    EngineCore,
    /// `VLLM::Worker`.
    Worker,
    /// Of Python's `multiprocessing`.
    ResourceTracker,
    /// One that has a session of its own and none of vLLM's environment.
    Helper,
}

/// A supervisor, its vLLM, and everything that happened.
#[derive(Debug)]
pub struct Scenario {
    handle: Option<SupervisorHandle>,
    server: Server,
    config: Config,
    events: Arc<Mutex<Vec<Notice>>>,
    listener: JoinHandle<()>,
    census: Census,
    // Last, so that it is removed when everything that writes there has ended.
    directory: Arc<TempDir>,
}

impl Scenario {
    /// A supervisor that has not been asked for anything yet, with the shortest backoff and
    /// `stop_on_exit`.
    pub async fn prepare(server: Server) -> Self {
        Self::configure(server, |_| {}).await
    }

    /// The same with other settings.
    pub async fn configure(server: Server, edit: impl FnOnce(&mut Config)) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let census = Census::of(format!("SCENARIO={}", directory.path().display()));
        let mut config = configuration(&server, &census, directory.path());
        edit(&mut config);
        Self::with(server, config, census, directory).await.expect("a supervisor")
    }

    async fn with(
        server: Server,
        config: Config,
        census: Census,
        directory: Arc<TempDir>,
    ) -> Result<Self, StartError> {
        let handle = Supervisor::builder().config(config.clone()).spawn().await?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let listener = listen(&handle, Arc::clone(&events));
        Ok(Self { handle: Some(handle), server, config, events, listener, census, directory })
    }

    /// A supervisor whose vLLM serves.
    pub async fn start(server: Server) -> Self {
        let scenario = Self::prepare(server).await;
        scenario.start_service().await;
        scenario
    }

    /// Starts the service and waits until it serves.
    pub async fn start_service(&self) {
        let started = tokio::time::timeout(self.server.patience, self.handle().start()).await;
        match started {
            Ok(Ok(())) => {}
            other => panic!("it did not start: {other:?}\n{}", self.story()),
        }
    }

    /// Ends this supervisor, as its configuration says, and leaves what it leaves.
    #[must_use]
    pub async fn abandon(mut self) -> Self {
        if let Some(handle) = self.handle.take() {
            handle.shutdown().await;
        }
        self
    }

    /// Ends this supervisor, and gives another one the same directory.
    #[must_use]
    pub async fn succeed(self) -> Self {
        self.succeed_with(|_| {}).await
    }

    /// The same, with other settings.
    #[must_use]
    pub async fn succeed_with(self, edit: impl FnOnce(&mut Config)) -> Self {
        self.abandon().await.replace(edit).await
    }

    async fn replace(self, edit: impl FnOnce(&mut Config)) -> Self {
        let mut config = self.config.clone();
        edit(&mut config);
        let census = Census::of(format!("SCENARIO={}", self.directory.path().display()));
        let (server, directory) = (self.server.clone(), Arc::clone(&self.directory));
        let successor = Self::with(server, config, census, directory).await.expect("a successor");
        self.leave_processes();
        successor
    }

    /// Ends the scenario without ending what runs.
    fn leave_processes(mut self) {
        self.census = Census::of("NOBODY=has this");
    }

    /// The supervisor.
    pub fn handle(&self) -> &SupervisorHandle {
        self.handle.as_ref().expect("the scenario goes on")
    }

    /// Drops the handle; the supervisor ends by itself.
    pub fn drop_handle(&mut self) {
        self.handle = None;
    }

    /// Everything of this scenario that runs.
    pub fn processes(&self) -> Vec<Process> {
        self.census.processes()
    }

    /// Waits until the processes of this scenario are as wanted.
    pub async fn wait_until_processes(&self, wanted: impl Fn(&[Process]) -> bool) {
        let deadline = tokio::time::Instant::now() + self.server.patience;
        while !wanted(&self.processes()) {
            assert!(tokio::time::Instant::now() < deadline, "{:#?}", self.processes());
            tokio::task::yield_now().await;
        }
    }

    /// The vLLM it was made with.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Where the supervisor keeps its things.
    pub fn state_dir(&self) -> &Path {
        &self.config.state_dir
    }

    /// Waits until the present is as wanted.
    pub async fn wait_until(&self, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let mut present = self.handle().watch();
        let reached = tokio::time::timeout(self.server.patience, present.wait_for(&wanted)).await;
        match reached {
            Ok(Ok(snapshot)) => return snapshot.clone(),
            Ok(Err(_)) => panic!("the supervisor ended\n{}", self.story()),
            Err(_) => {}
        }
        panic!("waited in vain; now {:#?}\n{}", self.handle().watch().borrow(), self.story())
    }

    /// Waits for a state.
    pub async fn wait_for(&self, state: ServiceState) -> Snapshot {
        self.wait_until(|snapshot| snapshot.state == state).await
    }

    /// Waits until an incarnation after `incarnation` serves.
    pub async fn wait_for_successor_of(&self, incarnation: u64) -> Snapshot {
        let is_successor = |snapshot: &Snapshot| {
            snapshot.state == ServiceState::Running && snapshot.incarnation.get() > incarnation
        };
        self.wait_until(is_successor).await
    }

    /// How this launch ended, which nobody asked for.
    ///
    /// # Panics
    ///
    /// If that has not been told.
    pub fn incident(&self, incarnation: u64) -> Incident {
        let told = self.notices().into_iter().find_map(|notice| match notice {
            Notice::Event(event) if event.incarnation.get() == incarnation => match &event.kind {
                EventKind::IncidentRecorded { incident } => Some((**incident).clone()),
                _ => None,
            },
            _ => None,
        });
        told.unwrap_or_else(|| panic!("of {incarnation} nothing was told\n{}", self.story()))
    }

    /// Asks vLLM for a completion, and returns its text.
    pub async fn complete(&self) -> String {
        let answer = async { self.open_request(8).await?.text().await };
        answer.await.unwrap_or_else(|error| panic!("{error}\n{}", self.story()))
    }

    /// Asks for a greedy continuation of a fixed prompt by so many tokens, and returns as soon as
    /// vLLM has begun with it.
    ///
    /// # Errors
    ///
    /// What there was instead of an answer's first part.
    pub async fn open_request(&self, max_tokens: u32) -> Result<OpenRequest, String> {
        let url = format!("{}/v1/completions", self.handle().base_url());
        let present = self.handle().watch().borrow().clone();
        let name = present.listed_models.first().map_or(present.model.as_str(), String::as_str);
        let body = serde_json::json!({
            "model": name,
            "prompt": "Once upon a time",
            "max_tokens": max_tokens,
            "ignore_eos": true,
            "temperature": 0.0,
            "stream": true,
        });
        OpenRequest::send(&url, &body).await
    }

    /// The process of that role in the present incarnation.
    pub fn process(&self, victim: Victim) -> Process {
        let processes = self.processes();
        self.find(victim, &processes).cloned().unwrap_or_else(|| {
            panic!("there is no {victim:?} among {processes:#?}\n{}", self.story())
        })
    }

    /// The one of these that has that role in the present incarnation, and its title.
    pub fn find<'a>(&self, victim: Victim, processes: &'a [Process]) -> Option<&'a Process> {
        let main = self.handle().watch().borrow().pid?;
        processes.iter().find(|process| match victim {
            Victim::ApiServer => process.pid.as_raw_pid().cast_unsigned() == main,
            Victim::EngineCore => process.title.starts_with("VLLM::EngineCore"),
            Victim::Worker => process.title.starts_with("VLLM::Worker"),
            Victim::ResourceTracker => process.title.contains("resource_tracker"),
            Victim::Helper => [HELPER, "fake_vllm-grandchild"].contains(&process.title.as_str()),
        })
    }

    /// The process that launches are forked from, once there is one.
    pub async fn warm_process(&self) -> Process {
        self.wait_until_processes(|living| living.iter().any(Process::is_warm)).await;
        let living = self.processes();
        let warm: Vec<&Process> = living.iter().filter(|it| it.is_warm()).collect();
        // What it has just forked has it for a parent.
        let is_first = |it: &&&Process| !warm.iter().any(|other| it.parent == Some(other.pid));
        let first = warm.iter().find(is_first).copied().cloned();
        first.unwrap_or_else(|| panic!("it has ended since\n{}", self.story()))
    }

    /// The segments of shared memory that vLLM's processes have mapped now.
    pub fn shared_memory(&self) -> BTreeSet<PathBuf> {
        self.census.shared_memory()
    }

    /// Sends a signal to one of vLLM's processes.
    pub fn kill(&self, victim: Victim, signal: Signal) {
        kill_process(self.process(victim).pid, signal).expect("it lives");
    }

    /// Every notice so far.
    pub fn notices(&self) -> Vec<Notice> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How far loads were, as it was told so far.
    pub fn loads(&self) -> Vec<ModelLoadProgress> {
        let loads = self.notices().into_iter().filter_map(|notice| match notice {
            Notice::Event(event) => match &event.kind {
                EventKind::LoadProgressed { progress } => Some(progress.clone()),
                _ => None,
            },
            Notice::Gap { .. } => None,
        });
        loads.collect()
    }

    /// The states passed through so far.
    pub fn states(&self) -> Vec<ServiceState> {
        let state = |notice: &Notice| match notice {
            Notice::Event(event) => match event.kind {
                EventKind::StateChanged { to, .. } => Some(to),
                _ => None,
            },
            Notice::Gap { .. } => None,
        };
        self.notices().iter().filter_map(state).collect()
    }

    /// Waits until nothing of vLLM is left.
    pub async fn nothing_is_left(&self) {
        let left = self.census.wait_until_empty(Duration::from_secs(20)).await;
        assert_eq!(left, Ok(()), "{}", self.story());
    }

    /// Stops the service, ends the supervisor, and checks that nothing is left.
    pub async fn end(mut self) {
        let segments = self.shared_memory();
        if let Some(handle) = self.handle.take() {
            handle.stop().await.expect("a stop");
            handle.shutdown().await;
        }
        self.nothing_is_left().await;
        are_gone(&segments);
    }

    /// What happened, for a failing test: events as JSON, and the end of vLLM's log.
    pub fn story(&self) -> String {
        let lines = self.notices();
        let events: Vec<String> = lines.iter().map(|it| wire::notice(it).to_string()).collect();
        let logs = self.state_dir().join("logs");
        let newest = std::fs::read_dir(logs).into_iter().flatten().flatten().map(|it| it.path());
        let log = newest.max_by_key(|path| path.metadata().and_then(|it| it.modified()).ok());
        let log = log.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        format!("--- events\n{}\n--- vLLM\n{tail}", events.join("\n"))
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        self.handle = None;
        self.listener.abort();
        self.census.kill_all();
    }
}

/// Fails if one of these segments of shared memory still exists.
pub fn are_gone(segments: &BTreeSet<PathBuf>) {
    let left: Vec<_> = segments.iter().filter(|segment| segment.exists()).collect();
    assert!(left.is_empty(), "shared memory was left: {left:?}");
}

fn configuration(server: &Server, census: &Census, directory: &Path) -> Config {
    let model = ModelReference::Directory(server.model.clone());
    let mut config = Config::with_defaults(model, directory.join("state"));
    config.cache_dir.clone_from(&server.cache);
    config.port = free_port();
    config.vllm_binary = Some(server.command.clone());
    config.extra_args.clone_from(&server.arguments);
    config.env = server.environment.iter().cloned().collect();
    let (name, value) = census.variable();
    config.env.insert(name.to_owned(), value.to_owned());
    // A killed vLLM leaves its rendezvous file (`vllm_dist_*`) in the temporary directory.
    config.env.insert("TMPDIR".to_owned(), directory.display().to_string());
    config.lifecycle.stop_on_exit = ExitPolicy::Stop;
    config
}

/// Reads up to the event that enters a state, or to the end.
pub async fn enters(events: &mut EventStream, state: ServiceState) {
    while let Some(notice) = events.next().await {
        if let Notice::Event(event) = notice
            && let EventKind::StateChanged { to, .. } = event.kind
            && to == state
        {
            return;
        }
    }
}

/// A port that nobody has. It is none of those that the system gives to whoever asks for any, or connects to
/// somebody (ip(7), `ip_local_port_range`): until vLLM listens there, only a test that chose the same by
/// chance could take it.
pub fn free_port() -> u16 {
    let by_chance = || RandomState::new().build_hasher().finish();
    let mut ports = std::iter::repeat_with(|| 15_000 + (by_chance() % 15_000) as u16);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

fn listen(handle: &SupervisorHandle, events: Arc<Mutex<Vec<Notice>>>) -> JoinHandle<()> {
    let mut subscription = handle.subscribe();
    #[expect(clippy::disallowed_methods, reason = "the scenario owns it, and aborts it")]
    tokio::spawn(async move {
        while let Some(notice) = subscription.next().await {
            events.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
        }
    })
}
