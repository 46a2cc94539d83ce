//! `vllmd diagnose`, held against logs of real vLLMs whose causes are known.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use vllm_supervisor_tests::fake_vllm::fake_vllm;

use super::workplace::Workplace;

const LOGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/logs");

async fn diagnosed(place: &Workplace, log: &Path) -> Value {
    let finished =
        place.vllmd(&["diagnose", "--output", "json", log.to_str().expect("a path")]).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{}", log.display());
    serde_json::from_str(&finished.stdout).expect("JSON")
}

#[tokio::test]
async fn the_cause_of_each_log_is_found() {
    let place = Workplace::new(fake_vllm());
    let index = fs::read_to_string(Path::new(LOGS).join("INDEX.tsv")).expect("an index");
    let rows: Vec<&str> = index.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(rows.len() > 50, "{index}");
    for row in rows {
        let [log, codes, what] = row.split('\t').collect::<Vec<_>>().try_into().expect("a row");
        let found = diagnosed(&place, &Path::new(LOGS).join(log)).await;
        let code = found["code"].as_str().unwrap_or("null");
        assert!(codes.split('|').any(|it| it == code), "{log} ({what}): {found:#}");
        let has_a_line = found["line_number"].as_u64().is_some_and(|number| number > 0);
        assert_eq!(has_a_line, code != "null", "{log}: {found:#}");
        assert!(!found["summary"].as_str().unwrap_or_default().contains('{'), "{found:#}");
    }
}

#[tokio::test]
async fn a_log_comes_by_stdin_too_and_is_told_in_words() {
    let place = Workplace::new(fake_vllm());
    let log = Path::new(LOGS).join("kv_too_small_real.log");
    let finished = place.vllmd(&["diagnose", log.to_str().expect("a path")]).await;
    let said = "VLM-021: a context of 131072 tokens needs 12.0 GiB of KV cache, and 0.99 GiB are there: \
                10752 tokens fit\n  line 76: ValueError: To serve";
    assert!(finished.stdout.starts_with(said), "{finished:#?}");
    assert!(finished.stdout.contains("\n  help: set --max-model-len to 10752"), "{finished:#?}");

    let nothing = place.vllmd(&["diagnose", "--output", "json", "-"]).await;
    let found: Value = serde_json::from_str(&nothing.stdout).expect("JSON");
    // There is nothing to be recognised.
    assert_eq!((&found["code"], &found["line"]), (&json!("VLM-099"), &Value::Null), "{found:#}");
}

#[tokio::test]
async fn what_no_log_can_tell_is_said() {
    let place = Workplace::new(fake_vllm());
    let log = |name: &str, text: &str| {
        let path = place.path(name);
        fs::write(&path, text).expect("a log");
        path
    };
    let loading =
        "(APIServer pid=7) INFO 11-27 12:44:31 [api_server.py:10] vLLM API server version 0.32.0\n";
    for (name, text, code, words) in [
        ("empty.log", "", "VLM-099", "the log is empty"),
        ("foreign.log", "make: *** [all] Error 2\n", "VLM-099", "no line of it is vLLM's"),
        ("loading.log", loading, "VLM-099", "it ends while vLLM loads"),
    ] {
        let found = diagnosed(&place, &log(name, text)).await;
        assert_eq!(found["code"], code, "{found:#}");
        assert!(found["summary"].as_str().unwrap_or_default().starts_with(words), "{found:#}");
    }
    let healthy = place.vllmd(&["diagnose", &format!("{LOGS}/ok_sharded_compile.log")]).await;
    assert!(healthy.stdout.starts_with("the log shows no failure"), "{healthy:#?}");
    assert!(healthy.stdout.contains("restarts.jsonl"), "{healthy:#?}");
}

#[tokio::test]
async fn what_is_no_text_has_an_end() {
    let place = Workplace::new(fake_vllm());
    let finished = place.vllmd(&["diagnose", "/dev/zero"]).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{finished:#?}");
    assert!(finished.stderr.contains("no text"), "{finished:#?}");
}

#[tokio::test]
async fn what_is_no_business_of_a_log_is_refused() {
    let place = Workplace::new(fake_vllm());
    let finished = place.vllmd(&["diagnose", "--port", "7", "x.log"]).await;
    assert_eq!(finished.code, Some(2), "{finished:#?}");
    assert!(finished.stderr.contains("--port has no meaning"), "{finished:#?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_is_no_cause() {
    let place = Workplace::new(fake_vllm());
    for log in ["nowhere.log", "bin"] {
        let finished = place.vllmd(&["diagnose", log]).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{finished:#?}");
        assert!(finished.stderr.contains(log), "{finished:#?}");
    }
}
