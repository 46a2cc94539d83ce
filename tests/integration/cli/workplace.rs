//! A place to run `vllmd` in: its own home, state, port and `vllm`, and a census that leaves
//! nothing behind.

#![expect(clippy::unwrap_used, reason = "clippy takes only the tests themselves for tests")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use vllm_supervisor_tests::census::Census;
use vllm_supervisor_tests::fake_venv::FakeVenv;
use vllm_supervisor_tests::fake_vllm::FakeVllm;
use vllm_supervisor_tests::hangup::{block_terminate_and_ignore_child, heed_hangup, ignore_hangup};
use vllm_supervisor_tests::process_table::processes;
use vllm_supervisor_tests::sandbox::{give_up_low_ports, refuse_pidfds};
use vllm_supervisor_tests::scenario::free_port;

/// Longer than anything takes on a machine with much else to do.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The name of the model that everybody here serves.
pub(crate) const MODEL: &str = "org/tiny";

pub(crate) struct Workplace {
    plan: FakeVllm,
    pub(crate) census: Census,
    /// Free when it was looked for. Until vLLM takes it, somebody else on this machine might.
    pub(crate) port: u16,
    environment: Vec<(String, String)>,
    directory: TempDir,
}

impl Workplace {
    /// A place with a `vllm` on the PATH that follows the plan.
    pub(crate) fn new(plan: FakeVllm) -> Self {
        let place = Self::without_vllm(plan);
        symlink(env!("CARGO_BIN_EXE_fake_vllm"), place.path("bin/vllm")).unwrap();
        place
    }

    /// A place whose `vllm` on the PATH is this one's, which can be launched warm.
    pub(crate) fn with_venv(venv: &FakeVenv, plan: FakeVllm) -> Self {
        let place = Self::without_vllm(plan);
        symlink(venv.command(), place.path("bin/vllm")).unwrap();
        place
    }

    /// A place with an empty PATH.
    pub(crate) fn without_vllm(plan: FakeVllm) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("bin")).unwrap();
        let census = Census::of(format!("CLI_TEST={}", directory.path().display()));
        let port = free_port();
        let plan = plan.counts_launches_in(directory.path().join("launches"));
        Self { plan, census, port, environment: Vec::new(), directory }
    }

    /// Sets a variable for every `vllmd` to come.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// A path in this place.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// The usual state directory, which `vllmd` makes.
    pub(crate) fn state(&self) -> PathBuf {
        self.path(".local/state/vllmd")
    }

    /// Writes the section of the configuration file, at `vllmd.yaml`.
    pub(crate) fn configure(&self, section: &str) -> &Self {
        let section = section.replace('\n', "\n    ");
        let text = format!("providers:\n  vllm:\n    {section}\n");
        fs::write(self.path("vllmd.yaml"), text).unwrap();
        self
    }

    /// Writes a configuration that is complete but for what `lifecycle` says in flow style.
    pub(crate) fn configure_lifecycle(&self, lifecycle: &str) -> &Self {
        let port = self.port;
        self.configure(&format!("model: {MODEL}\nport: {port}\nlifecycle: {{{lifecycle}}}"))
    }

    /// How often vLLM was started here.
    pub(crate) fn launches(&self) -> usize {
        fs::read(self.path("launches")).map_or(0, |launches| launches.len())
    }

    /// Every path in this place.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        fn below(directory: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                found.push(entry.path());
                if entry.file_type().unwrap().is_dir() {
                    below(&entry.path(), found);
                }
            }
        }
        let mut found = Vec::new();
        below(self.directory.path(), &mut found);
        found.sort();
        found
    }

    /// Runs `vllmd` with these words to its end.
    pub(crate) async fn vllmd(&self, words: &[&str]) -> Finished {
        self.start(words).end().await
    }

    /// Starts `vllmd` with these words.
    pub(crate) fn start(&self, words: &[&str]) -> Started {
        Started::spawn(self.command(words))
    }

    /// The same, with its messages going somewhere else.
    pub(crate) fn start_onto(&self, words: &[&str], stderr: Stdio) -> Started {
        let mut command = self.command(words);
        command.stderr(stderr);
        Started::spawn(command)
    }

    /// The same, with SIGHUP ignored from the start.
    pub(crate) fn start_under_nohup(&self, words: &[&str]) -> Started {
        let mut command = self.command(words);
        ignore_hangup(command.as_std_mut());
        Started::spawn(command)
    }

    /// The same, by a parent that blocks SIGTERM and ignores SIGCHLD.
    pub(crate) fn start_by_a_careless_parent(&self, words: &[&str]) -> Started {
        let mut command = self.command(words);
        block_terminate_and_ignore_child(command.as_std_mut());
        Started::spawn(command)
    }

    /// The same, where no process can be held by a descriptor.
    pub(crate) fn start_without_pidfds(&self, words: &[&str]) -> Started {
        let mut command = self.command(words);
        refuse_pidfds(command.as_std_mut());
        Started::spawn(command)
    }

    /// The same, by a user who may not listen at the low ports.
    pub(crate) fn start_without_low_ports(&self, words: &[&str]) -> Started {
        let mut command = self.command(words);
        give_up_low_ports(command.as_std_mut());
        Started::spawn(command)
    }

    fn command(&self, words: &[&str]) -> Command {
        #[expect(clippy::disallowed_methods, reason = "the command is what is tested")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_vllmd_under_test"));
        let (name, plan) = self.plan.environment();
        command
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.directory.path())
            .env("TMPDIR", self.directory.path())
            .env(name, plan)
            .env(self.census.variable().0, self.census.variable().1)
            .envs(self.environment.iter().cloned())
            .current_dir(self.directory.path())
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        heed_hangup(command.as_std_mut());
        command
    }

    /// vLLM as somebody else would start it here.
    pub(crate) fn serve(&self) -> Command {
        #[expect(clippy::disallowed_methods, reason = "a service manager is stood in for")]
        let mut command = Command::new(self.path("bin/vllm"));
        let (name, plan) = self.plan.environment();
        command
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("TMPDIR", self.directory.path())
            .env("SPT_NOENV", "1")
            .env(name, plan)
            .env(self.census.variable().0, self.census.variable().1)
            .args(["serve", MODEL, "--port", &self.port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Ends what a killed vLLM has left, as the manager of its control group would.
    pub(crate) async fn end_engines(&self) {
        until("its engines are gone", || {
            let mut living = self.census.processes();
            living.retain(|it| it.title.starts_with("VLLM::"));
            for engine in &living {
                // It may have ended just now.
                kill_process(engine.pid, Signal::KILL).ok();
            }
            living.is_empty()
        })
        .await;
    }

    /// Whether this process of the place is alive.
    pub(crate) fn is_alive(&self, pid: u32) -> bool {
        let is_it = |pid_of: Pid| u32::try_from(pid_of.as_raw_pid()) == Ok(pid);
        self.census.processes().iter().any(|it| is_it(it.pid) && it.state != 'Z')
    }

    /// Waits until nothing of this place runs any more.
    pub(crate) async fn nothing_runs(&self) {
        self.census.wait_until_empty(DEADLINE).await.unwrap();
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        self.census.kill_all();
    }
}

/// A `vllmd` that may still run.
pub(crate) struct Started {
    child: Child,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    seen: Vec<String>,
}

impl Started {
    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Self { child, stdout, seen: Vec::new() }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// The next line of stdout; `None` at its end.
    async fn next_line(&mut self) -> Option<String> {
        let line = timeout(DEADLINE, self.stdout.as_mut()?.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("silent, with {}", self.situation())).unwrap()?;
        self.seen.push(line.clone());
        Some(line)
    }

    /// What it said last, and who lives that it has started.
    fn situation(&self) -> String {
        let last = &self.seen[self.seen.len().saturating_sub(20)..];
        let mut family = vec![self.pid()];
        let all = processes();
        for process in &all {
            if process.parent.is_some_and(|parent| family.contains(&parent)) {
                family.push(process.pid);
            }
        }
        let living = all.iter().filter(|process| family.contains(&process.pid));
        format!("{:#?} alive, after {last:#?}", living.collect::<Vec<_>>())
    }

    /// Reads stdout up to a line that has `part` in it.
    pub(crate) async fn says(&mut self, part: &str) -> String {
        while let Some(line) = self.next_line().await {
            if line.contains(part) {
                return line;
            }
        }
        panic!("never said `{part}` but {:#?}", self.seen)
    }

    /// Reads events up to one that enters `state`; returns all of them.
    pub(crate) async fn enters(&mut self, state: &str) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(line) = self.next_line().await {
            let event: Value = serde_json::from_str(&line).unwrap();
            let is_wanted = event["to"] == state;
            events.push(event);
            if is_wanted {
                return events;
            }
        }
        panic!("never entered {state}: {events:#?}")
    }

    /// Closes the reading end of its stdout.
    pub(crate) fn stop_reading(&mut self) {
        self.stdout = None;
    }

    /// Reads what comes until it ends.
    pub(crate) async fn end(mut self) -> Finished {
        while self.next_line().await.is_some() {}
        let output = timeout(DEADLINE, self.child.wait_with_output()).await;
        let output = output.expect("vllmd ends in time").unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        Finished { code: output.status.code(), stdout: self.seen.join("\n"), stderr }
    }
}

/// A `vllmd` that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// `None` when a signal killed it.
    pub(crate) code: Option<i32>,
    /// Without the last line's end.
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Its stderr has each of these parts.
    pub(crate) fn complains_of(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.stderr.contains(part), "no `{part}` in {self:#?}");
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }
}

/// Waits until `holds` says so, or panics with `what` did not come true.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    let seen = async {
        while !holds() {
            looks.tick().await;
        }
    };
    assert!(timeout(DEADLINE, seen).await.is_ok(), "never came true: {what}");
}
