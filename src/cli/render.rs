//! Events and settings as lines for people. Pure: the same input gives the same text.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::builder::log_file;

use super::look::Tone;
use super::plain;
use crate::config::{Config, Origin, Setting};
use crate::launch_recipe::arguments;
use crate::{
    Cause, Code, Event, EventKind, GpuAction, Incarnation, Incident, LaunchMethod, LaunchPhase,
    LifecycleMode, ModelId, Notice, OrphanOutcome, ProcessExit, Recovery, RetryClass, ServiceState,
    Snapshot,
};

mod load;

use load::load;
pub(super) use load::{doing, looks_the_same, time_left};

/// What lines about a service mention besides what happened.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// The name of the model.
    pub(super) model: String,
    /// Where it is served.
    pub(super) base_url: String,
    /// Where the logs of vLLM are.
    state_dir: PathBuf,
    restarts_a_minute: NonZeroU32,
    /// What requests call the model, if not by its own name.
    served_name: Option<String>,
    /// Whether it is another model than is configured, or is told something else.
    is_switched: bool,
    /// The name of the model that is configured.
    configured: String,
    /// What requests call it, if not by its own name.
    configured_name: Option<String>,
    mode: LifecycleMode,
    /// What its manager calls it, if that is asked.
    unit: Option<String>,
}

impl Service {
    /// The service that this configuration describes.
    pub(super) fn of(config: &Config) -> Self {
        let served_name = served_name(&config.extra_args);
        Self {
            model: config.model.to_string(),
            base_url: format!("http://{}", SocketAddr::new(config.host, config.port)),
            state_dir: config.state_dir.clone(),
            restarts_a_minute: config.lifecycle.max_restarts_per_minute,
            served_name: served_name.clone(),
            is_switched: false,
            configured: config.model.to_string(),
            configured_name: served_name,
            mode: config.lifecycle.mode,
            unit: config.lifecycle.monitored_unit.clone(),
        }
    }

    /// From now on it is about this model, whether or not it is another; `extra_args` are those that are not configured.
    pub(super) fn switch_to(&mut self, model: &ModelId, extra_args: Option<&[String]>) {
        self.is_switched = extra_args.is_some() || model.as_str() != self.configured;
        self.model = model.to_string();
        self.served_name = match extra_args {
            Some(words) => served_name(words),
            None => self.configured_name.clone(),
        };
    }

    fn is_ours(&self) -> bool {
        self.mode == LifecycleMode::Managed
    }

    fn log_of(&self, incarnation: Incarnation) -> PathBuf {
        log_file(&self.state_dir, incarnation)
    }
}

/// What a subscriber is told, fit for a terminal: a line, or of a failure several.
pub(super) fn notice(notice: &Notice, service: &Service) -> String {
    match notice {
        Notice::Event(event) => {
            let lines = match &event.kind {
                EventKind::IncidentRecorded { incident } => because(incident),
                EventKind::GpuFindingRaised { finding } if finding.action != GpuAction::None => {
                    vec![finding.to_string(), format!("help: {}", finding.remedy())]
                }
                _ => vec![what(event, service)],
            };
            let lines: Vec<String> = lines.iter().map(|line| plain::line(line)).collect();
            let at = humantime::format_rfc3339_seconds(event.at);
            format!("{at}  {}", lines.join("\n    "))
        }
        Notice::Gap { missed } => format!("{missed} events were not shown: output is too slow"),
    }
}

/// What it is at a glance.
pub(super) fn tone(notice: &Notice) -> Tone {
    let Notice::Event(event) = notice else { return Tone::Warning };
    match &event.kind {
        EventKind::StateChanged { to: ServiceState::Running, .. }
        | EventKind::HealthChanged { healthy: true, .. }
        | EventKind::ServiceRecovered { .. } => Tone::Good,
        EventKind::StateChanged { to: ServiceState::Crashed | ServiceState::Failed, .. } => {
            Tone::Bad
        }
        EventKind::HealthChanged { healthy: false, .. }
        | EventKind::RestartScheduled { .. }
        | EventKind::LaunchDistrusted { .. }
        | EventKind::StateExplained { .. }
        | EventKind::CleanupBlocked { .. }
        | EventKind::GpuFindingRaised { .. } => Tone::Warning,
        _ => Tone::Neutral,
    }
}

/// Why it failed, and what to do about it.
fn because(incident: &Incident) -> Vec<String> {
    let cause = &incident.cause;
    let mut lines = vec![format!("{}: {}", cause.code, cause.summary)];
    lines.extend(cause.line().map(|line| format!("line {}: {}", line.number, line.text)));
    lines.extend(ended(&incident.exits));
    lines.extend(incident.kernel.iter().flatten().map(|said| format!("kernel: {said}")));
    lines.push(format!("help: {}", cause.remedy()));
    lines.extend(cause.log().map(|log| format!("log: {}", log.display())));
    lines
}

/// Who has ended, where that is more than the one process that the cause names.
fn ended(exits: &[ProcessExit]) -> Option<String> {
    let ended = |it: &ProcessExit| format!("{} {}: {}", it.role, it.pid, it.exit);
    let all: Vec<String> = exits.iter().map(ended).collect();
    (all.len() > 1).then(|| format!("ended: {}", all.join(", then ")))
}

fn what(event: &Event, service: &Service) -> String {
    match &event.kind {
        EventKind::StateChanged { to, cause: Some(cause), .. } if service.is_ours() => {
            failure(*to, cause)
        }
        EventKind::StateChanged { to, cause: Some(cause), .. } => failure_of_other(*to, cause),
        EventKind::StateChanged { to, cause: None, .. } => {
            state_changed(*to, event.incarnation, service)
        }
        EventKind::LoadProgressed { progress } => load(progress),
        EventKind::LaunchTimed { launch, phases } => {
            let part = |(phase, took): (LaunchPhase, Duration)| {
                format!("{} {:.2}", phase.as_str(), took.as_secs_f64())
            };
            let parts: Vec<String> = phases.iter().map(part).collect();
            let (how, whole) = (launch.as_str(), phases.total().as_secs_f64());
            format!("launched {how} in {whole:.2} s ({})", parts.join(", "))
        }
        EventKind::LaunchDistrusted { instead } => {
            let how = match instead {
                LaunchMethod::Cold => "cold",
                LaunchMethod::Front => "with an engine that begins from nothing",
                LaunchMethod::Tree | LaunchMethod::Ahead | _ => {
                    "warm, when it is wanted and not before"
                }
            };
            format!("a warm launch failed where this did not: vLLM is launched {how} from now on")
        }
        EventKind::ServiceRecovered { recovery } => recovered(recovery),
        EventKind::RestartScheduled { attempt, delay, restarts_in_window } => {
            restart_scheduled(*attempt, *delay, *restarts_in_window, service)
        }
        EventKind::HealthChanged { consecutive_failures, latency, .. } => {
            health_changed(*consecutive_failures, *latency)
        }
        EventKind::ModelSwitched { from, to, extra_args } => {
            format!("switched {}", step(from, to, extra_args.as_deref()))
        }
        EventKind::ModelWanted { from, to, extra_args } => {
            format!("to be switched {}", step(from, to, extra_args.as_deref()))
        }
        EventKind::GpuFindingRaised { finding } => finding.to_string(),
        EventKind::GpuFindingCleared { finding } => format!("{finding}: no longer"),
        EventKind::CleanupBlocked { cause } => format!("cleanup blocked: {cause}"),
        EventKind::StateExplained { cause } => format!("still so: {cause}; {}", cause.remedy()),
        EventKind::SupervisorEnded { .. } => "the supervisor has ended".to_owned(),
        EventKind::Orphaned { pid, outcome, left } => {
            let outcome = match outcome {
                OrphanOutcome::Killed => "killed",
                OrphanOutcome::Kept => "left running",
            };
            let who = pid.map_or_else(|| "a launch".to_owned(), |pid| format!("process {pid}"));
            let left = left.as_ref().map(|left| format!("; {left}")).unwrap_or_default();
            format!("{who} lost its owner and was {outcome}{left}")
        }
        // Both crates are of one version.
        other => format!("{other:?}"),
    }
}

fn health_changed(failures: u32, latency: Option<Duration>) -> String {
    let answered = latency.map(|it| format!(", answered in {:.1} ms", it.as_secs_f64() * 1e3));
    match failures {
        0 => format!("healthy{}", answered.unwrap_or_default()),
        1 => "unhealthy, a failed check".to_owned(),
        _ => format!("unhealthy, {failures} failed checks in a row"),
    }
}

fn restart_scheduled(attempt: u32, delay: Duration, in_window: u32, service: &Service) -> String {
    let delay = humantime::format_duration(delay);
    if !service.is_ours() {
        return format!("systemd restarts it in {delay} (restart {attempt})");
    }
    let cap = service.restarts_a_minute;
    format!("restart {attempt} in {delay} ({in_window} of {cap} within a minute)")
}

fn recovered(recovery: &Recovery) -> String {
    let crashes = match recovery.incidents {
        1 => "a crash".to_owned(),
        count => format!("{count} crashes"),
    };
    format!("recovered from {crashes} after {:.1} s", recovery.downtime.as_secs_f64())
}

fn served_name(words: &[String]) -> Option<String> {
    arguments(words.to_vec()).served_name().map(str::to_owned)
}

/// `from a to b`, or of the same model what it is told.
fn step(from: &ModelId, to: &ModelId, extra_args: Option<&[String]>) -> String {
    match extra_args {
        None if from != to => format!("from {from} to {to}"),
        Some(_) if from != to => format!("from {from} to {to} {}", told(extra_args)),
        None | Some(_) => format!("to {to} {}", told(extra_args)),
    }
}

/// What vLLM is told besides its model.
fn told(extra_args: Option<&[String]>) -> String {
    match extra_args {
        None => "with the configured arguments".to_owned(),
        Some([]) => "without arguments".to_owned(),
        Some(words) => format!("with `{}`", words.join(" ")),
    }
}

fn state_changed(to: ServiceState, incarnation: Incarnation, service: &Service) -> String {
    let Service { model, base_url, .. } = service;
    match to {
        ServiceState::Starting if !service.is_ours() => {
            format!("starting: {model} is not served at {base_url} yet")
        }
        ServiceState::Starting => {
            let log = service.log_of(incarnation);
            format!("starting {model}, launch {incarnation}; vLLM's log: {}", log.display())
        }
        ServiceState::Running => {
            let name = service.served_name.as_ref();
            let name = name.map(|name| format!(" as `{name}`")).unwrap_or_default();
            format!("running: {model} is served{name} at {base_url}")
        }
        ServiceState::Stopped
        | ServiceState::Stopping
        | ServiceState::Crashed
        | ServiceState::Failed
        | ServiceState::Unknown => to.to_string(),
    }
}

fn failure(to: ServiceState, cause: &Cause) -> String {
    match to {
        // Why follows as soon as it is known.
        ServiceState::Crashed => format!("{to}: {}", cause.summary),
        // It has been told.
        ServiceState::Failed if cause.code != Code::RestartLimitReached => {
            let why = match cause.retry {
                RetryClass::Permanent => "is not tried again",
                RetryClass::AfterCleanup => "is in the way, and a start does not wait",
                RetryClass::Transient => {
                    "was tried as often as lifecycle.model_load_max_retries allows"
                }
            };
            format!("{to}: {} {why}", cause.code)
        }
        ServiceState::Failed
        | ServiceState::Stopped
        | ServiceState::Starting
        | ServiceState::Running
        | ServiceState::Stopping
        | ServiceState::Unknown => format!("{to}: {cause}; {}", cause.remedy()),
    }
}

/// Of one that somebody else has in hand.
fn failure_of_other(to: ServiceState, cause: &Cause) -> String {
    match to {
        // Both were told with the incident.
        ServiceState::Crashed => format!("{to}: {}", cause.summary),
        ServiceState::Failed => format!("{to}: its manager does not start it again; {cause}"),
        ServiceState::Stopped
        | ServiceState::Starting
        | ServiceState::Running
        | ServiceState::Stopping
        | ServiceState::Unknown => format!("{to}: {cause}; {}", cause.remedy()),
    }
}

/// Settings as aligned lines: key, value, origin.
pub(super) fn settings(settings: &[Setting]) -> String {
    let key_width = settings.iter().map(|setting| setting.key.chars().count()).max();
    let value_width = settings.iter().map(|setting| setting.value.chars().count()).max();
    let (keys, values) = (key_width.unwrap_or(0), value_width.unwrap_or(0).min(40));
    let line = |Setting { key, value, origin }: &Setting| {
        let value = plain::unbroken(value);
        format!("{key:keys$}  {value:values$}  {}", plain::unbroken(&self::origin(origin)))
    };
    settings.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::File(path) => format!("file {}", path.display()),
        Origin::Environment(name) => format!("environment {name}"),
        Origin::Flag(name) => format!("flag {name}"),
    }
}

/// What is said when vLLM lives on without us.
pub(super) fn lives_on(service: &Service, pid: u32) -> String {
    format!(
        "vLLM goes on (pid {pid}, {}), as lifecycle.stop_on_exit is false\n  \
         help: the next `vllmd run` takes it over, and with `stop_on_exit: true` ends it when it \
         ends; or `kill {pid}`",
        service.base_url
    )
}

/// What is said of one that somebody else has in hand, before anything of it is told.
pub(super) fn watching(snapshot: &Snapshot, service: &Service) -> String {
    let Service { base_url, mode, unit, .. } = service;
    let whom =
        unit.as_ref().map_or_else(|| base_url.clone(), |unit| format!("{unit} at {base_url}"));
    let state = match (&snapshot.last_error, snapshot.state) {
        (Some(cause), ServiceState::Unknown) => {
            format!("{}: {cause}\n  help: {}", snapshot.state, cause.remedy())
        }
        (_, state) => state.to_string(),
    };
    format!("watching {whom} in mode `{}`, and doing nothing about it: {state}", mode.as_str())
}

/// What is said when a running vLLM was taken over.
pub(super) fn adopted(pid: u32, service: &Service) -> String {
    let took_over = format!("took over the vLLM that an earlier vllmd left running (pid {pid})");
    if service.is_switched {
        format!("{took_over}; it serves {}, to which it was switched", service.model)
    } else {
        took_over
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::config::ModelReference;
    use crate::{Incident, Sequence, TellingLine};

    fn service() -> Service {
        let model = ModelReference::Hub("org/tiny".to_owned());
        Service::of(&Config::with_defaults(model, "/state"))
    }

    fn line(kind: EventKind) -> String {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let (sequence, incarnation) = (Sequence::new(7), Incarnation::new(2));
        let event = Event::new(sequence, at, incarnation, kind);
        let line = notice(&Notice::Event(Arc::new(event)), &service());
        line.strip_prefix("1970-01-01T00:00:01Z  ").unwrap().to_owned()
    }

    fn enters(to: ServiceState, cause: Option<Cause>) -> EventKind {
        EventKind::StateChanged { from: ServiceState::Unknown, to, cause }
    }

    #[test]
    fn a_start_says_where_the_log_is_and_a_run_where_to_ask() {
        let starting = "starting org/tiny, launch 2; vLLM's log: /state/logs/vllm-2.log";
        assert_eq!(line(enters(ServiceState::Starting, None)), starting);
        let running = "running: org/tiny is served at http://127.0.0.1:8000";
        assert_eq!(line(enters(ServiceState::Running, None)), running);
        assert_eq!(line(enters(ServiceState::Stopped, None)), "stopped");
    }

    #[test]
    fn a_failure_says_why_and_what_to_do() {
        let cause = Cause::new(Code::DiskFull, "cannot write /state");
        let crashed = line(enters(ServiceState::Crashed, Some(cause.clone())));
        assert_eq!(crashed, "crashed: cannot write /state");
        let told = TellingLine::new(7, "OSError: \u{1b}[2J\nNo space");
        let cause = cause.with_line(told).with_log(Some("/state/logs/vllm-2.log".into()));
        let (at, model) = (SystemTime::UNIX_EPOCH, ModelId::new("org/tiny").unwrap());
        let incident = Incident::new(at, Incarnation::new(2), model, cause.clone());
        let expected = "VLM-024: cannot write /state\n    \
             line 7: OSError: \\u{1b}[2J\\u{a}No space\n    \
             help: free space, or move state_dir, HF_HOME or VLLM_CACHE_ROOT\n    \
             log: /state/logs/vllm-2.log";
        assert_eq!(line(EventKind::IncidentRecorded { incident: Box::new(incident) }), expected);
        let failed = "failed: VLM-024 is in the way, and a start does not wait";
        assert_eq!(line(enters(ServiceState::Failed, Some(cause))), failed);
        let restart = EventKind::RestartScheduled {
            attempt: 2,
            delay: Duration::from_secs(4),
            restarts_in_window: 1,
        };
        assert_eq!(line(restart), "restart 2 in 4s (1 of 3 within a minute)");
    }

    #[test]
    fn what_is_wrong_with_a_gpu_says_what_to_do_on_a_line_of_its_own() {
        let (kind, action) = (crate::FindingKind::Xid(79), GpuAction::Reboot);
        let finding = Box::new(crate::GpuFinding::new(1, "GPU-1", kind, action, "Xid 79"));
        let told = line(EventKind::GpuFindingRaised { finding: finding.clone() });
        assert_eq!(told, format!("GPU 1: Xid 79\n    help: {}", finding.remedy()));
        assert_eq!(line(EventKind::GpuFindingCleared { finding }), "GPU 1: Xid 79: no longer");
    }

    #[test]
    fn a_gap_is_told() {
        let told = notice(&Notice::Gap { missed: 3 }, &service());
        assert_eq!(told, "3 events were not shown: output is too slow");
    }

    #[test]
    fn settings_are_aligned_and_say_where_they_come_from() {
        let setting = |key, value: &str, origin| Setting { key, value: value.to_owned(), origin };
        let lines = settings(&[
            setting("port", "9000", Origin::Flag("--port")),
            setting("gpu.monitor", "auto", Origin::Default),
            setting("host", "::1", Origin::File("/c.yaml".into())),
        ]);
        let expected = "port         9000  flag --port\n\
                        gpu.monitor  auto  default\n\
                        host         ::1   file /c.yaml";
        assert_eq!(lines, expected);
    }
}
