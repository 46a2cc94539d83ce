//! The commands that only look: `check`, `config show`, `config schema`, `--version`.

use std::net::TcpListener;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use vllm_supervisor_tests::fake_vllm::fake_vllm;

use super::workplace::Workplace;

const SECRETS: [(&str, &str); 2] =
    [("HF_TOKEN", "hf_AbCdEfGhIjKlMnOp"), ("VLLM_API_KEY", "open-sesame")];

#[tokio::test]
async fn a_good_configuration_passes_and_the_check_leaves_nothing() {
    let place = Workplace::new(fake_vllm());
    place.configure_lifecycle("stop_on_exit: true");
    let before = place.files();
    let finished = place.vllmd(&["check", "--config", "vllmd.yaml"]).await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.stderr, "");
    for (key, value, origin) in [
        ("port", place.port.to_string().as_str(), "file "),
        ("lifecycle.stop_on_exit", "true", "file "),
        ("lifecycle.start_timeout", "30s", "default"),
        ("vllm", "ok", place.path("bin/vllm").to_str().unwrap()),
        ("state_dir", "ok", "can be used"),
    ] {
        let has = |line: &str| line.split_whitespace().take(2).eq([key, value]);
        let line = finished.stdout.lines().find(|line| has(line));
        assert!(line.is_some_and(|line| line.contains(origin)), "{key} in {finished:#?}");
    }
    assert_eq!(place.files(), before);
    assert_eq!(place.launches(), 0);
}

#[tokio::test]
async fn a_service_that_runs_is_told_of_and_not_disturbed() {
    let place = Workplace::new(fake_vllm());
    place.configure_lifecycle("stop_on_exit: true");
    let mut vllmd = place.start(&["run", "--config", "vllmd.yaml"]);
    vllmd.says("running: ").await;
    let supervisor = format!("pid {}", vllmd.pid().as_raw_nonzero());
    let finished = place.vllmd(&["check", "--config", "vllmd.yaml"]).await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.stderr, "");
    for (check, said) in
        [("port", "vLLM is there already"), ("state_dir", "a supervisor that runs")]
    {
        let is_check = |line: &&str| line.split_whitespace().take(2).eq([check, "ok"]);
        let line = finished.stdout.lines().find(is_check).unwrap_or_default();
        assert!(line.contains(said) && line.contains(&supervisor), "{check} in {finished:#?}");
    }
    vllmd.signal(Signal::TERM);
    assert_eq!(vllmd.end().await.code, Some(143));
    place.nothing_runs().await;
}

#[tokio::test]
async fn everything_that_fails_is_reported_for_people_and_programs() {
    let place = Workplace::without_vllm(fake_vllm());
    place.configure_lifecycle("");
    let _holder = TcpListener::bind(("127.0.0.1", place.port)).unwrap();
    let words = ["check", "--config", "vllmd.yaml", "--output", "json"];
    let finished = place.vllmd(&words).await;
    assert_eq!(finished.code, Some(2), "{finished:#?}");
    finished.complains_of(&["error[VLM-007]", "error[VLM-005]", &place.port.to_string()]);
    let report = finished.json();
    assert_eq!(report["ok"], json!(false));
    let codes = report["problems"].as_array().unwrap().iter().map(|problem| &problem["code"]);
    assert_eq!(codes.collect::<Vec<_>>(), ["VLM-007", "VLM-005"]);
    let checks = report["checks"].as_array().unwrap();
    let outcome = |check: &Value| (check["name"].as_str().unwrap().to_owned(), check["ok"] == true);
    let outcomes: Vec<_> = checks.iter().map(outcome).collect();
    let expected = [("vllm", false), ("port", false), ("state_dir", true)];
    assert_eq!(outcomes, expected.map(|(name, ok)| (name.to_owned(), ok)));
}

#[tokio::test]
async fn settings_are_shown_with_their_origin_and_without_secrets() {
    let mut place = Workplace::new(fake_vllm());
    for (name, value) in SECRETS {
        place.set(name, value);
    }
    place.set("VLLM_MODEL", "org/from-environment");
    place.configure("env: {GREETING: open-sesame}");
    let common = ["config", "show", "--config", "vllmd.yaml", "--port", "9000"];
    let text = place.vllmd(&common).await;
    let json = place.vllmd(&[&common[..], &["--output", "json"]].concat()).await;
    for finished in [&text, &json] {
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        assert_eq!(finished.stderr, "");
        for (_, secret) in SECRETS {
            assert!(!finished.stdout.contains(secret), "{finished:#?}");
        }
    }
    let settings = json.json();
    let setting = |key: &str| {
        let settings = settings["settings"].as_array().unwrap();
        settings.iter().find(|setting| setting["key"] == key).unwrap().clone()
    };
    let expected = |key: &str, value: &str, source: &str, name: &str| json!({ "key": key, "value": value, "source": source, "source_name": name });
    let by_environment = expected("model", "org/from-environment", "environment", "VLLM_MODEL");
    assert_eq!(setting("model"), by_environment);
    assert_eq!(setting("port"), expected("port", "9000", "flag", "--port"));
    assert_eq!(setting("hf_token"), expected("hf_token", "********", "environment", "HF_TOKEN"));
    assert_eq!(setting("host")["source"], "default");
    assert!(text.stdout.contains("flag --port"), "{text:#?}");
}

#[tokio::test]
async fn the_schema_is_the_published_one() {
    let finished = Workplace::new(fake_vllm()).vllmd(&["config", "schema"]).await;
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/schema.json");
    let published = std::fs::read_to_string(published).unwrap();
    assert_eq!(finished.stdout, published.trim_end());
    assert_eq!(finished.code, Some(0));
}

#[tokio::test]
async fn the_version_and_the_help_are_data() {
    let place = Workplace::new(fake_vllm());
    let version = place.vllmd(&["--version"]).await;
    assert_eq!(version.stdout, format!("vllmd {}", env!("CARGO_PKG_VERSION")));
    for words in [&["--help"][..], &["run", "--help"], &["config", "show", "--help"]] {
        let help = place.vllmd(words).await;
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
        assert!(help.stdout.contains("Usage: vllmd"), "{help:#?}");
    }
}
