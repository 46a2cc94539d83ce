//! What a program sees that embeds a supervisor.

use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::Instant;
use vllm_supervisor::ServiceState;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::scenario::{Scenario, Server, Victim, enters};

use crate::Plan;
use crate::figure::{Figure, Unit};

const SUBSCRIBERS: usize = 1000;
const QUESTIONS: usize = 10_000;

/// How old the victims are at least. A real one takes seconds to serve; births are looked for every
/// 100 ms meanwhile, and a process that nobody has seen yet is not missed.
const AGE: Duration = Duration::from_millis(250);

async fn scenario(plan: &Plan, loads_in: Duration) -> Scenario {
    let server = Server::fake(&plan.fake_vllm, &fake_vllm().loads_in(loads_in));
    Scenario::configure(server, |config| {
        config.lifecycle.max_restarts_per_minute = std::num::NonZeroU32::MAX;
        config.lifecycle.stable_after = Duration::ZERO;
    })
    .await
}

/// From `kill(2)` to the event in a subscriber of the same process; of processes that have served for
/// a quarter of a second.
pub(crate) async fn death_to_event(plan: &Plan) -> Vec<Figure> {
    let mut figures = Vec::new();
    for victim in [Victim::ApiServer, Victim::EngineCore, Victim::Worker] {
        let scenario = scenario(plan, Duration::ZERO).await;
        let mut times = Vec::new();
        for _ in 0..plan.deaths {
            scenario.start_service().await;
            let mut events = scenario.handle().subscribe();
            let pid = scenario.process(victim).pid;
            tokio::time::sleep_until(Instant::now() + AGE).await;
            let killed = Instant::now();
            kill_process(pid, Signal::KILL).ok();
            enters(&mut events, ServiceState::Crashed).await;
            times.push(killed.elapsed());
            // A start that is asked for does not wait for the backoff.
            scenario.handle().stop().await.ok();
        }
        scenario.end().await;
        figures.push(Figure::of_times(
            format!("SIGKILL of {victim:?} to its event"),
            Unit::Milliseconds,
            &times,
        ));
    }
    figures
}

/// From `kill(2)` until it serves again; the first two seconds are the backoff.
pub(crate) async fn death_to_served(plan: &Plan) -> Figure {
    let scenario = scenario(plan, Duration::ZERO).await;
    scenario.start_service().await;
    let mut times = Vec::new();
    for _ in 0..plan.few {
        let mut events = scenario.handle().subscribe();
        let pid = scenario.process(Victim::ApiServer).pid;
        let killed = Instant::now();
        kill_process(pid, Signal::KILL).ok();
        enters(&mut events, ServiceState::Running).await;
        times.push(killed.elapsed());
    }
    scenario.end().await;
    let figure =
        Figure::of_times("SIGKILL of ApiServer to served again", Unit::Milliseconds, &times);
    figure.noting("2 s of it are the backoff")
}

/// How long a stop takes, in each phase.
pub(crate) async fn stops(plan: &Plan) -> Vec<Figure> {
    let loading = scenario(plan, Duration::from_secs(2)).await;
    let mut figures = Vec::new();
    for phase in ["importing", "loading"] {
        let mut times = Vec::new();
        for _ in 0..plan.few {
            let handle = loading.handle();
            let stopped = async {
                loading
                    .wait_until(|now| match phase {
                        "importing" => now.pid.is_some(),
                        _ => now.progress.is_some(),
                    })
                    .await;
                let asked = Instant::now();
                handle.stop().await.ok();
                asked.elapsed()
            };
            let (_, time) = tokio::join!(handle.start(), stopped);
            times.push(time);
        }
        figures.push(stop(phase, &times));
    }
    loading.end().await;
    let serving = scenario(plan, Duration::ZERO).await;
    for (phase, clients) in [("serving, idle", 0), ("serving, busy", 8)] {
        let mut times = Vec::new();
        for _ in 0..plan.few {
            serving.start_service().await;
            let clients = busy_clients(clients, serving.handle().base_url());
            let asked = Instant::now();
            serving.handle().stop().await.ok();
            times.push(asked.elapsed());
            drop(clients);
        }
        figures.push(stop(phase, &times));
    }
    serving.end().await;
    figures
}

fn stop(phase: &str, times: &[Duration]) -> Figure {
    Figure::of_times(format!("stop while {phase}"), Unit::Milliseconds, times)
}

/// Clients that ask one thing after another until this is dropped.
fn busy_clients(count: usize, base_url: &str) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let url = format!("{base_url}/v1/completions");
        clients.spawn(async move {
            let body = serde_json::json!({"prompt": "Once", "max_tokens": 64});
            let Ok(client) = reqwest::Client::builder().no_proxy().build() else { return };
            // Until nobody answers any more.
            while client.post(&url).json(&body).send().await.is_ok() {}
        });
    }
    clients
}

/// `ensure_healthy` of what runs.
pub(crate) async fn questions(plan: &Plan) -> Figure {
    let scenario = scenario(plan, Duration::ZERO).await;
    scenario.start_service().await;
    let mut times = Vec::with_capacity(QUESTIONS);
    for _ in 0..QUESTIONS {
        let asked = Instant::now();
        scenario.handle().ensure_healthy(None).await.ok();
        times.push(asked.elapsed());
    }
    scenario.end().await;
    Figure::of_times("`ensure_healthy` while running", Unit::Microseconds, &times)
}

/// From the first subscriber who has an event to the last of a thousand.
pub(crate) async fn fan_out(plan: &Plan) -> Figure {
    let scenario = scenario(plan, Duration::ZERO).await;
    let mut times = Vec::new();
    for _ in 0..plan.few {
        scenario.start_service().await;
        let ready = std::sync::Arc::new(Barrier::new(SUBSCRIBERS + 1));
        let mut subscribers = JoinSet::new();
        for _ in 0..SUBSCRIBERS {
            let mut events = scenario.handle().subscribe();
            let ready = std::sync::Arc::clone(&ready);
            subscribers.spawn(async move {
                ready.wait().await;
                enters(&mut events, ServiceState::Stopped).await;
                Instant::now()
            });
        }
        ready.wait().await;
        scenario.handle().stop().await.ok();
        let arrivals = subscribers.join_all().await;
        if let (Some(first), Some(last)) = (arrivals.iter().min(), arrivals.iter().max()) {
            times.push(*last - *first);
        }
    }
    scenario.end().await;
    let figure = Figure::of_times("an event to 1,000 subscribers", Unit::Milliseconds, &times);
    figure.noting("from the first to the last of them")
}
