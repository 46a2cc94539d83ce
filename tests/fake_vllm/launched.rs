//! One launched stand-in, and the certainty that nothing of it survives the test.

#![expect(clippy::unwrap_used, reason = "clippy takes only the tests themselves for tests")]

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use vllm_supervisor_tests::census::Census;
use vllm_supervisor_tests::fake_vllm::FakeVllm;
use vllm_supervisor_tests::process_table::{Process, descendants};
pub(crate) use vllm_supervisor_tests::scenario::free_port;

/// Longer than anything takes on a machine with much else to do.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Launched {
    child: Child,
    pub(crate) census: Census,
    pub(crate) port: u16,
    directory: TempDir,
}

impl Launched {
    /// Launches on a free port, in this test's session, with its environment in sight.
    pub(crate) fn new(plan: &FakeVllm) -> Self {
        Self::with_flags(plan, free_port(), &[])
    }

    /// The same and waits until `/health` is 200.
    pub(crate) async fn serving(plan: &FakeVllm) -> Self {
        let launched = Self::new(plan);
        launched.wait_until_healthy().await;
        launched
    }

    pub(crate) fn with_flags(plan: &FakeVllm, port: u16, flags: &[&str]) -> Self {
        Self::launch(plan, port, |command| {
            command.env("SPT_NOENV", "1").args(flags);
        })
    }

    pub(crate) fn launch(plan: &FakeVllm, port: u16, change: impl FnOnce(&mut Command)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().file_name().unwrap().to_str().unwrap();
        let census = Census::of(format!("FAKE_VLLM_CONTRACT={path}"));
        let (name, value) = plan.environment();
        #[expect(clippy::disallowed_methods, reason = "the stand-in is tested without a launcher")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_fake_vllm"));
        command.args(["serve", "/models/tiny", "--served-model-name", "tiny"]);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.env_remove("SPT_NOENV").env_remove("VLLM_API_KEY");
        command.env(census.variable().0, census.variable().1).env(name, value);
        command.stdin(Stdio::null());
        command.stdout(File::create(directory.path().join("stdout")).unwrap());
        command.stderr(File::create(directory.path().join("stderr")).unwrap());
        change(&mut command);
        let child = command.spawn().unwrap();
        Self { child, census, port, directory }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// The helper with this title.
    pub(crate) fn helper(&self, title: &str) -> Process {
        let tree = descendants(self.pid());
        tree.iter().find(|it| it.title == title).unwrap_or_else(|| panic!("{tree:#?}")).clone()
    }

    pub(crate) fn signal_helper(&self, title: &str, signal: Signal) {
        kill_process(self.helper(title).pid, signal).unwrap();
    }

    /// How the API server ended.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let mut status = None;
        until("the API server exits", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        self.exit().await.code()
    }

    pub(crate) async fn exit_signal(&mut self) -> Option<i32> {
        self.exit().await.signal()
    }

    pub(crate) async fn nothing_is_left(&self) {
        self.census.wait_until_empty(DEADLINE).await.unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        client().get(format!("http://127.0.0.1:{}{path}", self.port))
    }

    pub(crate) fn completion(&self, tokens: u32) -> RequestBuilder {
        let url = format!("http://127.0.0.1:{}/v1/completions", self.port);
        client().post(url).json(&json!({"model": "tiny", "prompt": "Once", "max_tokens": tokens}))
    }

    pub(crate) async fn complete(&self, tokens: u32) -> Value {
        self.completion(tokens).send().await.unwrap().json().await.unwrap()
    }

    /// The status of `/health`, or `None` when nobody listens.
    pub(crate) async fn health(&self) -> Option<StatusCode> {
        Some(self.get("/health").send().await.ok()?.status())
    }

    pub(crate) async fn wait_until_healthy(&self) {
        until("/health is 200", async || self.health().await == Some(StatusCode::OK)).await;
    }

    /// What was said on `stdout` or `stderr` so far.
    pub(crate) fn said_on(&self, stream: &str) -> String {
        let mut text = Vec::new();
        File::open(self.directory.path().join(stream)).unwrap().read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(crate) async fn wait_for_line(&self, stream: &str, part: &str) {
        until(part, async || self.said_on(stream).contains(part)).await;
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.census.kill_all();
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits until `holds` says so, or panics with `what` did not come true.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    let seen = async {
        while !holds().await {
            looks.tick().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, seen).await.is_ok(), "never came true: {what}");
}

/// One connection a request, past any proxy, and no longer than a request may hang.
fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
    client.timeout(DEADLINE).build().unwrap()
}
