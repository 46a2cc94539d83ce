//! The program around an embedded supervisor: takes orders on stdin, and says on stdout what
//! happens and how each order was answered.
//!
//! An order is a line, `7 start`: a number of the caller's choice, and what is asked for. Each is
//! carried out by a task of its own, so that orders cross. It ends at SIGTERM and when stdin ends.

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tracing::Level;
use vllm_supervisor::config::{Overrides, Resolved, Sources};
use vllm_supervisor::{CommandError, EventStream, StopMode, Supervisor, SupervisorHandle, wire};

use super::place::MODELS;

/// The whole program; its words are a configuration file and a state directory.
pub fn run() -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let served = runtime.block_on(serve());
    // A read of stdin cannot be called off.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(std::io::stderr(), "embedder: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(Level::WARN).init();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut words = std::env::args_os().skip(1).map(PathBuf::from);
    let (file, state_dir) = (words.next(), words.next());
    let mut overrides = Overrides::default();
    overrides.state_dir = state_dir;
    let config = Resolved::load(&Sources::from_process(overrides, file))?.config;
    let handle = Supervisor::builder().config(config).spawn().await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(tell_events(handle.subscribe()));
    tasks.spawn(start(handle.clone()));
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            line = orders.next_line() => {
                let Some(line) = line? else { break };
                tasks.spawn(obey(handle.clone(), line));
            }
        }
    }
    handle.shutdown().await;
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// As `vllmd run` does.
async fn start(handle: SupervisorHandle) {
    // What comes of it is told by the events.
    handle.start().await.ok();
}

async fn tell_events(mut events: EventStream) {
    while let Some(notice) = events.next().await {
        say(&wire::notice(&notice));
    }
}

async fn obey(handle: SupervisorHandle, line: String) {
    let (ticket, word) = line.split_once(' ').unwrap_or((&line, ""));
    let outcome = match carry_out(&handle, word).await {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.to_string(),
    };
    let ticket: Option<u64> = ticket.parse().ok();
    say(&json!({"type": "answer", "ticket": ticket, "order": word, "outcome": outcome}));
}

async fn carry_out(handle: &SupervisorHandle, word: &str) -> Result<(), CommandError> {
    let [configured, other] = MODELS;
    match word {
        "start" => handle.start().await,
        "stop" => handle.stop().await,
        "stop-now" => handle.stop_by(StopMode::Immediate).await,
        "restart" => handle.restart().await,
        "ensure" => handle.ensure_healthy(None).await,
        "ensure-other" => handle.ensure_healthy(Some(other)).await,
        "load" => handle.load_model(configured).await,
        "load-other" => handle.load_model(other).await,
        _ => handle.status().await.map(drop),
    }
}

fn say(value: &serde_json::Value) {
    let mut stdout = std::io::stdout().lock();
    // Whoever read it is gone.
    writeln!(stdout, "{value}").and_then(|()| stdout.flush()).ok();
}
