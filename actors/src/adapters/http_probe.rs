//! Asks vLLM over HTTP how it is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::domain::health::{Check, HealthFailure, Healthy, InHand};
use crate::domain::listener::Listener;
use crate::domain::liveness::{Pulse, Rest, TOKEN_WITHIN, Trial};
use crate::domain::secret::Secret;
use crate::ports::{Listeners, Pending, Probe};

mod counters;

use counters::Counters;

/// The longest that both questions together may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The most that an answer may hold. A list of models has a few hundred bytes a model, and the
/// metrics have some hundred thousand an engine.
const MAX_BODY: usize = 4 << 20;

/// The longest that one reading of vLLM's counters may take.
const COUNTERS_LIMIT: Duration = Duration::from_secs(1);

/// The longest that the completion of the fixed prompt may take: the first request of all warms up.
const COMPLETION_LIMIT: Duration = Duration::from_secs(60);

/// The fixed prompt, and how many tokens of it are asked for: enough that wrong weights or a wrong
/// cache show, and next to nothing beside a load.
const PROMPT: (&str, u32) = ("The first ten numbers are: one, two,", 8);

/// Until when an answer counts, looking for whom to ask included.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }
}

/// Who would answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    /// Somebody who may be asked.
    Ours,
    /// Nobody listens.
    Nobody,
}

/// See the module.
#[derive(Clone)]
pub struct HttpProbe {
    client: Client,
    base_url: String,
    api_key: Option<Secret>,
    listeners: Option<Arc<dyn Listeners>>,
}

// The key is a secret.
impl fmt::Debug for HttpProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpProbe").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

/// No client could be made.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client can be made")]
pub struct HttpProbeError(#[from] reqwest::Error);

impl HttpProbe {
    /// A probe of the server at `base_url` (`http://127.0.0.1:8000`).
    ///
    /// # Errors
    ///
    /// When no HTTP client can be made.
    pub fn new(
        base_url: impl Into<String>,
        api_key: Option<Secret>,
    ) -> Result<Self, HttpProbeError> {
        let client = Client::builder()
            // HTTP_PROXY is for the world, and vLLM is here.
            .no_proxy()
            // vLLM answers itself; what sends us elsewhere is not vLLM, and elsewhere gets no key.
            .redirect(Policy::none())
            // A hung server keeps its connections; a fresh one tells the truth.
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self { client, base_url: base_url.into(), api_key, listeners: None })
    }

    /// The same, asking nobody but a process of the launch.
    #[must_use]
    pub fn asking_only_members(self, listeners: Arc<dyn Listeners>) -> Self {
        Self { listeners: Some(listeners), ..self }
    }

    /// Whether the one who would answer may be asked.
    async fn whom(&self, url: &str, deadline: Deadline) -> Result<Whom, HealthFailure> {
        let Some(listeners) = &self.listeners else { return Ok(Whom::Ours) };
        let url = url.to_owned();
        match timeout_at(deadline.at, listeners.look()).await {
            Ok(Listener::Member) => Ok(Whom::Ours),
            Ok(Listener::Nobody) => Ok(Whom::Nobody),
            Ok(Listener::Stranger(holder)) => Err(HealthFailure::PortTaken { url, holder }),
            Ok(Listener::Unknown(reason)) => Err(HealthFailure::ListenerUnknown { url, reason }),
            // That is not vLLM's doing.
            Err(_) => {
                let reason = format!("it was not found out within {:?}", deadline.limit);
                Err(HealthFailure::ListenerUnknown { url, reason })
            }
        }
    }

    async fn ask(self, wanted: String) -> Check {
        let began = Instant::now();
        let deadline = Deadline::after(LIMIT);
        let health = format!("{}/health", self.base_url);
        match self.whom(&health, deadline).await? {
            Whom::Ours => {}
            Whom::Nobody => {
                let reason = "nobody listens".to_owned();
                return Err(HealthFailure::Unreachable { url: health, reason });
            }
        }
        self.answer(&health, self.client.get(&health), deadline).await?;
        let models = format!("{}/v1/models", self.base_url);
        let mut request = self.client.get(&models);
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key.expose());
        }
        let body = self.answer(&models, request, deadline).await?;
        let listed = model_names(&body).ok_or(HealthFailure::NotVllm { url: models })?;
        if !listed.contains(&wanted) {
            return Err(HealthFailure::ModelMissing { wanted, listed });
        }
        Ok(Healthy { latency: began.elapsed(), models: listed })
    }

    async fn completion(&self, name: &str) -> Result<Option<String>, HealthFailure> {
        let (url, deadline) =
            (format!("{}/v1/completions", self.base_url), Deadline::after(COMPLETION_LIMIT));
        if self.whom(&url, deadline).await? == Whom::Nobody {
            return Ok(None);
        }
        let request = self.completion_of(&url, name, PROMPT.0, PROMPT.1);
        let body = self.answer(&url, request, deadline).await?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok(answer["choices"][0]["text"].as_str().map(str::to_owned))
    }

    /// What it counts; `None` if it does not, or does not serve.
    async fn counters(&self) -> Result<Option<Counters>, HealthFailure> {
        let (url, deadline) =
            (format!("{}/metrics", self.base_url), Deadline::after(COUNTERS_LIMIT));
        if self.whom(&url, deadline).await? == Whom::Nobody {
            return Ok(None);
        }
        let metrics = match self.answer(&url, self.client.get(&url), deadline).await {
            Err(HealthFailure::Refused { status: 404, .. }) => return Ok(None),
            answer => answer?,
        };
        Ok(Counters::read(&String::from_utf8_lossy(&metrics)))
    }

    async fn clients(&self) -> Option<u64> {
        match &self.listeners {
            Some(listeners) => listeners.clients().await,
            None => None,
        }
    }

    async fn token(&self, name: &str) -> Trial {
        let (url, deadline) =
            (format!("{}/v1/completions", self.base_url), Deadline::after(TOKEN_WITHIN));
        if !matches!(self.whom(&url, deadline).await, Ok(Whom::Ours)) {
            return Trial::Unknown;
        }
        if self.rests().await {
            return Trial::Resting;
        }
        let request = self.completion_of(&url, name, "1", 1);
        match self.answer(&url, request, deadline).await {
            Ok(_) => Trial::Made,
            Err(HealthFailure::TimedOut { .. }) => Trial::None,
            Err(HealthFailure::Refused { status: 400 | 404 | 405 | 422, .. }) => Trial::Unfit,
            // Too much to do, or for a reason that the checks of health see too.
            Err(_) => Trial::Unknown,
        }
    }

    /// Whether it was put to sleep or paused, where it can be asked (`VLLM_SERVER_DEV_MODE`).
    async fn rests(&self) -> bool {
        for question in ["is_sleeping", "is_paused"] {
            let (url, deadline) =
                (format!("{}/{question}", self.base_url), Deadline::after(COUNTERS_LIMIT));
            let answer = self.answer(&url, self.client.get(&url), deadline).await;
            let answer: Value =
                serde_json::from_slice(&answer.unwrap_or_default()).unwrap_or_default();
            if answer[question] == true {
                return true;
            }
        }
        false
    }

    fn completion_of(&self, url: &str, name: &str, prompt: &str, tokens: u32) -> RequestBuilder {
        let request = self.client.post(url).json(&json!({
            "model": name, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "seed": 0,
        }));
        match &self.api_key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        }
    }

    async fn answer(
        &self,
        url: &str,
        request: RequestBuilder,
        deadline: Deadline,
    ) -> Result<Vec<u8>, HealthFailure> {
        let unreachable = |error: reqwest::Error| HealthFailure::Unreachable {
            url: url.to_owned(),
            reason: innermost(&error),
        };
        let exchange = async {
            let response = request.send().await.map_err(unreachable)?;
            let (url, status) = (url.to_owned(), response.status().as_u16());
            match response.status() {
                StatusCode::OK => bounded(response).await.map_err(unreachable)?.ok_or(
                    // Whatever answers without end is not vLLM.
                    HealthFailure::NotVllm { url },
                ),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    Err(HealthFailure::Unauthorised { url, status })
                }
                _ => Err(HealthFailure::Refused { url, status }),
            }
        };
        match timeout_at(deadline.at, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(HealthFailure::TimedOut { url: url.to_owned(), limit: deadline.limit }),
        }
    }
}

impl Probe for HttpProbe {
    fn check(&self, name: &str) -> Pending<'static, Check> {
        Box::pin(self.clone().ask(name.to_owned()))
    }

    fn complete(&self, name: &str) -> Pending<'static, Option<String>> {
        let (probe, name) = (self.clone(), name.to_owned());
        Box::pin(async move {
            let completed = probe.completion(&name).await;
            completed
                .inspect_err(|error| tracing::debug!(%error, "no completion to compare"))
                .ok()?
        })
    }

    fn pulse(&self) -> Pending<'static, Option<Pulse>> {
        let probe = self.clone();
        Box::pin(async move {
            // Before we are one ourselves.
            let connections = probe.clients().await;
            if connections == Some(0) {
                // Nobody waits for anything, and the counters are dear.
                let (requests, mark, rest) = (0, 0, Rest::Awake);
                return Some(Pulse { requests, mark, rest, connections });
            }
            let Counters { requests, mark, rest } = probe.counters().await.ok()??;
            Some(Pulse { requests, mark, rest, connections })
        })
    }

    fn try_token(&self, name: &str) -> Pending<'static, Trial> {
        let (probe, name) = (self.clone(), name.to_owned());
        Box::pin(async move { probe.token(&name).await })
    }

    fn in_hand(&self) -> Pending<'static, Result<Option<InHand>, HealthFailure>> {
        let probe = self.clone();
        Box::pin(async move {
            let Some(Counters { requests, .. }) = probe.counters().await? else { return Ok(None) };
            // Whoever has connected since may have sent a request that is not counted yet.
            Ok(Some(InHand { requests, connections: probe.clients().await }))
        })
    }
}

/// The body of an answer; `None` if it is longer than any of vLLM's.
async fn bounded(mut response: Response) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_BODY {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// The ids in an OpenAI list of models.
fn model_names(body: &[u8]) -> Option<Vec<String>> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let ids = answer["data"].as_array()?.iter().map(|model| model["id"].as_str());
    ids.map(|id| id.map(str::to_owned)).collect()
}

/// The last cause in the chain says what the system said; the first only that a request failed.
fn innermost(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;
    use crate::domain::listener::ResourceHolder;

    #[test]
    fn the_names_are_read_from_an_openai_list_and_nothing_else() {
        let list = br#"{"object":"list","data":[{"id":"a"},{"id":"b"}]}"#;
        assert_eq!(model_names(list).unwrap(), ["a", "b"]);
        assert_eq!(model_names(b"<html>"), None);
        assert_eq!(model_names(br#"{"error":"Unauthorized"}"#), None);
    }

    #[derive(Debug)]
    struct Always(Listener);

    impl Listeners for Always {
        fn look(&self) -> Pending<'static, Listener> {
            let listener = self.0.clone();
            Box::pin(async move { listener })
        }

        fn clients(&self) -> Pending<'static, Option<u64>> {
            Box::pin(async { Some(0) })
        }
    }

    #[tokio::test]
    async fn who_is_no_member_of_the_launch_is_asked_nothing_and_sent_no_key() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let holder = ResourceHolder { pid: Some(7), command: None, user: "bob".to_owned() };
        for listener in [Listener::Stranger(holder), Listener::Unknown("x".to_owned())] {
            let key = Some(Secret::new("key"));
            let probe = HttpProbe::new(&url, key).unwrap();
            let probe = probe.asking_only_members(Arc::new(Always(listener.clone())));
            let failure = probe.check("m").await.unwrap_err();
            assert!(!matches!(failure, HealthFailure::Unreachable { .. }), "{failure}");
            assert!(probe.in_hand().await.is_err());
            let nobody_came = server.accept().unwrap_err().kind();
            assert_eq!(nobody_came, std::io::ErrorKind::WouldBlock, "{listener:?} was asked");
        }
    }

    #[tokio::test]
    async fn a_server_without_clients_is_not_asked_what_it_counts() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let probe = HttpProbe::new(&url, None).unwrap();
        let probe = probe.asking_only_members(Arc::new(Always(Listener::Member)));
        let pulse = probe.pulse().await.unwrap();
        assert_eq!((pulse.requests, pulse.connections), (0, Some(0)));
        assert_eq!(server.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[derive(Debug)]
    struct Never;

    impl Listeners for Never {
        fn look(&self) -> Pending<'static, Listener> {
            Box::pin(std::future::pending())
        }

        fn clients(&self) -> Pending<'static, Option<u64>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_for_the_listener_that_does_not_come_back_is_over_with_the_limit() {
        let probe = HttpProbe::new("http://127.0.0.1:9", None).unwrap();
        let probe = probe.asking_only_members(Arc::new(Never));
        let began = Instant::now();
        let failure = probe.check("m").await.unwrap_err();
        assert!(matches!(failure, HealthFailure::ListenerUnknown { .. }), "{failure}");
        assert_eq!(began.elapsed(), LIMIT);
        let failure = probe.in_hand().await.unwrap_err();
        assert!(matches!(failure, HealthFailure::ListenerUnknown { .. }), "{failure}");
        assert_eq!(began.elapsed(), LIMIT + COUNTERS_LIMIT);
    }

    #[tokio::test]
    async fn counters_that_cannot_be_read_are_not_told_from_such_as_do_not_exist_by_silence() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let probe = HttpProbe::new(format!("http://{free}"), None).unwrap();
        assert!(probe.in_hand().await.is_err());
        let probe = probe.asking_only_members(Arc::new(Always(Listener::Nobody)));
        assert_eq!(probe.in_hand().await, Ok(None));
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_unreachable() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let probe = HttpProbe::new(format!("http://{free}"), None).unwrap();
        let failure = probe.check("m").await.unwrap_err();
        assert!(matches!(failure, HealthFailure::Unreachable { .. }), "{failure}");
    }

    /// What a probe with a key makes of a server that answers `/health` like this.
    async fn judged(answer: String) -> HealthFailure {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut question = [0; 4096];
                // What is asked does not matter, only that it was.
                assert_ne!(stream.read(&mut question).await.ok(), Some(0));
                // A client that has seen enough hangs up.
                stream.write_all(answer.as_bytes()).await.ok();
            }
        });
        let probe = HttpProbe::new(format!("http://{address}"), Some(Secret::new("k"))).unwrap();
        probe.check("m").await.unwrap_err()
    }

    #[tokio::test]
    async fn a_server_with_another_key_is_told_apart_and_the_key_is_named() {
        for status in ["401 Unauthorized", "403 Forbidden"] {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            let failure = judged(answer).await;
            assert!(matches!(failure, HealthFailure::Unauthorised { .. }), "{failure}");
            assert!(failure.to_string().contains("VLLM_API_KEY"), "{failure}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        for status in [301, 302, 307, 308] {
            let answer = format!(
                "HTTP/1.1 {status} Elsewhere\r\nLocation: /v1/models\r\nContent-Length: 0\r\n\r\n"
            );
            let failure = judged(answer).await;
            let HealthFailure::Refused { status: found, .. } = failure else { panic!("{failure}") };
            assert_eq!(found, status);
        }
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_its_end() {
        let body = "x".repeat(2 * MAX_BODY);
        let failure = judged(format!("HTTP/1.1 200 OK\r\n\r\n{body}")).await;
        assert!(matches!(failure, HealthFailure::NotVllm { .. }), "{failure}");
    }
}
