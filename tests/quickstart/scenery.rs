//! What the quick start needs around the supervisor: a vLLM, a model, a client, a killer, and a
//! look at what is left.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;
use vllm_supervisor_tests::census::Census;
use vllm_supervisor_tests::process_table::descendants;
use vllm_supervisor_tests::real_vllm::RealVllm;
use vllm_supervisor_tests::scenario::free_port;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// See the module.
pub(crate) struct Scenery {
    vllm: RealVllm,
    state: TempDir,
    port: u16,
    census: Census,
}

impl Scenery {
    /// Finds a vLLM or installs one, and makes a tiny model.
    pub(crate) fn set() -> Outcome<Self> {
        let vllm = match vllm_named_or_on_the_path()? {
            Some(command) => RealVllm::with_models(command),
            None => RealVllm::install(),
        }
        .map_err(|unavailable| unavailable.0)?;
        println!("vLLM:  {}", vllm.command.display());
        println!("model: {}\n", vllm.tiny_model.display());
        let state = tempfile::tempdir()?;
        let census = Census::of(format!("QUICKSTART={}", state.path().display()));
        Ok(Self { vllm, state, port: free_port(), census })
    }

    pub(crate) fn vllm(&self) -> String {
        self.vllm.command.display().to_string()
    }

    pub(crate) fn model(&self) -> String {
        self.vllm.tiny_model.display().to_string()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.vllm.cache.clone()
    }

    /// A variable that everything vLLM starts will carry, so that it can be counted in the end.
    pub(crate) fn marker(&self) -> (&str, &str) {
        self.census.variable()
    }

    /// Asks for a completion and prints it. The model's weights are random, and so are its words;
    /// they are kept to small letters, which are tokens of their own.
    pub(crate) async fn complete(&self, base_url: &str) -> Outcome<()> {
        let body = serde_json::json!({
            "model": self.model(),
            "prompt": "Once upon a time",
            "max_tokens": 8,
            "temperature": 0.0,
            "allowed_token_ids": (b'a'..=b'z').collect::<Vec<_>>(),
        });
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("{base_url}/v1/completions");
        let answer = client.post(url).json(&body).send().await?.error_for_status()?;
        let answer: serde_json::Value = answer.json().await?;
        println!("completion: {}", answer["choices"][0]["text"]);
        Ok(())
    }

    /// Fails if anything that vLLM started is alive.
    pub(crate) async fn nothing_is_left(&self) -> Outcome<()> {
        let left = self.census.wait_until_empty(Duration::from_secs(1)).await;
        left.map_err(|left| format!("still alive: {left:#?}").into())
    }
}

/// `--vllm PATH`, or the first `vllm` on the PATH.
fn vllm_named_or_on_the_path() -> Outcome<Option<PathBuf>> {
    let mut words = env::args().skip(1);
    match (words.next().as_deref(), words.next()) {
        (None, _) => {}
        (Some("--vllm"), Some(path)) if words.next().is_none() => return Ok(Some(path.into())),
        _ => return Err("usage: cargo quickstart [--vllm PATH]".into()),
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).map(|directory| directory.join("vllm"));
    Ok(places.find(|place| place.is_file()))
}

/// Kills the process that holds the model with SIGKILL: a worker, or the engine where there
/// is none.
pub(crate) fn kill_the_worker(main: Option<u32>) -> Outcome<Instant> {
    let main = main.and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or("no main process")?;
    let family = descendants(main);
    let titled = |title: &str| family.iter().find(|it| it.title.starts_with(title));
    let victim = titled("VLLM::Worker").or_else(|| titled("VLLM::EngineCore"));
    let victim = victim.ok_or("no engine among vLLM's processes")?;
    println!("\nkill -9 {} ({})\n", victim.pid.as_raw_pid(), victim.title);
    kill_process(victim.pid, Signal::KILL)?;
    Ok(Instant::now())
}
