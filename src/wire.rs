//! How events, the status and the history are written in JSON: a contract.
//!
//! The names are the same in `vllmd --output json`, in the journal, and wherever else JSON leaves
//! this program. A name is never changed, and a field is only added. Times are RFC 3339 in UTC
//! with milliseconds; durations say their unit.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;
use vllm_supervisor_actors::domain::event::{Event, EventKind, OrphanOutcome};
use vllm_supervisor_actors::domain::incident::Incident;
use vllm_supervisor_actors::domain::loading::ModelLoadProgress;
use vllm_supervisor_actors::root::{LaunchKind, Snapshot};

use crate::subscription::Notice;

mod causes;
mod gpus;
mod journal;
mod phases;
mod units;

use causes::{CauseBody, ErrorBody, HistoryBody, IncidentBody, IncidentLine, RecoveryLine};
use gpus::{FindingBody, GpuBody};
pub(crate) use journal::JsonLines;
use phases::{PhaseBody, phases};
use units::UnitBody;

/// What a subscriber is told, as one JSON object.
pub fn notice(notice: &Notice) -> Value {
    match notice {
        Notice::Event(happened) => event(happened),
        Notice::Gap { missed } => into_value(&GapLine { kind: "gap", missed: *missed }),
    }
}

/// An event, as one JSON object.
pub fn event(event: &Event) -> Value {
    into_value(&EventLine::from(event))
}

/// What a subscriber is told, as a line of JSON with its fields in the order of the contract. In a
/// [`Value`] they are in that of the alphabet, unless the program chooses otherwise.
#[cfg(feature = "cli")]
pub(crate) fn notice_line(notice: &Notice) -> String {
    match notice {
        Notice::Event(happened) => into_line(&EventLine::from(&**happened)),
        Notice::Gap { missed } => into_line(&GapLine { kind: "gap", missed: *missed }),
    }
}

/// The present, as one JSON object.
pub fn status(snapshot: &Snapshot, base_url: &str) -> Value {
    into_value(&StatusBody::new(snapshot, base_url))
}

/// An end that nobody asked for, as one JSON object.
pub fn incident(incident: &Incident) -> Value {
    into_value(&HistoryBody::from(incident))
}

fn into_value(body: &impl Serialize) -> Value {
    // Plain structs of strings and numbers always have a JSON form.
    serde_json::to_value(body).unwrap_or(Value::Null)
}

fn into_line(body: &impl Serialize) -> String {
    serde_json::to_string(body).unwrap_or_default()
}

fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Fractions of a millisecond tell a check on loopback from another.
fn fine_millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[derive(Serialize)]
struct GapLine {
    #[serde(rename = "type")]
    kind: &'static str,
    missed: u64,
}

#[derive(Serialize)]
struct EventLine<'a> {
    seq: u64,
    at: String,
    incarnation: u64,
    #[serde(flatten)]
    kind: KindBody<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum KindBody<'a> {
    StateChanged {
        from: &'static str,
        to: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<CauseBody<'a>>,
    },
    LoadProgressed {
        progress: ProgressBody<'a>,
    },
    LaunchTimed {
        launch: &'static str,
        duration_ms: u64,
        phases: Vec<PhaseBody>,
    },
    LaunchDistrusted {
        instead: &'static str,
    },
    IncidentRecorded {
        incident: IncidentBody<'a>,
    },
    ServiceRecovered {
        first_incarnation: u64,
        downtime_ms: u64,
        incidents: u32,
    },
    RestartScheduled {
        attempt: u32,
        delay_ms: u64,
        restarts_in_window: u32,
    },
    HealthChanged {
        healthy: bool,
        consecutive_failures: u32,
        latency_ms: Option<f64>,
    },
    ModelSwitched(SwitchBody<'a>),
    ModelWanted(SwitchBody<'a>),
    CleanupBlocked {
        cause: CauseBody<'a>,
    },
    StateExplained {
        cause: CauseBody<'a>,
    },
    GpuFindingRaised {
        finding: FindingBody<'a>,
    },
    GpuFindingCleared {
        finding: FindingBody<'a>,
    },
    SupervisorEnded {
        reason: &'static str,
    },
    Orphaned {
        pid: Option<u32>,
        outcome: &'static str,
        left: Option<&'a str>,
    },
    Other {},
}

impl<'a> From<&'a Event> for EventLine<'a> {
    fn from(event: &'a Event) -> Self {
        let kind = match &event.kind {
            EventKind::StateChanged { from, to, cause } => KindBody::StateChanged {
                from: from.as_str(),
                to: to.as_str(),
                cause: cause.as_ref().map(CauseBody::from),
            },
            EventKind::LoadProgressed { progress } => {
                KindBody::LoadProgressed { progress: progress.into() }
            }
            EventKind::LaunchTimed { launch, phases: parts } => KindBody::LaunchTimed {
                launch: launch.as_str(),
                duration_ms: millis(parts.total()),
                phases: phases(parts),
            },
            EventKind::LaunchDistrusted { instead } => {
                KindBody::LaunchDistrusted { instead: instead.as_str() }
            }
            EventKind::IncidentRecorded { incident } => {
                KindBody::IncidentRecorded { incident: (&**incident).into() }
            }
            EventKind::ServiceRecovered { recovery } => KindBody::ServiceRecovered {
                first_incarnation: recovery.first.get(),
                downtime_ms: millis(recovery.downtime),
                incidents: recovery.incidents,
            },
            EventKind::RestartScheduled { attempt, delay, restarts_in_window } => {
                KindBody::RestartScheduled {
                    attempt: *attempt,
                    delay_ms: millis(*delay),
                    restarts_in_window: *restarts_in_window,
                }
            }
            EventKind::HealthChanged { healthy, consecutive_failures, latency } => {
                KindBody::HealthChanged {
                    healthy: *healthy,
                    consecutive_failures: *consecutive_failures,
                    latency_ms: latency.map(fine_millis),
                }
            }
            other => KindBody::of_other(other),
        };
        Self {
            seq: event.sequence.get(),
            at: timestamp(event.at),
            incarnation: event.incarnation.get(),
            kind,
        }
    }
}

impl<'a> KindBody<'a> {
    #[warn(
        clippy::wildcard_enum_match_arm,
        reason = "a kind that is forgotten has no name in JSON"
    )]
    fn of_other(kind: &'a EventKind) -> Self {
        match kind {
            EventKind::ModelSwitched { from, to, extra_args } => {
                let (from, to, extra_args) = (from.as_str(), to.as_str(), extra_args.as_deref());
                Self::ModelSwitched(SwitchBody { from, to, extra_args })
            }
            EventKind::ModelWanted { from, to, extra_args } => {
                let (from, to, extra_args) = (from.as_str(), to.as_str(), extra_args.as_deref());
                Self::ModelWanted(SwitchBody { from, to, extra_args })
            }
            EventKind::CleanupBlocked { cause } => Self::CleanupBlocked { cause: cause.into() },
            EventKind::StateExplained { cause } => Self::StateExplained { cause: cause.into() },
            EventKind::GpuFindingRaised { finding } => {
                Self::GpuFindingRaised { finding: (&**finding).into() }
            }
            EventKind::GpuFindingCleared { finding } => {
                Self::GpuFindingCleared { finding: (&**finding).into() }
            }
            EventKind::SupervisorEnded { reason } => {
                Self::SupervisorEnded { reason: reason.as_str() }
            }
            EventKind::Orphaned { pid, outcome, left } => {
                Self::Orphaned { pid: *pid, outcome: outcome_name(*outcome), left: left.as_deref() }
            }
            // Those that are written by their line; and both crates are of one version.
            EventKind::StateChanged { .. }
            | EventKind::LoadProgressed { .. }
            | EventKind::LaunchTimed { .. }
            | EventKind::LaunchDistrusted { .. }
            | EventKind::ServiceRecovered { .. }
            | EventKind::IncidentRecorded { .. }
            | EventKind::RestartScheduled { .. }
            | EventKind::HealthChanged { .. }
            | _ => Self::Other {},
        }
    }
}

#[derive(Serialize)]
struct ProgressBody<'a> {
    model_id: &'a str,
    progress_percent: u8,
    bytes_downloaded: u64,
    total_bytes: Option<u64>,
    status: &'static str,
    is_progress_known: bool,
    /// Absent where nothing is known to tell it from.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_left_ms: Option<u64>,
    started_at: String,
    completed_at: Option<String>,
}

impl<'a> From<&'a ModelLoadProgress> for ProgressBody<'a> {
    fn from(progress: &'a ModelLoadProgress) -> Self {
        Self {
            model_id: progress.model.as_str(),
            progress_percent: progress.percent,
            bytes_downloaded: progress.bytes_downloaded,
            total_bytes: progress.total_bytes,
            status: progress.status.as_str(),
            is_progress_known: progress.is_progress_known,
            time_left_ms: progress.time_left.map(millis),
            started_at: timestamp(progress.started_at),
            completed_at: progress.completed_at.map(timestamp),
        }
    }
}

fn outcome_name(outcome: OrphanOutcome) -> &'static str {
    match outcome {
        OrphanOutcome::Killed => "killed",
        OrphanOutcome::Kept => "kept",
    }
}

/// From what to what is switched.
#[derive(Serialize)]
struct SwitchBody<'a> {
    from: &'a str,
    to: &'a str,
    /// Absent where vLLM is told what is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_args: Option<&'a [String]>,
}

#[derive(Serialize)]
struct StatusBody<'a> {
    state: &'static str,
    mode: &'static str,
    model: &'a str,
    /// Of a switch; absent where it is as configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_args: Option<&'a [String]>,
    /// By which requests ask for it: `null` unless running.
    served_model_name: Option<&'a str>,
    pid: Option<u32>,
    incarnation: u64,
    uptime_seconds: Option<u64>,
    base_url: &'a str,
    launch: Option<&'static str>,
    phases: Option<Vec<PhaseBody>>,
    last_health_check: Option<HealthBody<'a>>,
    restarts: RestartsBody,
    gpus: Vec<GpuBody<'a>>,
    gpu_findings: Vec<FindingBody<'a>>,
    last_error: Option<ErrorBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<ErrorBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<UnitBody<'a>>,
}

impl<'a> StatusBody<'a> {
    fn new(snapshot: &'a Snapshot, base_url: &'a str) -> Self {
        // A clock that was set back since makes it zero.
        let uptime = |since: SystemTime| since.elapsed().unwrap_or_default().as_secs();
        Self {
            state: snapshot.state.as_str(),
            mode: snapshot.mode.as_str(),
            model: snapshot.model.as_str(),
            extra_args: snapshot.extra_args.as_deref(),
            served_model_name: snapshot.listed_models.first().map(String::as_str),
            pid: snapshot.pid,
            incarnation: snapshot.incarnation.get(),
            uptime_seconds: snapshot.running_since.map(uptime),
            base_url,
            launch: snapshot.launch.map(LaunchKind::as_str),
            phases: snapshot.phases.as_ref().map(phases),
            last_health_check: snapshot.last_health_check.as_ref().map(|note| HealthBody {
                at: timestamp(note.at),
                healthy: note.error.is_none(),
                latency_ms: note.latency.map(fine_millis),
                error: note.error.as_deref(),
            }),
            restarts: RestartsBody {
                in_window: snapshot.restarts.in_window,
                cap: snapshot.restarts.cap,
                window_seconds: snapshot.restarts.window.as_secs(),
                reset_at: snapshot.restarts.reset_at.map(timestamp),
                total: snapshot.restarts.total,
            },
            gpus: snapshot.gpus.gpus().iter().map(GpuBody::from).collect(),
            gpu_findings: snapshot.gpu_findings.iter().map(FindingBody::from).collect(),
            last_error: snapshot.last_error.as_ref().map(ErrorBody::from),
            blocked: snapshot.blocked.as_ref().map(ErrorBody::from),
            unit: snapshot.unit.as_ref().map(UnitBody::from),
        }
    }
}

#[derive(Serialize)]
struct HealthBody<'a> {
    at: String,
    healthy: bool,
    latency_ms: Option<f64>,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct RestartsBody {
    in_window: u32,
    cap: u32,
    window_seconds: u64,
    reset_at: Option<String>,
    total: u64,
}

#[cfg(test)]
mod tests;
