//! A Hugging Face Hub on loopback that refuses, each model in its own way.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// See the module. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Hub {
    /// Where it is, for `HF_ENDPOINT`.
    pub(crate) endpoint: String,
    server: JoinHandle<()>,
}

impl Hub {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        #[expect(clippy::disallowed_methods, reason = "no actor owns it, but this does")]
        let server = tokio::spawn(async move {
            let served = axum::serve(listener, Router::new().fallback(refuse)).await;
            served.expect("it listens");
        });
        Self { endpoint, server }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// As the Hub does it: the status, and what kind of refusal it is in a header of its own
/// (`huggingface_hub` 1.0, `utils/_http.py`, `hf_raise_for_status`).
async fn refuse(request: Request) -> Response {
    let path = request.uri().path();
    let is_of = |owner: &str| path.split('/').any(|part| part == owner);
    let (status, kind) = if is_of("gated") {
        (StatusCode::FORBIDDEN, Some("GatedRepo"))
    } else if is_of("private") {
        (StatusCode::UNAUTHORIZED, None)
    } else if is_of("limited") {
        (StatusCode::TOO_MANY_REQUESTS, None)
    } else if is_of("broken") {
        (StatusCode::INTERNAL_SERVER_ERROR, None)
    } else {
        (StatusCode::NOT_FOUND, Some("RepoNotFound"))
    };
    let code = HeaderName::from_static("x-error-code");
    let body = format!("{{\"error\": \"{status}\"}}");
    match kind {
        Some(kind) => (status, [(code, kind)], body).into_response(),
        None => (status, body).into_response(),
    }
}
