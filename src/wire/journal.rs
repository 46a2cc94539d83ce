//! The journal's lines, in the same JSON as everything else, and how they are read back.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use vllm_supervisor_actors::adapters::journal::JournalCodec;
use vllm_supervisor_actors::domain::cause::{Cause, Code, RetryClass, TellingLine};
use vllm_supervisor_actors::domain::diagnosis::Exit;
use vllm_supervisor_actors::domain::event::{EndReason, Event, EventKind, OrphanOutcome};
use vllm_supervisor_actors::domain::gpu::GpuFinding;
use vllm_supervisor_actors::domain::id::{Incarnation, Sequence};
use vllm_supervisor_actors::domain::incident::{Incident, ProcessExit, Record, Recovery};
use vllm_supervisor_actors::domain::loading::{LoadStatus, ModelLoadProgress};
use vllm_supervisor_actors::domain::phases::LaunchPhase;
use vllm_supervisor_actors::domain::report::Role;
use vllm_supervisor_actors::domain::spec::ModelId;
use vllm_supervisor_actors::domain::state::ServiceState;
use vllm_supervisor_actors::domain::trust::LaunchMethod;
use vllm_supervisor_actors::root::LaunchKind;

use super::gpus::{FindingBody, GpuBody};
use super::{EventLine, IncidentLine, RecoveryLine, into_line, outcome_name, timestamp};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonLines;

#[derive(Serialize)]
struct GapLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    at: String,
    #[serde(rename = "type")]
    kind: &'static str,
    missed: u64,
}

impl JournalCodec for JsonLines {
    fn event(&self, event: &Event) -> String {
        into_line(&EventLine::from(event))
    }

    fn record(&self, record: &Record) -> String {
        match record {
            Record::Incident(incident) => into_line(&IncidentLine::from(&**incident)),
            Record::Recovery(recovery) => into_line(&RecoveryLine::from(recovery)),
        }
    }

    fn gap(&self, through: Option<Sequence>, at: SystemTime, missed: u64) -> String {
        let seq = through.map(Sequence::get);
        into_line(&GapLine { seq, at: timestamp(at), kind: "gap", missed })
    }

    fn numbers(&self, line: &str) -> Option<(Sequence, Incarnation)> {
        Numbers::read(line)
    }

    fn read_event(&self, line: &str) -> Option<Event> {
        let line: EventBody = serde_json::from_str(line).ok()?;
        let (sequence, incarnation) = (Sequence::new(line.seq), Incarnation::new(line.incarnation));
        let at = moment(&line.at)?;
        let kind = line.kind.read(at, incarnation)?;
        Some(Event::new(sequence, at, incarnation, kind))
    }

    fn read_record(&self, line: &str) -> Option<Record> {
        match serde_json::from_str(line).ok()? {
            RecordRead::Recovery(line) => Some(Record::Recovery(line.read()?)),
            RecordRead::Incident(line) => {
                let mut incident = line.incident.read(Incarnation::new(line.incarnation))?;
                incident.cause.last_lines = line.last_lines;
                Some(Record::Incident(Box::new(incident)))
            }
        }
    }
}

/// An event's line as it is read: of this version or another, so nothing is taken for granted.
#[derive(Deserialize)]
struct EventBody {
    seq: u64,
    at: String,
    incarnation: u64,
    #[serde(flatten)]
    kind: KindRead,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum KindRead {
    StateChanged { from: String, to: String, cause: Option<CauseRead> },
    LoadProgressed { progress: ProgressRead },
    LaunchTimed { launch: String, phases: Vec<PhaseRead> },
    LaunchDistrusted { instead: String },
    IncidentRecorded { incident: IncidentRead },
    ServiceRecovered { first_incarnation: u64, downtime_ms: u64, incidents: u32 },
    RestartScheduled { attempt: u32, delay_ms: u64, restarts_in_window: u32 },
    HealthChanged { healthy: bool, consecutive_failures: u32, latency_ms: Option<f64> },
    ModelSwitched(SwitchRead),
    ModelWanted(SwitchRead),
    CleanupBlocked { cause: CauseRead },
    StateExplained { cause: CauseRead },
    GpuFindingRaised { finding: FindingBody<'static> },
    GpuFindingCleared { finding: FindingBody<'static> },
    SupervisorEnded { reason: String },
    Orphaned { pid: Option<u32>, outcome: String, left: Option<String> },
}

#[derive(Deserialize)]
struct PhaseRead {
    phase: String,
    duration_ms: u64,
}

/// Of a version before the others were told it has the first two alone.
#[derive(Deserialize)]
struct CauseRead {
    code: String,
    summary: String,
    remedy: Option<String>,
    class: Option<String>,
    line_number: Option<u64>,
    line: Option<String>,
    log: Option<PathBuf>,
    source: Option<Box<CauseRead>>,
}

#[derive(Deserialize)]
struct SwitchRead {
    from: String,
    to: String,
    extra_args: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct IncidentRead {
    at: String,
    model: String,
    #[serde(flatten)]
    cause: CauseRead,
    healthy_for_ms: Option<u64>,
    restart_after_ms: Option<u64>,
    #[serde(default)]
    exits: Vec<ExitRead>,
    kernel: Option<Vec<String>>,
    #[serde(default)]
    gpus: Vec<GpuBody<'static>>,
}

/// Of a version before they were told it is always an incident.
#[derive(Deserialize)]
#[serde(untagged)]
enum RecordRead {
    Recovery(RecoveryRead),
    Incident(Box<IncidentLineRead>),
}

#[derive(Deserialize)]
struct RecoveryRead {
    recovered_at: String,
    incarnation: u64,
    first_incarnation: u64,
    downtime_ms: u64,
    incidents: u32,
}

impl RecoveryRead {
    fn read(&self) -> Option<Recovery> {
        let downtime = Duration::from_millis(self.downtime_ms);
        let [incarnation, first] = [self.incarnation, self.first_incarnation].map(Incarnation::new);
        let at = moment(&self.recovered_at)?;
        Some(Recovery::new(at, incarnation, first, downtime, self.incidents))
    }
}

#[derive(Deserialize)]
struct ExitRead {
    pid: u32,
    process: String,
    exit_code: Option<i32>,
    signal: Option<i32>,
}

impl ExitRead {
    fn read(self) -> Option<ProcessExit> {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == self.process)?;
        let exit = match (self.exit_code, self.signal) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        };
        Some(ProcessExit::new(self.pid, role, exit))
    }
}

#[derive(Deserialize)]
struct IncidentLineRead {
    incarnation: u64,
    #[serde(flatten)]
    incident: IncidentRead,
    last_lines: Vec<String>,
}

impl IncidentRead {
    fn read(self, incarnation: Incarnation) -> Option<Incident> {
        let (model, cause) = (ModelId::new(self.model).ok()?, self.cause.read()?);
        let mut incident = Incident::new(moment(&self.at)?, incarnation, model, cause);
        incident.healthy_for = self.healthy_for_ms.map(Duration::from_millis);
        incident.restart_after = self.restart_after_ms.map(Duration::from_millis);
        // One of a role that a later version has is left out.
        incident.kernel = self.kernel;
        incident.exits = self.exits.into_iter().filter_map(ExitRead::read).collect();
        incident.gpus = self.gpus.into_iter().map(GpuBody::read).collect();
        Some(incident)
    }
}

#[derive(Deserialize)]
struct ProgressRead {
    model_id: String,
    progress_percent: u8,
    bytes_downloaded: u64,
    total_bytes: Option<u64>,
    status: String,
    is_progress_known: bool,
    time_left_ms: Option<u64>,
    started_at: String,
    completed_at: Option<String>,
}

impl CauseRead {
    fn read(self) -> Option<Cause> {
        // Of a later version: that it failed is told all the same.
        let cause = match code(&self.code) {
            Some(code) => Cause::new(code, self.summary),
            None => Cause::new(Code::Unrecognised, format!("{}: {}", self.code, self.summary)),
        };
        let mut cause = cause.with_log(self.log);
        if let Some(source) = self.source {
            cause = cause.with_source(source.read()?);
        }
        if let Some(remedy) = self.remedy {
            cause = cause.with_remedy(remedy);
        }
        if let Some(name) = self.class {
            let all = [RetryClass::Permanent, RetryClass::Transient, RetryClass::AfterCleanup];
            cause.retry = all.into_iter().find(|class| class.as_str() == name)?;
        }
        if let (Some(number), Some(text)) = (self.line_number, self.line) {
            cause = cause.with_line(TellingLine::new(number, text));
        }
        Some(cause)
    }
}

impl KindRead {
    fn read(self, at: SystemTime, incarnation: Incarnation) -> Option<EventKind> {
        Some(match self {
            Self::StateChanged { from, to, cause } => {
                let (from, to) = (state(&from)?, state(&to)?);
                let cause = cause.map(|it| it.read().ok_or(())).transpose().ok()?;
                EventKind::StateChanged { from, to, cause }
            }
            Self::LoadProgressed { progress } => {
                EventKind::LoadProgressed { progress: progress.read()? }
            }
            Self::LaunchTimed { launch, phases } => EventKind::LaunchTimed {
                launch: launch_kind(&launch)?,
                phases: phases.into_iter().map(PhaseRead::read).collect::<Option<_>>()?,
            },
            Self::LaunchDistrusted { instead } => {
                let instead = LaunchMethod::ALL.into_iter().find(|it| it.as_str() == instead)?;
                EventKind::LaunchDistrusted { instead }
            }
            Self::IncidentRecorded { incident } => {
                EventKind::IncidentRecorded { incident: Box::new(incident.read(incarnation)?) }
            }
            Self::ServiceRecovered { first_incarnation, downtime_ms, incidents } => {
                let downtime = Duration::from_millis(downtime_ms);
                let first = Incarnation::new(first_incarnation);
                let recovery = Recovery::new(at, incarnation, first, downtime, incidents);
                EventKind::ServiceRecovered { recovery }
            }
            Self::RestartScheduled { attempt, delay_ms, restarts_in_window } => {
                let delay = Duration::from_millis(delay_ms);
                EventKind::RestartScheduled { attempt, delay, restarts_in_window }
            }
            Self::HealthChanged { healthy, consecutive_failures, latency_ms } => {
                let latency = latency_ms.map(|millis| Duration::try_from_secs_f64(millis / 1e3));
                let latency = latency.transpose().ok()?;
                EventKind::HealthChanged { healthy, consecutive_failures, latency }
            }
            Self::GpuFindingRaised { finding } => finding.read().map(raised)?,
            Self::GpuFindingCleared { finding } => finding.read().map(cleared)?,
            Self::ModelSwitched(SwitchRead { from, to, extra_args }) => {
                let (from, to) = (ModelId::new(from).ok()?, ModelId::new(to).ok()?);
                EventKind::ModelSwitched { from, to, extra_args }
            }
            Self::ModelWanted(SwitchRead { from, to, extra_args }) => {
                let (from, to) = (ModelId::new(from).ok()?, ModelId::new(to).ok()?);
                EventKind::ModelWanted { from, to, extra_args }
            }
            Self::CleanupBlocked { cause } => EventKind::CleanupBlocked { cause: cause.read()? },
            Self::StateExplained { cause } => EventKind::StateExplained { cause: cause.read()? },
            Self::SupervisorEnded { reason } => {
                let all = [EndReason::ShutDown, EndReason::ActorsDied, EndReason::Killed];
                let reason = all.into_iter().find(|of| of.as_str() == reason)?;
                EventKind::SupervisorEnded { reason }
            }
            Self::Orphaned { pid, outcome, left } => {
                let all = [OrphanOutcome::Killed, OrphanOutcome::Kept];
                let outcome = all.into_iter().find(|of| outcome_name(*of) == outcome)?;
                EventKind::Orphaned { pid, outcome, left }
            }
        })
    }
}

fn raised(finding: GpuFinding) -> EventKind {
    EventKind::GpuFindingRaised { finding: Box::new(finding) }
}

fn cleared(finding: GpuFinding) -> EventKind {
    EventKind::GpuFindingCleared { finding: Box::new(finding) }
}

impl PhaseRead {
    fn read(self) -> Option<(LaunchPhase, Duration)> {
        use LaunchPhase::{Answering, Importing, Load, Preparing};
        let mut others = [Preparing, Importing, Answering].into_iter();
        let phase = others
            .find(|phase| phase.as_str() == self.phase)
            .or_else(|| status(&self.phase).map(Load))?;
        Some((phase, Duration::from_millis(self.duration_ms)))
    }
}

impl ProgressRead {
    fn read(self) -> Option<ModelLoadProgress> {
        let (model, started_at) = (ModelId::new(self.model_id).ok()?, moment(&self.started_at)?);
        let mut progress = ModelLoadProgress::loading(model, 0, started_at);
        progress.percent = self.progress_percent;
        progress.bytes_downloaded = self.bytes_downloaded;
        progress.total_bytes = self.total_bytes;
        progress.status = status(&self.status)?;
        progress.is_progress_known = self.is_progress_known;
        progress.time_left = self.time_left_ms.map(Duration::from_millis);
        if let Some(at) = self.completed_at {
            progress.completed_at = Some(moment(&at)?);
        }
        Some(progress)
    }
}

fn moment(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

fn launch_kind(name: &str) -> Option<LaunchKind> {
    let all = [LaunchKind::Cold, LaunchKind::Warm, LaunchKind::Adopted];
    all.into_iter().find(|kind| kind.as_str() == name)
}

fn state(name: &str) -> Option<ServiceState> {
    ServiceState::ALL.into_iter().find(|state| state.as_str() == name)
}

fn status(name: &str) -> Option<LoadStatus> {
    use LoadStatus::{Capturing, Compiling, Downloading, Failed, Loaded, Loading, Warming};
    let all = [Downloading, Loading, Compiling, Capturing, Warming, Loaded, Failed];
    all.into_iter().find(|status| status.as_str() == name)
}

fn code(text: &str) -> Option<Code> {
    Code::all().find(|code| code.to_string() == text)
}

/// The numbers of an event's line.
#[derive(Deserialize)]
struct Numbers {
    seq: u64,
    incarnation: u64,
}

impl Numbers {
    fn read(line: &str) -> Option<(Sequence, Incarnation)> {
        let numbers: Self = serde_json::from_str(line).ok()?;
        Some((Sequence::new(numbers.seq), Incarnation::new(numbers.incarnation)))
    }
}
