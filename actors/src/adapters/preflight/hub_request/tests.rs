//! What the Hub is asked, by whom, and what becomes of its answers.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use super::*;
use crate::domain::cause::Code;
use crate::domain::preflight::Assessment;

/// Answers one request, and tells its words.
struct OneAnswer {
    endpoint: String,
    asked: JoinHandle<Vec<String>>,
}

impl OneAnswer {
    fn with(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let asked = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            // Whoever asked may have gone.
            drop(stream.write_all(answer.as_bytes()));
            asked
        });
        Self { endpoint, asked }
    }

    fn asked(self) -> Vec<String> {
        self.asked.join().unwrap()
    }
}

fn access(endpoint: &str, token: HubToken) -> HubAccess {
    HubAccess { endpoint: endpoint.to_owned(), token, proxy: None, certificates: None }
}

fn nobody() -> HubToken {
    HubToken::Stored("/nowhere/token".into())
}

fn ask(access: &HubAccess) -> Assessment {
    let question = HubQuestion {
        model: "org/a".to_owned(),
        revision: "feature/x y".to_owned(),
        endpoint: access.endpoint.clone(),
    };
    access.ask(&question).assessment
}

fn has(asked: &[String], name: &str) -> Option<String> {
    let begins = format!("{name}: ");
    let line = asked.iter().find(|line| line.to_ascii_lowercase().starts_with(&begins))?;
    Some(line[begins.len()..].to_owned())
}

#[test]
fn the_head_of_the_configuration_is_asked_for_by_nobody_who_has_no_token() {
    let hub = OneAnswer::with("HTTP/1.1 200 OK\r\nx-repo-commit: abc\r\n\r\n");
    assert!(matches!(ask(&access(&hub.endpoint, nobody())), Assessment::Fine(_)));
    let asked = hub.asked();
    assert_eq!(asked[0], "HEAD /org/a/resolve/feature%2Fx%20y/config.json HTTP/1.1");
    assert_eq!(has(&asked, "authorization"), None);
}

#[test]
fn a_token_is_sent_and_never_shown() {
    let token = Secret::new("hf_secret");
    let hub = OneAnswer::with(
        "HTTP/1.1 403 Forbidden\r\nx-error-code: GatedRepo\r\nx-error-message: not hf_secret\r\n\r\n",
    );
    let access = access(&hub.endpoint, HubToken::Given(token));
    assert!(!format!("{access:?}").contains("hf_secret"));
    let Assessment::Fatal(cause) = ask(&access) else { panic!() };
    assert_eq!(cause.code, Code::ModelGated);
    assert!(!format!("{cause:?}").contains("hf_secret"), "{cause:?}");
    assert_eq!(has(&hub.asked(), "authorization").as_deref(), Some("Bearer hf_secret"));
}

#[test]
fn a_token_that_was_left_in_a_file_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    fs::write(&path, " hf_stored\n").unwrap();
    let hub = OneAnswer::with("HTTP/1.1 200 OK\r\nx-repo-commit: abc\r\n\r\n");
    assert!(matches!(ask(&access(&hub.endpoint, HubToken::Stored(path))), Assessment::Fine(_)));
    assert_eq!(has(&hub.asked(), "authorization").as_deref(), Some("Bearer hf_stored"));
}

#[test]
fn nothing_that_the_hub_sends_elsewhere_is_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let location = format!(
        "HTTP/1.1 302 Found\r\nx-repo-commit: abc\r\nlocation: http://{}/x\r\n\r\n",
        elsewhere.local_addr().unwrap()
    );
    let hub = OneAnswer::with(location.leak());
    let token = HubToken::Given(Secret::new("hf_secret"));
    assert!(matches!(ask(&access(&hub.endpoint, token)), Assessment::Fine(_)));
    drop(hub.asked());
    assert!(elsewhere.accept().is_err(), "somebody came");
}

#[test]
fn nobody_who_listens_is_a_warning_and_what_is_no_answer_is_not_known() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = ask(&access(&format!("http://{closed}"), nobody()));
    assert!(matches!(unreachable, Assessment::Warning(_)), "{unreachable:?}");
    let hub = OneAnswer::with("220 mail.example ESMTP\r\n\r\n");
    let other = ask(&access(&hub.endpoint, nobody()));
    assert!(matches!(other, Assessment::Unknown(_)), "{other:?}");
    drop(hub.asked());
}

#[test]
fn a_proxy_is_asked_in_its_place_and_its_password_is_not_shown() {
    let proxy = OneAnswer::with("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    let address = proxy.endpoint.replace("http://", "http://me:sesame@");
    let access = HubAccess {
        proxy: Some(Secret::new(address)),
        ..access("http://hub.example", HubToken::Given(Secret::new("hf_secret")))
    };
    let judged = format!("{:?} {access:?}", ask(&access));
    assert!(!judged.contains("sesame") && !judged.contains("hf_secret"), "{judged}");
    assert!(!proxy.asked().is_empty());
}

#[cfg(not(feature = "hub"))]
#[test]
fn without_tls_only_a_mirror_at_http_is_asked() {
    let judged = ask(&access("https://127.0.0.1:1", nobody()));
    assert!(matches!(&judged, Assessment::Unknown(why) if why.contains("TLS")), "{judged:?}");
}

#[cfg(feature = "hub")]
#[test]
fn over_tls_a_token_goes_to_nobody_who_has_not_shown_a_certificate() {
    let hub = OneAnswer::with("HTTP/1.1 200 OK\r\nx-repo-commit: abc\r\n\r\n");
    let endpoint = hub.endpoint.replace("http:", "https:");
    let token = HubToken::Given(Secret::new("hf_secret"));
    let judged = ask(&access(&endpoint, token));
    assert!(!matches!(judged, Assessment::Fine(_) | Assessment::Fatal(_)), "{judged:?}");
    assert!(!hub.asked().concat().contains("hf_secret"));
}
