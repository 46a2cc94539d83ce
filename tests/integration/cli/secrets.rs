//! What must not be seen is not seen: neither in what `vllmd` says nor in what is kept of what vLLM says.

#![expect(clippy::unwrap_used, reason = "clippy takes only the tests themselves for tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::workplace::{Workplace, until};
use vllm_supervisor_tests::fake_vllm::fake_vllm;

/// Variables with a secret in each, and the secret.
const SECRETS: [(&str, &str, &str); 6] = [
    ("HF_TOKEN", "hf_tokenofthistest", "hf_tokenofthistest"),
    ("VLLM_API_KEY", "key-of-this-test", "key-of-this-test"),
    ("AWS_SECRET_ACCESS_KEY", "aws+key/of/this", "aws+key/of/this"),
    ("HTTPS_PROXY", "http://me:proxy%20word@127.0.0.1:9/", "proxy%20word"),
    ("HF_ENDPOINT", "https://endpointtoken@hub.example", "endpointtoken"),
    ("ALL_PROXY", "socks5://other:socksword@127.0.0.1:9", "socksword"),
];

/// Says all that it knows, as a traceback might, and fails.
const TALKATIVE: &str =
    "#!/bin/sh\nset\necho \"$@\"\necho 'ValueError: no luck' \"$HF_TOKEN\" >&2\nexit 1\n";

fn place(variables: &[(&str, &str, &str)]) -> Workplace {
    let mut place = Workplace::without_vllm(fake_vllm());
    let vllm = place.path("bin/vllm");
    fs::write(&vllm, TALKATIVE).unwrap();
    fs::set_permissions(&vllm, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, value, _) in variables {
        place.set(name, value);
    }
    place.set("VLLMD_LOG", "trace");
    place.configure_lifecycle("model_load_max_retries: 0");
    place
}

fn shows_none(what: &str, text: &[u8], variables: &[(&str, &str, &str)]) {
    for (name, _, secret) in variables {
        let is_shown = text.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!is_shown, "{name} in {what}: {}", String::from_utf8_lossy(text));
    }
}

async fn nothing_shows(variables: &[(&str, &str, &str)]) {
    let place = place(variables);
    for words in [
        &["check", "--config", "vllmd.yaml"][..],
        &["config", "show", "--config", "vllmd.yaml"],
        &["run", "--config", "vllmd.yaml", "--output", "json"],
        &["run", "--config", "vllmd.yaml", "--log-format", "json"],
    ] {
        let finished = place.vllmd(words).await;
        shows_none(&format!("{words:?}, stdout"), finished.stdout.as_bytes(), variables);
        shows_none(&format!("{words:?}, stderr"), finished.stderr.as_bytes(), variables);
    }
    let files: Vec<_> = place.files().into_iter().filter(|it| it.is_file()).collect();
    let logs = files.iter().filter(|it| it.extension().is_some_and(|it| it == "log"));
    let logs: Vec<String> = logs.map(|it| fs::read_to_string(it).unwrap()).collect();
    assert_eq!(logs.len(), 2, "one of each run");
    for log in logs {
        assert!(log.contains("no luck") && log.contains("****"), "{log}");
    }
    for file in files {
        shows_none(&file.display().to_string(), &fs::read(&file).unwrap_or_default(), variables);
    }
}

#[tokio::test]
async fn of_a_start_that_fails_nothing_shows_a_secret() {
    nothing_shows(&SECRETS).await;
}

#[tokio::test]
async fn a_token_by_its_old_name_does_not_show_either() {
    nothing_shows(&[("HUGGING_FACE_HUB_TOKEN", "hf_oldnameofthistest", "hf_oldnameofthistest")])
        .await;
}

#[tokio::test]
async fn no_process_has_a_secret_among_its_words() {
    let mut place = Workplace::new(fake_vllm());
    for (name, value, _) in &SECRETS[..3] {
        place.set(name, value);
    }
    place.configure_lifecycle("stop_on_exit: true");
    let mut vllmd = place.start(&["run", "--config", "vllmd.yaml", "--output", "json"]);
    vllmd.enters("running").await;
    let living = place.census.processes();
    assert!(!living.is_empty());
    for process in living {
        let words = fs::read(format!("/proc/{}/cmdline", process.pid.as_raw_pid()));
        shows_none("a command line", &words.unwrap_or_default(), &SECRETS[..3]);
    }
    vllmd.signal(rustix::process::Signal::TERM);
    vllmd.end().await;
    place.nothing_runs().await;
    until("it has ended", || place.census.processes().is_empty()).await;
}
