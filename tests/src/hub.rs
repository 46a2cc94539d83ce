//! A Hugging Face Hub on loopback: it gives one model to everybody, and refuses all others, each in its own
//! way.

use std::collections::BTreeMap;
use std::fs;
use std::future::pending;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, ETAG, LOCATION};
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// See the module. It ends when it is dropped.
#[derive(Debug)]
pub struct Hub {
    /// Where it is, for `HF_ENDPOINT`.
    pub endpoint: String,
    server: JoinHandle<()>,
    /// Closed when weights are given.
    weights: Arc<Semaphore>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `HEAD`, `GET`.
    pub method: String,
    /// What for.
    pub path: String,
    /// Who says to be asking (`Authorization`).
    pub credentials: Option<String>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let credentials = request.headers().get(AUTHORIZATION);
        Self {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            credentials: credentials.map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned()),
        }
    }
}

impl Hub {
    /// One that gives nothing.
    pub async fn open() -> Self {
        Self::with(Gift::default(), None).await
    }

    /// One that gives this as [`GIVEN`], the weights only once [`Hub::give_weights`] is called.
    pub async fn giving(gift: Gift) -> Self {
        Self::with(gift, None).await
    }

    /// One that has what `moved` owns at another.
    pub async fn sending_to(other: &Self) -> Self {
        Self::with(Gift::default(), Some(other.endpoint.clone())).await
    }

    async fn with(gift: Gift, other: Option<String>) -> Self {
        let gift = Arc::new(gift);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let weights = Arc::new(Semaphore::new(0));
        let gate = Arc::clone(&weights);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        #[expect(clippy::disallowed_methods, reason = "no actor owns it, but this does")]
        let server = tokio::spawn(async move {
            let answer = move |request: Request| {
                let (gift, gate, other) = (Arc::clone(&gift), Arc::clone(&gate), other.clone());
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(Asked::of(&request));
                async move {
                    let is_weights = request.uri().path().ends_with(".safetensors");
                    if is_weights && request.method() == Method::GET {
                        let _turn = gate.acquire().await;
                    }
                    if is_of(request.uri().path(), "silent") {
                        return pending().await;
                    }
                    match gift.answer(&request) {
                        Some(answer) => answer,
                        None => refuse(&request, other.as_deref()),
                    }
                }
            };
            let served = axum::serve(listener, Router::new().fallback(answer)).await;
            served.expect("it listens");
        });
        Self { endpoint, server, weights, asked }
    }

    /// What it has been asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Holds the weights back no longer.
    pub fn give_weights(&self) {
        self.weights.close();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The name of the model that is given.
pub const GIVEN: &str = "open/tiny";

/// By which a Hub is known.
const COMMIT_HEADER: HeaderName = HeaderName::from_static("x-repo-commit");

/// The commit that it is at.
const COMMIT: &str = "a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0";

/// A model that is given: its files, by their names.
#[derive(Debug, Default)]
pub struct Gift(BTreeMap<String, Vec<u8>>);

impl Gift {
    /// The files of this directory.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn of(directory: &Path) -> Self {
        let entries = fs::read_dir(directory).expect("a model").flatten();
        let read = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            (name, fs::read(entry.path()).expect("a file"))
        };
        Self(entries.map(read).collect())
    }

    /// How long the files with these endings are together.
    pub fn bytes_of(&self, extensions: &[&str]) -> u64 {
        let is_one = |name: &str| extensions.iter().any(|it| name.ends_with(it));
        let files = self.0.iter().filter(|(name, _)| is_one(name));
        files.map(|(_, content)| content.len() as u64).sum()
    }

    /// What the Hub would say of it (`huggingface_hub` 2.4.0, `hf_api.py`, `file_download.py`); `None` if it
    /// is not what is asked for.
    fn answer(&self, request: &Request) -> Option<Response> {
        let path = request.uri().path();
        let etag = |name: &str| {
            let mut hasher = DefaultHasher::new();
            (name, &self.0[name]).hash(&mut hasher);
            format!("{:040x}", hasher.finish())
        };
        if path.starts_with(&format!("/api/models/{GIVEN}/tree/")) {
            let file = |(name, content): (&String, &Vec<u8>)| json!({"type": "file", "path": name, "size": content.len(), "oid": etag(name)});
            return Some(Json(self.0.iter().map(file).collect::<Value>()).into_response());
        }
        if path.starts_with(&format!("/api/models/{GIVEN}")) && !self.0.is_empty() {
            let siblings: Vec<Value> =
                self.0.keys().map(|name| json!({"rfilename": name})).collect();
            let body = json!({
                "id": GIVEN, "sha": COMMIT, "private": false, "gated": false, "disabled": false,
                "tags": [], "siblings": siblings, "lastModified": "2024-01-01T00:00:00.000Z",
            });
            return Some(Json(body).into_response());
        }
        let name = path.strip_prefix(&format!("/{GIVEN}/resolve/"))?.split_once('/')?.1;
        let commit = (COMMIT_HEADER, COMMIT.to_owned());
        let Some(content) = self.0.get(name) else {
            let code = (HeaderName::from_static("x-error-code"), "EntryNotFound".to_owned());
            return Some((StatusCode::NOT_FOUND, [commit, code]).into_response());
        };
        let etag = (ETAG, format!("\"{}\"", etag(name)));
        Some(([commit, etag], content.clone()).into_response())
    }
}

/// Whether this is asked of a model of this owner.
fn is_of(path: &str, owner: &str) -> bool {
    path.split('/').any(|part| part == owner)
}

/// As the Hub does it: the status, and what kind of refusal it is in a header of its own
/// (`huggingface_hub` 1.0, `utils/_http.py`, `hf_raise_for_status`).
fn refuse(request: &Request, other: Option<&str>) -> Response {
    let path = request.uri().path();
    let is_of = |owner: &str| is_of(path, owner);
    if let Some(other) = other.filter(|_| is_of("moved")) {
        let headers = [(LOCATION, format!("{other}{path}")), (COMMIT_HEADER, COMMIT.to_owned())];
        return (StatusCode::FOUND, headers).into_response();
    }
    let (status, kind) = if is_of("gated") {
        (StatusCode::FORBIDDEN, Some("GatedRepo"))
    } else if is_of("private") {
        (StatusCode::UNAUTHORIZED, None)
    } else if is_of("revised") {
        (StatusCode::NOT_FOUND, Some("RevisionNotFound"))
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
