//! How failures are written: what is known of a cause, and the record of an end that nobody asked for.

use std::borrow::Cow;
use std::path::Path;

use serde::Serialize;
use vllm_supervisor_actors::domain::cause::Cause;
use vllm_supervisor_actors::domain::diagnosis::Exit;
use vllm_supervisor_actors::domain::incident::{Incident, ProcessExit, Recovery};

use super::gpus::GpuBody;
use super::{millis, timestamp};

/// Everything about a cause, but for the last lines of the log.
#[derive(Serialize)]
pub(super) struct CauseBody<'a> {
    code: String,
    summary: &'a str,
    remedy: &'a str,
    class: &'static str,
    line_number: Option<u64>,
    line: Option<&'a str>,
    log: Option<Cow<'a, str>>,
    /// What led to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Box<CauseBody<'a>>>,
}

impl<'a> From<&'a Cause> for CauseBody<'a> {
    fn from(cause: &'a Cause) -> Self {
        Self {
            code: cause.code.to_string(),
            summary: &cause.summary,
            remedy: cause.remedy(),
            class: cause.retry.as_str(),
            line_number: cause.line().map(|line| line.number),
            line: cause.line().map(|line| line.text.as_str()),
            // JSON is text, and a path need not be.
            log: cause.log().map(Path::to_string_lossy),
            source: cause.source().map(|source| Box::new(source.into())),
        }
    }
}

/// A cause in the status.
#[derive(Serialize)]
pub(super) struct ErrorBody<'a> {
    #[serde(flatten)]
    cause: CauseBody<'a>,
    last_lines: &'a [String],
}

impl<'a> From<&'a Cause> for ErrorBody<'a> {
    fn from(cause: &'a Cause) -> Self {
        Self { cause: cause.into(), last_lines: &cause.last_lines }
    }
}

/// An incident within an event.
#[derive(Serialize)]
pub(super) struct IncidentBody<'a> {
    at: String,
    incarnation: u64,
    model: &'a str,
    #[serde(flatten)]
    cause: CauseBody<'a>,
    healthy_for_ms: Option<u64>,
    restart_after_ms: Option<u64>,
    exits: Vec<ExitBody>,
    /// Null where its log cannot be read.
    kernel: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gpus: Vec<GpuBody<'a>>,
}

impl<'a> From<&'a Incident> for IncidentBody<'a> {
    fn from(incident: &'a Incident) -> Self {
        Self {
            at: timestamp(incident.at),
            incarnation: incident.incarnation.get(),
            model: incident.model.as_str(),
            cause: (&incident.cause).into(),
            healthy_for_ms: incident.healthy_for.map(millis),
            restart_after_ms: incident.restart_after.map(millis),
            exits: incident.exits.iter().map(ExitBody::from).collect(),
            kernel: incident.kernel.as_deref(),
            gpus: incident.gpus.iter().map(GpuBody::from).collect(),
        }
    }
}

/// How a process ended; with neither number, nobody can say.
#[derive(Serialize)]
struct ExitBody {
    pid: u32,
    process: &'static str,
    exit_code: Option<i32>,
    signal: Option<i32>,
}

impl From<&ProcessExit> for ExitBody {
    fn from(ended: &ProcessExit) -> Self {
        let (exit_code, signal) = match ended.exit {
            Exit::Code(code) => (Some(code), None),
            Exit::Signal(signal) => (None, Some(signal)),
            _ => (None, None),
        };
        Self { pid: ended.pid, process: ended.role.as_str(), exit_code, signal }
    }
}

/// One entry of the history, as it is told.
#[derive(Serialize)]
pub(super) struct HistoryBody<'a> {
    #[serde(flatten)]
    line: IncidentLine<'a>,
    recovered_after_ms: Option<u64>,
}

impl<'a> From<&'a Incident> for HistoryBody<'a> {
    fn from(incident: &'a Incident) -> Self {
        let recovered_after_ms = incident.recovered_after.map(millis);
        Self { line: incident.into(), recovered_after_ms }
    }
}

/// The same as it is kept: before anybody can know whether the service has recovered.
#[derive(Serialize)]
pub(super) struct IncidentLine<'a> {
    #[serde(flatten)]
    incident: IncidentBody<'a>,
    last_lines: &'a [String],
}

impl<'a> From<&'a Incident> for IncidentLine<'a> {
    fn from(incident: &'a Incident) -> Self {
        Self { incident: incident.into(), last_lines: &incident.cause.last_lines }
    }
}

/// The service's return, as it is kept.
#[derive(Serialize)]
pub(super) struct RecoveryLine {
    recovered_at: String,
    incarnation: u64,
    first_incarnation: u64,
    downtime_ms: u64,
    incidents: u32,
}

impl From<&Recovery> for RecoveryLine {
    fn from(recovery: &Recovery) -> Self {
        Self {
            recovered_at: timestamp(recovery.at),
            incarnation: recovery.incarnation.get(),
            first_incarnation: recovery.first.get(),
            downtime_ms: millis(recovery.downtime),
            incidents: recovery.incidents,
        }
    }
}
