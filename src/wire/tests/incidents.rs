//! What is told of an end that nobody asked for.

use vllm_supervisor_actors::domain::cause::{RetryClass, TellingLine};

use super::*;

/// Of a cause that vLLM's log tells.
pub(super) fn told() -> Cause {
    let line = TellingLine::new(12, "ValueError: too long");
    let log = Some("/state/logs/vllm-2.log".into());
    let cause = Cause::new(Code::KvCacheTooSmall, "the KV cache holds 512 tokens");
    let mut cause = cause.with_remedy("set --max-model-len 512").with_line(line).with_log(log);
    cause.retry = RetryClass::Transient;
    cause.with_source(Cause::new(Code::EngineDied, "it died"))
}

#[test]
fn an_incident_tells_all_that_is_known_of_its_cause() {
    let mut incident = record_of(told());
    incident.restart_after = Some(Duration::from_secs(4));
    assert_event(
        IncidentRecorded { incident: Box::new(incident) },
        json!({
            "type": "incident_recorded",
            "incident": {
                "at": "2026-11-23T07:00:00.123Z", "incarnation": 2, "model": "org/model",
                "code": "VLM-021",
                "summary": "the KV cache holds 512 tokens",
                "remedy": "set --max-model-len 512", "class": "transient",
                "line_number": 12, "line": "ValueError: too long",
                "log": "/state/logs/vllm-2.log",
                "source": { "code": "VLM-016", "summary": "it died" },
                "healthy_for_ms": null, "restart_after_ms": 4_000,
            },
        }),
    );
}

#[test]
fn an_incident_of_a_code_that_is_not_known_yet_is_told_all_the_same() {
    let line = crate::wire::crash(&record()).to_string().replace("VLM-016", "VLM-098");
    let read = JsonLines.read_crash(&line).unwrap();
    assert_eq!(read.cause.code, Code::Unrecognised);
    assert_eq!(read.cause.summary, "VLM-098: the engine died by SIGSEGV");
}

#[test]
fn an_entry_of_a_version_that_told_less_is_read() {
    let line = r#"{"at":"2026-11-23T07:00:00.123Z","incarnation":2,"model":"org/model",
        "code":"VLM-016","summary":"the engine died by SIGSEGV","healthy_for_ms":61001,
        "restart_after_ms":2000,"last_lines":["a line","the \"last\"\nline"]}"#;
    assert_eq!(JsonLines.read_crash(line), Some(record()));
}
