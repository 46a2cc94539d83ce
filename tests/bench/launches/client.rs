//! Who asks vLLM until it answers.

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Outcome, PATIENCE};

/// From one question after health to the next.
const HEALTH_PAUSE: Duration = Duration::from_millis(10);
/// From one request for a completion to the next.
const REQUEST_PAUSE: Duration = Duration::from_millis(20);

/// Asks the vLLM at one port, by a new connection each time.
pub(super) struct Client {
    http: reqwest::Client,
    base_url: String,
}

impl Client {
    pub(super) fn new(port: u16) -> Outcome<Self> {
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
        Ok(Self { http, base_url: format!("http://127.0.0.1:{port}") })
    }

    /// Until `/health` answers 200.
    pub(super) async fn is_healthy(&self) -> Outcome<()> {
        let request = self.http.get(format!("{}/health", self.base_url));
        is_answered(request, HEALTH_PAUSE).await
    }

    /// Until this model has made eight tokens of a fixed prompt.
    pub(super) async fn completes(&self, model: &str) -> Outcome<()> {
        let body = json!({
            "model": model,
            "prompt": "Once upon a time",
            "max_tokens": 8,
            "ignore_eos": true,
            "temperature": 0.0,
        });
        let request = self.http.post(format!("{}/v1/completions", self.base_url)).json(&body);
        is_answered(request, REQUEST_PAUSE).await
    }
}

/// Until a request is answered with success, and as a whole.
async fn is_answered(request: RequestBuilder, pause: Duration) -> Outcome<()> {
    let mut questions = interval(pause);
    questions.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let answered = async {
        loop {
            questions.tick().await;
            let again = request.try_clone().ok_or("a request that can be made once only")?;
            let Ok(answer) = again.send().await else { continue };
            if answer.status().is_success() && answer.bytes().await.is_ok() {
                return Ok(());
            }
        }
    };
    let waited = timeout(PATIENCE, answered).await;
    waited.map_err(|_| format!("no answer within {PATIENCE:?}"))?
}
