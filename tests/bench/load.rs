//! A real vLLM that has more to do than it can, for as long as is wished: long prompts, and a queue that
//! never empties. Nobody is to take that for a hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use vllm_supervisor::{EventKind, Notice, ServiceState};
use vllm_supervisor_tests::open_request::OpenRequest;
use vllm_supervisor_tests::scenario::{Scenario, Server};

use crate::figure::{Figure, Unit};

/// Who asks at the same time; vLLM serves [`SERVED_AT_ONCE`] of them, and the others wait.
const CLIENTS: u64 = 32;
const SERVED_AT_ONCE: &str = "8";

/// The context of the small models, with room for what a prompt's words are not counted for.
const CONTEXT: u64 = 480;

const TOLD_EVERY: Duration = Duration::from_secs(300);

/// What became of the requests.
#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    hung_up: AtomicU64,
    refused: AtomicU64,
}

/// So much load, with the settings that everybody has.
///
/// # Panics
///
/// If something is left of vLLM in the end.
pub(crate) async fn figures(server: Server, lasting: Duration) -> Vec<Figure> {
    let scenario = Scenario::configure(server, |config| {
        let queued = ["--max-num-seqs", SERVED_AT_ONCE].map(str::to_owned);
        config.extra_args.extend(queued);
    })
    .await;
    scenario.start_service().await;
    let url = Arc::new(format!("{}/v1/completions", scenario.handle().base_url()));
    let model: Arc<str> = scenario.handle().watch().borrow().model.as_str().into();
    let tally = Arc::new(Tally::default());
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (url, model, tally) = (Arc::clone(&url), Arc::clone(&model), Arc::clone(&tally));
        clients.spawn(async move {
            for request in 0_u64.. {
                ask(&url, &model, request * CLIENTS + client, &tally).await;
            }
        });
    }
    let began = Instant::now();
    while began.elapsed() < lasting {
        sleep_until((Instant::now() + TOLD_EVERY).min(began + lasting)).await;
        let answered = tally.answered.load(Ordering::Relaxed);
        eprintln!("{:?}: {answered} answered, {:?}", began.elapsed(), alarms(&scenario.notices()));
    }
    clients.shutdown().await;
    let notices = scenario.notices();
    let alarms = alarms(&notices);
    // It panics if anything is left.
    scenario.end().await;
    let count = |what: &str, count: u64| {
        Figure::of(what, Unit::Count, vec![f64::from(u32::try_from(count).unwrap_or(u32::MAX))])
    };
    let of = |it: &AtomicU64| it.load(Ordering::Relaxed);
    vec![
        count("requests answered", of(&tally.answered)).noting(format!("in {lasting:?}")),
        count("requests hung up on", of(&tally.hung_up)),
        count("requests that failed", of(&tally.refused)),
        count("false alarms: crashes", alarms.crashes),
        count("false alarms: health checks that failed", alarms.failed_checks),
    ]
}

/// What must not be there: nothing is wrong.
#[derive(Debug, Default)]
struct Alarms {
    crashes: u64,
    failed_checks: u64,
}

fn alarms(notices: &[Notice]) -> Alarms {
    let mut alarms = Alarms::default();
    for notice in notices {
        let Notice::Event(event) = notice else { continue };
        match event.kind {
            EventKind::StateChanged { to: ServiceState::Crashed, .. } => alarms.crashes += 1,
            EventKind::HealthChanged { healthy: false, .. } => alarms.failed_checks += 1,
            _ => {}
        }
    }
    alarms
}

/// One request: a prompt of another length than the last, as many tokens as the context has left or
/// few, and one of eight is hung up on amid its answer.
async fn ask(url: &str, model: &str, number: u64, tally: &Tally) {
    match OpenRequest::send(url, &body(model, number)).await {
        Ok(begun) if number.is_multiple_of(8) => {
            drop(begun);
            tally.hung_up.fetch_add(1, Ordering::Relaxed);
        }
        Ok(begun) => match begun.text().await {
            Ok(_) => drop(tally.answered.fetch_add(1, Ordering::Relaxed)),
            Err(error) => refused(&error, tally),
        },
        Err(error) => refused(&error, tally),
    }
}

fn refused(error: &str, tally: &Tally) {
    if tally.refused.fetch_add(1, Ordering::Relaxed) == 0 {
        eprintln!("the first request that failed: {error}");
    }
}

fn body(model: &str, number: u64) -> Value {
    // Token ids of the smallest vocabulary, another sequence each time: nothing is found in a cache.
    let length = 8 + number * 97 % (CONTEXT - 16);
    let prompt: Vec<u64> = (0..length).map(|at| 10 + (at * at + number * 31) % 200).collect();
    let most = CONTEXT - length;
    json!({
        "model": model,
        "prompt": prompt,
        "max_tokens": if number.is_multiple_of(3) { most } else { 1 + most / 8 },
        "ignore_eos": true,
        "stream": true,
    })
}
