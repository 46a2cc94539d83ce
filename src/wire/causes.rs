//! How failures are written: what is known of a cause, and the record of an end that nobody asked for.

use std::borrow::Cow;
use std::path::Path;

use serde::Serialize;
use vllm_supervisor_actors::domain::cause::Cause;
use vllm_supervisor_actors::domain::incident::Incident;

use super::gpus::GpuBody;
use super::{millis, timestamp};

/// A cause within an event.
#[derive(Serialize)]
pub(super) struct CauseBody<'a> {
    code: String,
    summary: &'a str,
}

impl<'a> From<&'a Cause> for CauseBody<'a> {
    fn from(cause: &'a Cause) -> Self {
        Self { code: cause.code.to_string(), summary: &cause.summary }
    }
}

/// Everything about a cause, but for the last lines of the log.
#[derive(Serialize)]
struct WholeCause<'a> {
    code: String,
    summary: &'a str,
    remedy: &'a str,
    class: &'static str,
    line_number: Option<u64>,
    line: Option<&'a str>,
    log: Option<Cow<'a, str>>,
    /// What led to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<CauseBody<'a>>,
}

impl<'a> From<&'a Cause> for WholeCause<'a> {
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
            source: cause.source().map(CauseBody::from),
        }
    }
}

/// A cause in the status.
#[derive(Serialize)]
pub(super) struct ErrorBody<'a> {
    #[serde(flatten)]
    cause: WholeCause<'a>,
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
    cause: WholeCause<'a>,
    healthy_for_ms: Option<u64>,
    restart_after_ms: Option<u64>,
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
            gpus: incident.gpus.iter().map(GpuBody::from).collect(),
        }
    }
}

/// One entry of the history.
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
