//! The endpoints of `vllm serve` that a supervisor or a client of one asks for.

use std::convert::Infallible;
use std::future::IntoFuture as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{ConnectInfo, Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{FutureExt as _, StreamExt as _, poll, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::arguments::Arguments;
use super::log;
use super::plan::{Plan, Quirk};

/// One completion on its way to the engine.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) tokens: u32,
    /// Dropped without a word when the engine dies.
    pub(super) reply: oneshot::Sender<String>,
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct Service {
    model: String,
    listed: Vec<String>,
    api_key: Option<String>,
    engine: mpsc::UnboundedSender<Request>,
    engine_dead: AtomicBool,
    health_takes: Duration,
    /// When `/health` begins to fail without a reason.
    health_fails_at: Option<Instant>,
    requests: AtomicU64,
    running: AtomicI64,
    prompt_tokens: AtomicU64,
    generated_tokens: AtomicU64,
}

impl Service {
    pub(super) fn new(
        arguments: &Arguments,
        plan: &Plan,
        engine: mpsc::UnboundedSender<Request>,
    ) -> Arc<Self> {
        let model = arguments.served_model().to_owned();
        let listed = if plan.has(Quirk::OmitsModel) { Vec::new() } else { vec![model.clone()] };
        Arc::new(Self {
            model,
            listed,
            api_key: arguments.api_key(),
            engine,
            engine_dead: AtomicBool::new(false),
            health_takes: plan.health_takes,
            health_fails_at: plan.health_fails_after.map(|after| Instant::now() + after),
            requests: AtomicU64::new(0),
            running: AtomicI64::new(0),
            prompt_tokens: AtomicU64::new(0),
            generated_tokens: AtomicU64::new(0),
        })
    }

    /// From now on `/health` is 503.
    pub(super) fn declare_engine_dead(&self) {
        self.engine_dead.store(true, Ordering::Relaxed);
    }

    /// Sends a request to the engine and waits for its text; `None` when the engine dies.
    async fn complete(&self, prompt: &str, tokens: u32) -> Option<String> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let (reply, text) = oneshot::channel();
        self.engine.send(Request { number, tokens, reply }).ok()?;
        let running = Running::new(&self.running);
        let text = text.await.ok()?;
        drop(running);
        self.prompt_tokens.fetch_add(prompt.len() as u64, Ordering::Relaxed);
        self.generated_tokens.fetch_add(tokens.into(), Ordering::Relaxed);
        Some(text)
    }
}

/// Counts a request as running, also when its client goes away.
struct Running<'a>(&'a AtomicI64);

impl<'a> Running<'a> {
    fn new(count: &'a AtomicI64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves until `stop` is dropped, then finishes what is being answered. Ending the task closes the
/// socket at once.
pub(super) fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    stop: oneshot::Receiver<Infallible>,
) -> JoinSet<io::Result<()>> {
    let make_service = router(service).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, make_service);
    let server = server.with_graceful_shutdown(async { drop(stop.await) });
    JoinSet::from_iter([server.into_future()])
}

fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ping", get(health).post(health))
        .route("/version", get(|| async { Json(json!({"version": "0.32.0"})) }))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat_completions))
        .layer(from_fn_with_state(service.clone(), require_key))
        .layer(from_fn(write_access_log))
        .with_state(service)
}

/// The key guards `/v1` only (vLLM 0.32, `middleware/authenticate.py`).
async fn require_key(
    State(service): State<Arc<Service>>,
    request: HttpRequest,
    next: Next,
) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    let wanted = service.api_key.as_ref().map(|key| format!("Bearer {key}"));
    let admitted = wanted.is_none_or(|wanted| given.is_some_and(|it| it == wanted.as_str()));
    if request.uri().path().starts_with("/v1") && !admitted {
        return (StatusCode::UNAUTHORIZED, Json(json!({"error": "Unauthorized"}))).into_response();
    }
    next.run(request).await
}

async fn write_access_log(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: HttpRequest,
    next: Next,
) -> Response {
    let what = format!("{} {} {:?}", request.method(), request.uri(), request.version());
    let response = next.run(request).await;
    log::access(&format!("INFO:     {peer} - \"{what}\" {}", response.status()));
    response
}

/// Knows only whether the engine is dead: a hanging one is healthy. A plan may have it lie.
async fn health(State(service): State<Arc<Service>>) -> StatusCode {
    tokio::time::sleep(service.health_takes).await;
    let fails = service.health_fails_at.is_some_and(|at| at <= Instant::now());
    if fails || service.engine_dead.load(Ordering::Relaxed) {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    }
}

async fn models(State(service): State<Arc<Service>>) -> Json<Value> {
    let cards: Vec<Value> = service
        .listed
        .iter()
        .map(|id| {
            json!({"id": id, "object": "model", "created": now(), "owned_by": "vllm",
                   "root": id, "parent": null, "max_model_len": 512})
        })
        .collect();
    Json(json!({"object": "list", "data": cards}))
}

#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    #[serde(default)]
    prompt: Value,
    #[serde(default)]
    messages: Value,
    #[serde(alias = "max_completion_tokens")]
    max_tokens: Option<u32>,
    #[serde(default)]
    stream: bool,
}

async fn completions(State(service): State<Arc<Service>>, Json(body): Json<Body>) -> Response {
    if body.stream {
        return streamed(service, body).await;
    }
    answer(&service, body, "cmpl", "text_completion", |text| text_choice(&text)).await
}

fn text_choice(text: &str) -> Value {
    json!({"index": 0, "text": text, "logprobs": null, "finish_reason": "length"})
}

/// A first part as soon as the engine has the request, and the rest when it has done all of it.
async fn streamed(service: Arc<Service>, body: Body) -> Response {
    let mut answer = Box::pin(async move {
        answer(&service, body, "cmpl", "text_completion", |text| text_choice(&text)).await
    });
    if let Poll::Ready(refusal) = poll!(&mut answer) {
        return refusal;
    }
    let part = |data: &str| Ok::<_, Infallible>(format!("data: {data}\n\n"));
    let first = part(&json!({"choices": [text_choice("")]}).to_string());
    let rest = answer.then(|answer| axum::body::to_bytes(answer.into_body(), usize::MAX));
    let rest = rest.map(move |all| {
        let all = all.unwrap_or_default();
        part(&format!("{}\n\ndata: [DONE]", String::from_utf8_lossy(&all)))
    });
    let parts = stream::iter([first]).chain(stream::once(rest));
    ([(header::CONTENT_TYPE, "text/event-stream")], axum::body::Body::from_stream(parts))
        .into_response()
}

async fn chat_completions(State(service): State<Arc<Service>>, Json(body): Json<Body>) -> Response {
    let choice = |text| {
        let message = json!({"role": "assistant", "content": text});
        json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "length"})
    };
    answer(&service, body, "chatcmpl", "chat.completion", choice).await
}

async fn answer(
    service: &Service,
    body: Body,
    prefix: &str,
    object: &str,
    choice: impl FnOnce(String) -> Value,
) -> Response {
    if let Some(model) = body.model.filter(|model| *model != service.model) {
        let message = format!("The model `{model}` does not exist.");
        return error(StatusCode::NOT_FOUND, &message, "NotFoundError");
    }
    let prompt = match (body.prompt, body.messages) {
        (Value::String(text), _) => text,
        (_, messages) => messages.to_string(),
    };
    let tokens = body.max_tokens.unwrap_or(16);
    let Some(text) = service.complete(&prompt, tokens).await else {
        // The wording of vLLM 0.32's EngineDeadError.
        let message =
            "EngineCore encountered an issue. See stack trace (above) for the root cause.";
        return error(StatusCode::INTERNAL_SERVER_ERROR, message, "InternalServerError");
    };
    let (id, used) = (format!("{prefix}-{:016x}", now()), prompt.len() as u64);
    let usage = json!({"prompt_tokens": used, "completion_tokens": tokens,
                       "total_tokens": used + u64::from(tokens)});
    Json(json!({"id": id, "object": object, "created": now(), "model": service.model,
                "choices": [choice(text)], "usage": usage}))
    .into_response()
}

fn error(status: StatusCode, message: &str, kind: &str) -> Response {
    let error = json!({"message": message, "type": kind, "param": null, "code": status.as_u16()});
    (status, Json(json!({"error": error}))).into_response()
}

/// The metrics by which a hang can be told from idleness (vLLM 0.32, `v1/metrics/loggers.py`).
async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let running = service.running.load(Ordering::Relaxed).to_string();
    let prompt = service.prompt_tokens.load(Ordering::Relaxed).to_string();
    let generated = service.generated_tokens.load(Ordering::Relaxed).to_string();
    let text = [
        ("num_requests_running", "gauge", "requests in model execution batches", running),
        ("prompt_tokens_total", "counter", "prefill tokens processed", prompt),
        ("generation_tokens_total", "counter", "generation tokens processed", generated),
    ]
    .map(|(name, kind, what, value)| {
        let labels = format!("{{engine=\"0\",model_name=\"{}\"}}", service.model);
        format!(
            "# HELP vllm:{name} Number of {what}.\n# TYPE vllm:{name} {kind}\n\
             vllm:{name}{labels} {value}.0\n"
        )
    });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text.concat()).into_response()
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
