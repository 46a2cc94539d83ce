//! The journal's lines, in the same JSON as everything else.

use std::time::Duration;

use serde_json::json;
use vllm_supervisor_actors::adapters::journal::JournalCodec;
use vllm_supervisor_actors::domain::cause::Cause;
use vllm_supervisor_actors::domain::event::Event;
use vllm_supervisor_actors::domain::id::{Incarnation, Sequence};
use vllm_supervisor_actors::domain::input::RestartRecord;
use vllm_supervisor_actors::domain::spec::ModelId;
use vllm_supervisor_actors::ports::{CustodyEnded, Fate};

use super::{Numbers, RestartLine, code, timestamp};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonLines;

impl JournalCodec for JsonLines {
    fn event(&self, event: &Event) -> String {
        super::event(event).to_string()
    }

    fn restart(&self, record: &RestartRecord) -> String {
        super::restart(record).to_string()
    }

    fn custody_ended(&self, ended: &CustodyEnded) -> String {
        let fate = match ended.fate {
            Fate::Killed => "killed",
            Fate::Kept => "kept",
        };
        json!({
            "at": timestamp(ended.at),
            "incarnation": ended.incarnation.get(),
            "type": "custody_ended",
            "pid": ended.pid,
            "fate": fate,
            "left": ended.left.as_ref().map(ToString::to_string),
        })
        .to_string()
    }

    fn numbers(&self, line: &str) -> Option<(Sequence, Incarnation)> {
        Numbers::read(line)
    }

    fn read_restart(&self, line: &str) -> Option<RestartRecord> {
        let line: RestartLine = serde_json::from_str(line).ok()?;
        Some(RestartRecord {
            at: humantime::parse_rfc3339(&line.at).ok()?,
            incarnation: Incarnation::new(line.incarnation),
            model: ModelId::new(line.model).ok()?,
            cause: Cause::new(code(&line.code)?, line.summary).with_last_lines(line.last_lines),
            healthy_for: line.healthy_for_ms.map(Duration::from_millis),
            restart_after: line.restart_after_ms.map(Duration::from_millis),
        })
    }
}
