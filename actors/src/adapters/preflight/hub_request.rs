//! Asks the Hub for the head of a model's `config.json`: one request, which follows nothing that it is sent
//! to, so that the token goes to nobody else.

use std::error::Error as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use ureq::{Agent, Error, Proxy};

use crate::domain::preflight::{Asker, Finding, HubAnswer, HubQuestion, HubReply, judge_answer};
use crate::domain::secret::{Secret, redact};

/// How long is asked, from the name of the host to the answer.
pub(super) const ASKED_WITHIN: Duration = Duration::from_secs(3);

/// More of what the Hub says is not told.
const LONGEST_MESSAGE: usize = 300;

/// How the Hub is asked as vLLM will ask it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubAccess {
    /// Where it is (`HF_ENDPOINT`), without a slash at its end.
    pub endpoint: String,
    /// By whom.
    pub token: HubToken,
    /// The proxy on the way to it, which may have a password.
    pub proxy: Option<Secret>,
    /// The file of certificates that are trusted (`SSL_CERT_FILE`), if not those of the system.
    pub certificates: Option<PathBuf>,
}

/// Where the token for the Hub is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubToken {
    /// It is given to vLLM.
    Given(Secret),
    /// In this file, if it is there (`hf auth login`).
    Stored(PathBuf),
}

impl HubAccess {
    /// Asks, and judges the answer.
    pub(super) fn ask(&self, question: &HubQuestion) -> Finding {
        let (asker, token) = self.token.read();
        judge_answer(question, asker, &self.answer(question, token.as_ref()))
    }

    fn answer(&self, question: &HubQuestion, token: Option<&Secret>) -> HubAnswer {
        let secrets = || token.into_iter().chain(&self.proxy);
        let agent = match self.agent() {
            Ok(agent) => agent,
            Err(why) => return HubAnswer::Unknown(redact(&why, secrets())),
        };
        let revision = quoted(&question.revision);
        let address =
            format!("{}/{}/resolve/{revision}/config.json", self.endpoint, question.model);
        let mut request = agent.head(&address);
        if let Some(token) = token {
            let Ok(mut bearer) = HeaderValue::try_from(format!("Bearer {}", token.expose())) else {
                return HubAnswer::Unknown("the token has characters that none has".to_owned());
            };
            bearer.set_sensitive(true);
            request = request.header(AUTHORIZATION, bearer);
        }
        match request.call() {
            Ok(response) => {
                HubAnswer::Given(reply(response.status().as_u16(), response.headers(), secrets))
            }
            Err(error) => not_answered(&error, secrets),
        }
    }

    fn agent(&self) -> Result<Agent, String> {
        let proxy = self.proxy.as_ref().map(|proxy| Proxy::new(proxy.expose())).transpose();
        // The error has the address, and that may have a password.
        let proxy = proxy.map_err(|_| "the proxy's address cannot be read".to_owned())?;
        let config = Agent::config_builder()
            .proxy(proxy)
            .timeout_global(Some(ASKED_WITHIN))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("vllmd/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity");
        #[cfg(feature = "hub")]
        let config = config.tls_config(tls::trusting(self.certificates.as_deref())?);
        #[cfg(not(feature = "hub"))]
        if self.endpoint.starts_with("https:") {
            return Err("it is not asked: this program is built without TLS".to_owned());
        }
        Ok(config.build().new_agent())
    }
}

impl HubToken {
    fn read(&self) -> (Asker, Option<Secret>) {
        let path = match self {
            Self::Given(token) => return (Asker::Owner, Some(token.clone())),
            Self::Stored(path) => path,
        };
        let stored = fs::read_to_string(path).unwrap_or_default();
        let token = Secret::new(stored.replace(['\r', '\n'], "").trim());
        if token.is_blank() { (Asker::Nobody, None) } else { (Asker::Renewable, Some(token)) }
    }
}

/// As Python's `quote(…, safe="")`: a branch may have slashes.
fn quoted(revision: &str) -> String {
    let quote = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'.' | b'-' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    revision.bytes().map(quote).collect()
}

fn reply<'a, S: Iterator<Item = &'a Secret>>(
    status: u16,
    headers: &HeaderMap,
    secrets: impl Fn() -> S,
) -> HubReply {
    let given = |value: Option<&HeaderValue>| {
        let text = redact(value?.to_str().ok()?, secrets());
        Some(text.chars().take(LONGEST_MESSAGE).collect::<String>())
    };
    HubReply {
        status,
        code: given(headers.get("x-error-code")),
        message: given(headers.get("x-error-message")),
        commit: given(headers.get("x-repo-commit")),
        location: given(headers.get(LOCATION)),
    }
}

fn not_answered<'a, S: Iterator<Item = &'a Secret>>(
    error: &Error,
    secrets: impl Fn() -> S,
) -> HubAnswer {
    let mut why = match error {
        Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    let mut source = error.source();
    while let Some(deeper) = source {
        if !why.contains(&deeper.to_string()) {
            why = format!("{why}: {deeper}");
        }
        source = deeper.source();
    }
    let why = redact(&why, secrets());
    match error {
        Error::Timeout(_) => {
            HubAnswer::Unknown(format!("there is no answer within {ASKED_WITHIN:?}"))
        }
        Error::Io(_) | Error::HostNotFound | Error::ConnectionFailed if !is_of_tls(error) => {
            HubAnswer::Unreachable(why)
        }
        // Such as a certificate that we do not trust, and vLLM may.
        _ => HubAnswer::Unknown(why),
    }
}

/// What goes wrong with a certificate comes as an error of reading and writing.
fn is_of_tls(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData)
}

#[cfg(feature = "hub")]
mod tls {
    //! Whom to trust: as Python does, the file that is named, else the system's, else Mozilla's.

    use std::fs;
    use std::path::Path;

    use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

    /// Where distributions have the certificates that they trust, those of the company's among them (Go 1.24,
    /// `crypto/x509/root_linux.go`).
    const SYSTEM: [&str; 5] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];

    pub(super) fn trusting(file: Option<&Path>) -> Result<TlsConfig, String> {
        let pem = match file {
            Some(file) => Some(
                fs::read(file)
                    .map_err(|error| format!("{} (SSL_CERT_FILE): {error}", file.display()))?,
            ),
            None => SYSTEM.iter().find_map(|path| fs::read(path).ok()),
        };
        let roots = pem.map_or(RootCerts::WebPki, |pem| {
            let certificates = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            certificates.collect::<Vec<_>>().into()
        });
        Ok(TlsConfig::builder().root_certs(roots).build())
    }
}

#[cfg(test)]
mod tests;
