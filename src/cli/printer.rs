//! Prints the events of a service on stdout.
//!
//! On a thread of its own: whoever reads stdout may be slow or stuck, and must hold up nothing but
//! what it reads. It is then told of a gap.

use std::io;
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::look::Look;
use super::memory;
use super::progress::{Progress, Shown};
use super::render::{self, Service};
use super::screen::print_line;
use crate::{EventKind, EventStream, ModelLoadProgress, Notice, ServiceState, wire};

/// How long the last events may take to be read once the service has ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// A thread that prints events until the supervisor ends or nobody reads any more.
#[derive(Debug)]
pub(super) struct Printer {
    done: oneshot::Receiver<()>,
}

impl Printer {
    /// Begins to print.
    pub(super) fn start(mut events: EventStream, mut form: Form) -> io::Result<Self> {
        let (ended, done) = oneshot::channel();
        let runtime = Handle::current();
        let print = async move {
            while let Some(notice) = events.next().await {
                if is_return(&notice) {
                    memory::give_back();
                }
                if let Err(error) = form.print(&notice) {
                    // That the reader has gone away is its own affair.
                    if error.kind() != io::ErrorKind::BrokenPipe {
                        tracing::warn!(%error, "events can no longer be printed");
                    }
                    break;
                }
            }
            // Nobody waits for this if the last events took too long.
            ended.send(()).ok();
        };
        thread::Builder::new().name("printer".to_owned()).spawn(move || runtime.block_on(print))?;
        Ok(Self { done })
    }

    /// Waits for the last events to be printed, but not for long.
    pub(super) async fn finished(self) {
        tokio::time::timeout(PATIENCE, self.done).await.ok();
    }
}

/// Whether the service is back, and what a crash took for its diagnosis is needed no more.
fn is_return(notice: &Notice) -> bool {
    let Notice::Event(event) = notice else { return false };
    matches!(event.kind, EventKind::ServiceRecovered { .. })
}

/// How events look.
#[derive(Debug)]
pub(super) enum Form {
    /// One JSON object a line.
    Json,
    /// One line an event, and a bar where there is a terminal.
    Text(Box<TextForm>),
}

impl Form {
    fn print(&mut self, notice: &Notice) -> io::Result<()> {
        match self {
            Self::Json => print_line(wire::notice_line(notice)),
            Self::Text(form) => form.print(notice),
        }
    }
}

/// The form for people.
#[derive(Debug)]
pub(super) struct TextForm {
    service: Service,
    progress: Progress,
    /// The last progress that got a line.
    last: Option<ModelLoadProgress>,
}

impl TextForm {
    /// Lines about this service, past this bar.
    pub(super) fn new(service: Service, progress: Progress) -> Self {
        Self { service, progress, last: None }
    }

    fn print(&mut self, notice: &Notice) -> io::Result<()> {
        if let Notice::Event(event) = notice {
            match &event.kind {
                EventKind::LoadProgressed { progress } if !self.is_news(progress) => return Ok(()),
                EventKind::ModelWanted { to, extra_args, .. } => {
                    self.service.switch_to(to, extra_args.as_deref());
                }
                EventKind::StateChanged { to, .. } if *to != ServiceState::Starting => {
                    self.progress.hide();
                }
                EventKind::LoadProgressed { .. }
                | EventKind::StateChanged { .. }
                | EventKind::LaunchTimed { .. }
                | EventKind::LaunchDistrusted { .. }
                | EventKind::StateExplained { .. }
                | EventKind::GpuFindingRaised { .. }
                | EventKind::GpuFindingCleared { .. }
                | EventKind::IncidentRecorded { .. }
                | EventKind::ServiceRecovered { .. }
                | EventKind::RestartScheduled { .. }
                | EventKind::HealthChanged { .. }
                | EventKind::CleanupBlocked { .. }
                | EventKind::SupervisorEnded { .. }
                | EventKind::Orphaned { .. }
                | EventKind::ModelSwitched { .. }
                | _ => {}
            }
        }
        let lines = render::notice(notice, &self.service);
        let lines = Look::of_stdout().dress(&lines, render::tone(notice));
        self.progress.aside(|| print_line(&lines))
    }

    /// Whether a progress is worth a line: it is not on the bar, and differs from the last.
    fn is_news(&mut self, progress: &ModelLoadProgress) -> bool {
        if self.progress.show(progress, SystemTime::now()) == Shown::AsBar {
            return false;
        }
        let is_new = !self.last.as_ref().is_some_and(|last| render::looks_the_same(last, progress));
        self.last = Some(progress.clone());
        is_new
    }
}
