//! What is told of an end that nobody asked for.

use vllm_supervisor_actors::domain::cause::{RetryClass, TellingLine};
use vllm_supervisor_actors::domain::diagnosis::Exit;
use vllm_supervisor_actors::domain::incident::{ProcessExit, Recovery};
use vllm_supervisor_actors::domain::report::Role;

use super::*;

fn record() -> Incident {
    let mut record = record_of(crash());
    record.healthy_for = Some(Duration::from_millis(61_001));
    record.restart_after = Some(Duration::from_secs(2));
    record
}

pub(super) fn entry() -> Record {
    Record::Incident(Box::new(record()))
}

#[track_caller]
fn assert_read_back(written: Record) {
    let line = JsonLines.record(&written);
    assert_eq!(JsonLines.read_record(&line), Some(written), "{line}");
}

/// Of a launch that never was healthy and is not restarted.
pub(super) fn record_of(cause: Cause) -> Incident {
    Incident::new(morning(), Incarnation::new(2), model("org/model"), cause)
}

#[test]
fn an_entry_of_the_history_says_its_units() {
    assert_eq!(
        crate::wire::incident(&record()),
        json!({
            "at": "2026-11-23T07:00:00.123Z", "incarnation": 2, "model": "org/model",
            "code": "VLM-016", "summary": "the engine died by SIGSEGV",
            "remedy": Code::EngineDied.remedy(), "class": "transient",
            "line_number": null, "line": null, "log": null,
            "healthy_for_ms": 61_001, "restart_after_ms": 2_000, "exits": [], "kernel": null,
            "recovered_after_ms": null,
            "last_lines": ["a line", "the \"last\"\nline"],
        })
    );
}

#[test]
fn the_history_is_read_back_as_it_was_written() {
    for written in [record(), record_of(Cause::new(Code::ModelGated, "no")), record_of(told())] {
        assert_read_back(Record::Incident(Box::new(written)));
    }
}

#[test]
fn every_code_is_read_back_with_its_class() {
    for code in Code::all() {
        assert_read_back(Record::Incident(Box::new(record_of(Cause::new(code, "why")))));
    }
}

#[test]
fn fields_of_a_later_version_do_not_hide_an_entry() {
    let mut line = crate::wire::incident(&record());
    line["since_version_2"] = json!(true);
    assert_eq!(JsonLines.read_record(&line.to_string()), Some(entry()));
}

/// Of a cause that vLLM's log tells.
pub(super) fn told() -> Cause {
    let line = TellingLine::new(12, "ValueError: too long");
    let log = Some("/state/logs/vllm-2.log".into());
    let cause = Cause::new(Code::KvCacheTooSmall, "the KV cache holds 512 tokens");
    let mut cause = cause.with_remedy("set --max-model-len 512").with_line(line).with_log(log);
    cause.retry = RetryClass::Transient;
    cause.with_source(Cause::new(Code::EngineDied, "it died"))
}

fn exits() -> Vec<ProcessExit> {
    vec![
        ProcessExit::new(7, Role::Worker, Exit::Signal(11)),
        ProcessExit::new(5, Role::EngineCore, Exit::Code(1)),
        ProcessExit::new(3, Role::ApiServer, Exit::Unknown),
    ]
}

#[test]
fn an_incident_tells_all_that_is_known_of_its_cause() {
    let mut incident = record_of(told());
    incident.restart_after = Some(Duration::from_secs(4));
    incident.exits = exits();
    incident.kernel = Some(vec!["python3[7]: segfault at 0".to_owned()]);
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
                "source": {
                    "code": "VLM-016", "summary": "it died",
                    "remedy": Code::EngineDied.remedy(), "class": "transient",
                    "line_number": null, "line": null, "log": null,
                },
                "healthy_for_ms": null, "restart_after_ms": 4_000,
                "exits": [
                    { "pid": 7, "process": "worker", "exit_code": null, "signal": 11 },
                    { "pid": 5, "process": "engine_core", "exit_code": 1, "signal": null },
                    { "pid": 3, "process": "api_server", "exit_code": null, "signal": null },
                ],
                "kernel": ["python3[7]: segfault at 0"],
            },
        }),
    );
}

#[test]
fn an_incident_of_a_code_that_is_not_known_yet_is_told_all_the_same() {
    let line = crate::wire::incident(&record()).to_string().replace("VLM-016", "VLM-098");
    let Some(Record::Incident(read)) = JsonLines.read_record(&line) else { panic!("{line}") };
    assert_eq!(read.cause.code, Code::Unrecognised, "only a later version knows VLM-098");
    assert_eq!(read.cause.summary, "VLM-098: the engine died by SIGSEGV");
}

#[test]
fn an_entry_of_a_version_that_told_less_is_read() {
    let line = r#"{"at":"2026-11-23T07:00:00.123Z","incarnation":2,"model":"org/model",
        "code":"VLM-016","summary":"the engine died by SIGSEGV","healthy_for_ms":61001,
        "restart_after_ms":2000,"last_lines":["a line","the \"last\"\nline"]}"#;
    assert_eq!(JsonLines.read_record(line), Some(entry()));
}

#[test]
fn whoever_has_ended_is_read_back() {
    let mut incident = record();
    incident.exits = Role::ALL.map(|role| ProcessExit::new(7, role, Exit::Signal(11))).to_vec();
    incident.exits.extend(exits());
    incident.kernel = Some(Vec::new());
    assert_read_back(Record::Incident(Box::new(incident)));
}

#[test]
fn an_end_of_a_process_that_is_not_known_yet_does_not_hide_an_entry() {
    let mut line = crate::wire::incident(&record());
    line["exits"] = json!([{ "pid": 7, "process": "oracle", "exit_code": 1, "signal": null }]);
    let Some(Record::Incident(read)) = JsonLines.read_record(&line.to_string()) else {
        panic!("{line}")
    };
    assert_eq!(read.cause, record().cause);
}

pub(super) fn recovery() -> Recovery {
    let [now, first] = [2, 1].map(Incarnation::new);
    Recovery::new(morning(), now, first, Duration::from_millis(4_600), 3)
}

#[test]
fn a_recovery_is_told_and_read_back() {
    assert_event(
        ServiceRecovered { recovery: recovery() },
        json!({
            "type": "service_recovered", "first_incarnation": 1, "downtime_ms": 4_600, "incidents": 3,
        }),
    );
    assert_read_back(Record::Recovery(recovery()));
}
