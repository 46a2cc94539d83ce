//! Every name of the contract, spelled out: a change here is a change for everyone who reads us.

use serde_json::json;
use vllm_supervisor_actors::adapters::journal::JournalCodec;
use vllm_supervisor_actors::domain::cause::{Cause, Code};
use vllm_supervisor_actors::domain::event::EndReason;
use vllm_supervisor_actors::domain::event::EventKind::{
    self, CleanupBlocked, GpuFindingCleared, GpuFindingRaised, HealthChanged, IncidentRecorded,
    LaunchDistrusted, LaunchTimed, LoadProgressed, ModelSwitched, ModelWanted, Orphaned,
    RestartScheduled, ServiceRecovered, StateChanged, SupervisorEnded,
};
use vllm_supervisor_actors::domain::gpu::FindingKind;
use vllm_supervisor_actors::domain::id::{Incarnation, Sequence};
use vllm_supervisor_actors::domain::incident::Record;
use vllm_supervisor_actors::domain::loading::LoadStatus;
use vllm_supervisor_actors::domain::phases::{LaunchPhase, Phases};
use vllm_supervisor_actors::domain::spec::ModelId;
use vllm_supervisor_actors::domain::state::ServiceState;
use vllm_supervisor_actors::domain::trust::LaunchMethod;
use vllm_supervisor_actors::root::{GpuView, HealthNote};

use super::*;

mod gpus;
mod incidents;
mod rubbish;
mod statuses;

use gpus::{finding, on_gpus};
use incidents::{entry, record_of, recovery, told};

/// 2026-11-23, 07:00:00.123 UTC.
fn morning() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_417_200_123)
}

fn model(id: &str) -> ModelId {
    ModelId::new(id).unwrap()
}

fn crash() -> Cause {
    Cause::new(Code::EngineDied, "the engine died by SIGSEGV")
        .with_last_lines(vec!["a line".to_owned(), "the \"last\"\nline".to_owned()])
}

fn seventh(kind: EventKind) -> Event {
    Event::new(Sequence::new(7), morning(), Incarnation::new(2), kind)
}

/// What every event has, and `kind`.
#[track_caller]
fn assert_event(kind: EventKind, expected: Value) {
    let mut whole = json!({ "seq": 7, "at": "2026-11-23T07:00:00.123Z", "incarnation": 2 });
    let Value::Object(fields) = expected else { panic!("an event is an object") };
    whole.as_object_mut().unwrap().extend(fields);
    assert_eq!(event(&seventh(kind)), whole);
}

#[test]
fn a_change_of_state_tells_its_cause_but_for_the_last_lines() {
    let (from, to) = (ServiceState::Running, ServiceState::Crashed);
    assert_event(
        StateChanged { from, to, cause: Some(crash()) },
        json!({
            "type": "state_changed", "from": "running", "to": "crashed",
            "cause": {
                "code": "VLM-016", "summary": "the engine died by SIGSEGV",
                "remedy": Code::EngineDied.remedy(), "class": "transient",
                "line_number": null, "line": null, "log": null,
            },
        }),
    );
}

#[test]
fn a_change_of_state_without_a_cause_has_no_such_field() {
    assert_event(
        StateChanged { from: ServiceState::Stopped, to: ServiceState::Starting, cause: None },
        json!({ "type": "state_changed", "from": "stopped", "to": "starting" }),
    );
}

#[test]
fn every_state_is_written_in_lower_case() {
    for state in ServiceState::ALL {
        let name = format!("{state:?}").to_lowercase();
        assert_event(
            StateChanged { from: state, to: state, cause: None },
            json!({ "type": "state_changed", "from": name, "to": name }),
        );
    }
}

#[test]
fn progress_of_a_download_counts_bytes() {
    let progress = ModelLoadProgress::downloading(model("org/model"), 512, Some(2048), morning());
    assert_event(
        LoadProgressed { progress },
        json!({
            "type": "load_progressed",
            "progress": {
                "model_id": "org/model", "progress_percent": 25, "bytes_downloaded": 512,
                "total_bytes": 2048, "status": "downloading", "is_progress_known": true,
                "started_at": "2026-11-23T07:00:00.123Z", "completed_at": null,
            },
        }),
    );
}

#[test]
fn how_long_a_load_still_takes_is_told_where_it_is_known() {
    let mut progress = ModelLoadProgress::loading(model("org/model"), 40, morning());
    progress.time_left = Some(Duration::from_millis(12_345));
    assert_event(
        LoadProgressed { progress },
        json!({
            "type": "load_progressed",
            "progress": {
                "model_id": "org/model", "progress_percent": 40, "bytes_downloaded": 0,
                "total_bytes": null, "status": "loading", "is_progress_known": false,
                "time_left_ms": 12345, "started_at": "2026-11-23T07:00:00.123Z",
                "completed_at": null,
            },
        }),
    );
}

#[test]
fn progress_of_a_finished_load_says_when_it_finished() {
    let progress = ModelLoadProgress::loading(model("org/model"), 40, morning())
        .complete(morning() + Duration::from_millis(7_877));
    assert_event(
        LoadProgressed { progress },
        json!({
            "type": "load_progressed",
            "progress": {
                "model_id": "org/model", "progress_percent": 100, "bytes_downloaded": 0,
                "total_bytes": null, "status": "loaded", "is_progress_known": true,
                "started_at": "2026-11-23T07:00:00.123Z",
                "completed_at": "2026-11-23T07:00:08.000Z",
            },
        }),
    );
}

#[test]
fn every_status_of_a_load_has_its_name() {
    use LoadStatus::{Capturing, Compiling, Downloading, Failed, Loaded, Loading, Warming};
    let all = [Downloading, Loading, Compiling, Capturing, Warming, Loaded, Failed];
    let names = ["downloading", "loading", "compiling", "capturing", "warming", "loaded", "failed"];
    assert_eq!(all.map(LoadStatus::as_str), names);
}

fn phases() -> Phases {
    let load = LaunchPhase::Load(LoadStatus::Compiling);
    let parts = [LaunchPhase::Preparing, LaunchPhase::Importing, load, LaunchPhase::Answering];
    parts.into_iter().zip((1..).map(Duration::from_millis)).collect()
}

#[test]
fn a_launch_tells_its_parts_in_their_order() {
    let part = |phase, duration_ms| json!({ "phase": phase, "duration_ms": duration_ms });
    assert_event(
        LaunchTimed { launch: LaunchKind::Warm, phases: phases() },
        json!({
            "type": "launch_timed", "launch": "warm", "duration_ms": 10,
            "phases": [
                part("preparing", 1), part("importing", 2), part("compiling", 3),
                part("answering", 4),
            ],
        }),
    );
}

#[test]
fn a_distrust_tells_how_it_is_launched_instead() {
    assert_event(
        LaunchDistrusted { instead: LaunchMethod::Cold },
        json!({ "type": "launch_distrusted", "instead": "cold" }),
    );
}

#[test]
fn a_scheduled_restart_tells_its_delay_in_whole_milliseconds() {
    let delay = Duration::from_micros(4_000_900);
    assert_event(
        RestartScheduled { attempt: 2, delay, restarts_in_window: 3 },
        json!({
            "type": "restart_scheduled", "attempt": 2, "delay_ms": 4000, "restarts_in_window": 3,
        }),
    );
}

#[test]
fn a_passed_check_tells_its_latency_to_the_microsecond() {
    let latency = Some(Duration::from_nanos(1_234_567));
    assert_event(
        HealthChanged { healthy: true, consecutive_failures: 0, latency },
        json!({
            "type": "health_changed", "healthy": true, "consecutive_failures": 0,
            "latency_ms": 1.235,
        }),
    );
}

#[test]
fn a_failed_check_has_no_latency() {
    assert_event(
        HealthChanged { healthy: false, consecutive_failures: 3, latency: None },
        json!({
            "type": "health_changed", "healthy": false, "consecutive_failures": 3,
            "latency_ms": null,
        }),
    );
}

#[test]
fn a_switch_tells_both_models() {
    assert_event(
        ModelSwitched { from: model("org/old"), to: model("/models/new"), extra_args: None },
        json!({ "type": "model_switched", "from": "org/old", "to": "/models/new" }),
    );
    let extra_args = Some(vec!["--seed=1".to_owned()]);
    assert_event(
        ModelWanted { from: model("org/a"), to: model("org/a"), extra_args },
        json!({
            "type": "model_wanted", "from": "org/a", "to": "org/a", "extra_args": ["--seed=1"],
        }),
    );
}

#[test]
fn a_gap_tells_how_many_events_were_missed() {
    let gap = Notice::Gap { missed: 12 };
    assert_eq!(notice(&gap), json!({ "type": "gap", "missed": 12 }));
}

#[test]
fn a_notice_of_an_event_is_the_event() {
    let happened = seventh(HealthChanged { healthy: true, consecutive_failures: 0, latency: None });
    assert_eq!(notice(&Notice::Event(happened.clone().into())), event(&happened));
}

fn lines() -> [String; 4] {
    let (from, to) = (ServiceState::Running, ServiceState::Crashed);
    let changed = seventh(StateChanged { from, to, cause: Some(crash()) });
    let ended = seventh(Orphaned { pid: Some(42), outcome: OrphanOutcome::Kept, left: None });
    let gap = JsonLines.gap(Some(Sequence::new(6)), morning(), 2);
    [JsonLines.event(&changed), JsonLines.record(&entry()), JsonLines.event(&ended), gap]
}

#[test]
fn whatever_is_written_stays_on_one_line() {
    for line in lines() {
        assert!(!line.contains(['\n', '\r']), "{line}");
    }
}

#[test]
fn the_fields_of_a_line_stand_in_the_order_of_the_contract() {
    let [changed, restarted, ended, gap] = lines();
    let time = "\"at\":\"2026-11-23T07:00:00.123Z\",\"incarnation\":2";
    for (line, start) in [
        (&changed, format!("{{\"seq\":7,{time},\"type\":\"state_changed\",\"from\":")),
        (&restarted, format!("{{{time},\"model\":")),
        (&ended, format!("{{\"seq\":7,{time},\"type\":\"orphaned\",\"pid\":")),
        (&gap, "{\"seq\":6,\"at\":\"2026-11-23T07:00:00.123Z\",\"type\":\"gap\"".to_owned()),
    ] {
        assert!(line.starts_with(&start), "{line}");
    }
}

#[test]
#[cfg(feature = "cli")]
fn what_is_printed_is_what_the_journal_has() {
    let happened = seventh(HealthChanged { healthy: true, consecutive_failures: 0, latency: None });
    let line = notice_line(&Notice::Event(happened.clone().into()));
    assert_eq!(line, JsonLines.event(&happened));
    assert_eq!(notice_line(&Notice::Gap { missed: 12 }), r#"{"type":"gap","missed":12}"#);
}

#[test]
fn a_line_that_was_torn_anywhere_means_nothing() {
    for line in lines() {
        for end in (0..line.len()).filter(|end| line.is_char_boundary(*end)) {
            let torn = &line[..end];
            assert_eq!(JsonLines.numbers(torn), None, "{torn}");
            assert_eq!(JsonLines.read_event(torn), None, "{torn}");
            assert_eq!(JsonLines.read_record(torn), None, "{torn}");
        }
    }
}

#[test]
fn only_the_line_of_an_event_has_numbers() {
    let [changed, restarted, ended, gap] = lines();
    let numbers = Some((Sequence::new(7), Incarnation::new(2)));
    assert_eq!(JsonLines.numbers(&changed), numbers);
    assert_eq!(JsonLines.numbers(&ended), numbers);
    assert_eq!(JsonLines.numbers(&restarted), None);
    assert_eq!(JsonLines.numbers(&gap), None);
}

#[test]
fn an_orphaned_vllm_says_what_became_of_the_process() {
    for (outcome, name) in [(OrphanOutcome::Kept, "kept"), (OrphanOutcome::Killed, "killed")] {
        assert_event(
            Orphaned { pid: Some(42), outcome, left: None },
            json!({ "type": "orphaned", "pid": 42, "outcome": name, "left": null }),
        );
    }
}

#[test]
fn a_gap_in_the_journal_says_how_many_are_missing_and_up_to_where() {
    let gap =
        |through| -> Value { serde_json::from_str(&JsonLines.gap(through, morning(), 3)).unwrap() };
    let at = "2026-11-23T07:00:00.123Z";
    let of_events = json!({ "seq": 9, "at": at, "type": "gap", "missed": 3 });
    assert_eq!(gap(Some(Sequence::new(9))), of_events);
    assert_eq!(gap(None), json!({ "at": at, "type": "gap", "missed": 3 }));
}

/// Of every kind, and with whatever it may lack.
fn every_event() -> Vec<Event> {
    let (from, to) = (ServiceState::Running, ServiceState::Crashed);
    let without_lines = Cause::new(Code::EngineDied, "the engine died by SIGSEGV");
    let mut progress = ModelLoadProgress::loading(model("org/model"), 40, morning());
    progress.time_left = Some(Duration::from_millis(1234));
    let kinds = [
        StateChanged { from, to, cause: Some(without_lines) },
        StateChanged { from: ServiceState::Stopped, to: ServiceState::Starting, cause: None },
        LoadProgressed { progress: progress.clone() },
        LoadProgressed { progress: progress.complete(morning()) },
        LaunchTimed { launch: LaunchKind::Warm, phases: phases() },
        LaunchDistrusted { instead: LaunchMethod::Front },
        IncidentRecorded { incident: Box::new(record_of(told())) },
        IncidentRecorded { incident: Box::new(on_gpus(record_of(told()))) },
        RestartScheduled { attempt: 2, delay: Duration::from_secs(4), restarts_in_window: 3 },
        HealthChanged {
            healthy: true,
            consecutive_failures: 0,
            latency: Some(Duration::from_micros(1_235)),
        },
        HealthChanged { healthy: false, consecutive_failures: 3, latency: None },
        ModelSwitched { from: model("org/old"), to: model("/models/new"), extra_args: None },
        ModelWanted { from: model("org/a"), to: model("org/a"), extra_args: Some(Vec::new()) },
        CleanupBlocked { cause: Cause::new(Code::Unrecognised, "process 7 outlives SIGKILL") },
        EventKind::StateExplained { cause: Cause::new(Code::Unrecognised, "nobody answers") },
        GpuFindingRaised { finding: Box::new(finding(FindingKind::Xid(79))) },
        GpuFindingCleared { finding: Box::new(finding(FindingKind::ThermalSlowdown)) },
        ServiceRecovered { recovery: recovery() },
        SupervisorEnded { reason: EndReason::ShutDown },
        SupervisorEnded { reason: EndReason::ActorsDied },
        SupervisorEnded { reason: EndReason::Killed },
        Orphaned {
            pid: None,
            outcome: OrphanOutcome::Killed,
            left: Some("process 7 (x) left".to_owned()),
        },
    ];
    kinds.map(seventh).to_vec()
}

fn every_line() -> Vec<String> {
    let events = every_event().into_iter().map(|event| JsonLines.event(&event));
    let records = [entry(), Record::Incident(Box::new(on_gpus(record_of(told()))))];
    let records = records.into_iter().chain([Record::Recovery(recovery())]);
    events.chain(records.map(|record| JsonLines.record(&record))).collect()
}

#[test]
fn every_event_is_read_back_as_it_was_written() {
    for written in every_event() {
        let line = JsonLines.event(&written);
        assert_eq!(JsonLines.read_event(&line), Some(written), "{line}");
    }
}

#[test]
fn an_event_of_a_later_version_is_not_told_as_another() {
    let mut line = event(&seventh(Orphaned {
        pid: None,
        outcome: OrphanOutcome::Killed,
        left: Some("process 7 (x) left".to_owned()),
    }));
    line["type"] = json!("since_version_2");
    assert_eq!(JsonLines.read_event(&line.to_string()), None);
    assert!(JsonLines.numbers(&line.to_string()).is_some());
}
