//! A model that is asked for at the Hub before vLLM is started.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;
use vllm_supervisor_tests::fake_venv::FakeVenv;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::hub::{Asked, Hub};

use super::workplace::{Finished, Workplace};

/// What the Hub refuses for good, and what that is told to be.
const REFUSED: [(&str, &str); 4] = [
    ("missing/model", "VLM-002"),
    ("revised/model", "VLM-002"),
    ("private/model", "VLM-003"),
    ("gated/model", "VLM-011"),
];

/// What it may give another time, and how sure it is called.
const LET_PASS: [(&str, &str); 3] =
    [("limited/model", "warning"), ("broken/model", "warning"), ("silent/model", "unknown")];

const CHECK: [&str; 6] = ["check", "--config", "vllmd.yaml", "--output", "json", "--model"];
const RUN: [&str; 4] = ["run", "--config", "vllmd.yaml", "--model"];

fn venv() -> FakeVenv {
    FakeVenv::of(env!("CARGO_BIN_EXE_fake_vllm")).laid_out_as_vllm()
}

fn place(venv: &FakeVenv, endpoint: &str) -> Workplace {
    let mut place = Workplace::with_venv(venv, fake_vllm());
    place.set("HF_ENDPOINT", endpoint);
    place.configure_lifecycle("stop_on_exit: true, launch: cold");
    place
}

async fn asked_of(place: &Workplace, words: &[&str], model: &str) -> Finished {
    place.vllmd(&[words, &[model]].concat()).await
}

/// What the check tells of the Hub.
fn of_hub(finished: &Finished) -> Option<Value> {
    let report = finished.json();
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["name"] == "hub").cloned()
}

#[tokio::test]
async fn a_model_that_the_hub_refuses_is_refused_beforehand() {
    let (venv, hub) = (venv(), Hub::open().await);
    let place = place(&venv, &hub.endpoint);
    for (model, code) in REFUSED {
        let checked = asked_of(&place, &CHECK, model).await;
        assert_eq!(checked.code, Some(2), "{checked:#?}");
        let hub_said = of_hub(&checked).expect("it was asked");
        assert_eq!(hub_said["error"]["code"], code, "{model}: {hub_said}");
        let page = format!("{}/{model}", hub.endpoint);
        let remedy = hub_said["error"]["remedy"].as_str().expect("a remedy");
        assert!(remedy.contains(&page), "{model}: {remedy}");
        let run = asked_of(&place, &RUN, model).await;
        assert_eq!(run.code, Some(3), "{model}: {run:#?}");
        run.complains_of(&[&format!("error[{code}]"), model]);
        place.nothing_runs().await;
    }
    assert_eq!(place.launches(), 0, "vLLM was started");
    let is_head = |asked: &Asked| asked.method == "HEAD" && asked.credentials.is_none();
    assert!(hub.asked().iter().all(is_head), "{:#?}", hub.asked());
    assert_eq!(hub.asked().len(), 2 * REFUSED.len(), "{:#?}", hub.asked());
}

#[tokio::test]
async fn a_hub_that_is_not_at_its_best_keeps_nothing_from_starting() {
    let (venv, hub) = (venv(), Hub::open().await);
    let place = place(&venv, &hub.endpoint);
    for (launched, (model, status)) in LET_PASS.into_iter().enumerate() {
        let checked = asked_of(&place, &CHECK, model).await;
        assert_eq!(checked.code, Some(0), "{checked:#?}");
        let hub_said = of_hub(&checked).expect("it was asked");
        assert_eq!(hub_said["status"], status, "{model}: {hub_said}");
        let mut vllmd = place.start(&[&RUN[..], &[model]].concat());
        vllmd.says("running: ").await;
        vllmd.signal(Signal::TERM);
        assert_eq!(vllmd.end().await.code, Some(143));
        place.nothing_runs().await;
        assert_eq!(place.launches(), launched + 1);
    }
}

#[tokio::test]
async fn a_token_reaches_the_hub_and_nobody_that_it_sends_us_to() {
    const TOKEN: &str = "hf_tokenofthistest";
    let venv = venv();
    let elsewhere = Hub::open().await;
    let hub = Hub::sending_to(&elsewhere).await;
    let mut place = place(&venv, &hub.endpoint);
    place.set("HF_TOKEN", TOKEN);
    let checked = asked_of(&place, &CHECK, "moved/model").await;
    assert_eq!(checked.code, Some(0), "{checked:#?}");
    assert_eq!(of_hub(&checked).expect("it was asked")["status"], "ok");
    let refused = asked_of(&place, &RUN, "gated/model").await;
    assert_eq!(refused.code, Some(3), "{refused:#?}");
    place.nothing_runs().await;
    let bearer = format!("Bearer {TOKEN}");
    let has_it = |asked: &Asked| asked.credentials.as_deref() == Some(&bearer);
    assert!(hub.asked().iter().all(has_it), "{:#?}", hub.asked());
    assert_eq!(hub.asked().len(), 2, "{:#?}", hub.asked());
    assert_eq!(elsewhere.asked(), []);
    for text in [&checked.stdout, &checked.stderr, &refused.stdout, &refused.stderr] {
        assert!(!text.contains(TOKEN), "{text}");
    }
    for file in place.files().into_iter().filter(|it| it.is_file()) {
        let content = fs::read(&file).expect("a file");
        assert!(!String::from_utf8_lossy(&content).contains(TOKEN), "{}", file.display());
    }
}

#[tokio::test]
async fn nobody_is_asked_where_the_network_is_off_or_nobody_knows_what_is_started() {
    let (venv, hub) = (venv(), Hub::open().await);
    let mut offline = place(&venv, &hub.endpoint);
    offline.set("HF_HUB_OFFLINE", "1");
    let checked = asked_of(&offline, &CHECK, "missing/model").await;
    assert_eq!(of_hub(&checked), None, "{checked:#?}");
    checked.complains_of(&["VLM-009"]);
    let mut unknown = Workplace::new(fake_vllm());
    unknown.set("HF_ENDPOINT", &hub.endpoint);
    unknown.configure_lifecycle("");
    let checked = asked_of(&unknown, &CHECK, "missing/model").await;
    assert_eq!(of_hub(&checked), None, "{checked:#?}");
    assert_eq!(checked.code, Some(0), "{checked:#?}");
    assert_eq!(hub.asked(), []);
}
