//! The record of an end that nobody asked for, and of the service's return from it.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::domain::cause::Cause;
use crate::domain::diagnosis::Exit;
use crate::domain::gpu::Gpu;
use crate::domain::id::Incarnation;
use crate::domain::report::Role;
use crate::domain::spec::ModelId;

/// An end that nobody asked for: one entry of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incident {
    /// When it ended.
    pub at: SystemTime,
    /// The launch that ended.
    pub incarnation: Incarnation,
    /// The model it served or was to serve.
    pub model: ModelId,
    /// Why it ended.
    pub cause: Cause,
    /// How long it had been proven healthy; `None` if it never was.
    pub healthy_for: Option<Duration>,
    /// Whether a restart follows, and after how long.
    pub restart_after: Option<Duration>,
    /// Which of its processes have ended with it, and how: those that vLLM needs, and those that a signal
    /// ended; of what had served, from ten seconds before on. Whom SIGKILL, or nobody knows what, has ended
    /// since the end was noticed is among them only if the kernel says that it was for want of memory: else
    /// it may have been us.
    pub exits: Vec<ProcessExit>,
    /// What the kernel's log says of those: whom it has killed for want of memory, who made a fault and
    /// where, an Xid error; `None` if nobody can say.
    pub kernel: Option<Vec<String>>,
    /// The GPUs as they were last seen before it ended; empty where there are none.
    pub gpus: Vec<Gpu>,
    /// How long after this the service ran again, by whichever restart; `None` if it has not, as far as
    /// is known. Of an event it is always unknown: the event comes before.
    pub recovered_after: Option<Duration>,
}

/// How a process of a launch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessExit {
    /// The pid it had.
    pub pid: u32,
    /// What it was for.
    pub role: Role,
    /// How it ended.
    pub exit: Exit,
}

impl ProcessExit {
    /// The end of this process.
    pub fn new(pid: u32, role: Role, exit: Exit) -> Self {
        Self { pid, role, exit }
    }
}

/// That the service runs again after ends that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// When it ran again.
    pub at: SystemTime,
    /// The launch that it runs by.
    pub incarnation: Incarnation,
    /// The launch whose end was the first of them.
    pub first: Incarnation,
    /// How long it was gone: from the first of those ends on.
    pub downtime: Duration,
    /// How many ends there were.
    pub incidents: u32,
}

impl Recovery {
    /// Of the launch `incarnation`, from ends of which that of `first` was the first.
    pub fn new(
        at: SystemTime,
        incarnation: Incarnation,
        first: Incarnation,
        downtime: Duration,
        incidents: u32,
    ) -> Self {
        Self { at, incarnation, first, downtime, incidents }
    }
}

impl Incident {
    /// The end of a launch that was never healthy and is not restarted.
    pub fn new(at: SystemTime, incarnation: Incarnation, model: ModelId, cause: Cause) -> Self {
        Self {
            at,
            incarnation,
            model,
            cause,
            healthy_for: None,
            restart_after: None,
            exits: Vec::new(),
            kernel: None,
            gpus: Vec::new(),
            recovered_after: None,
        }
    }
}

/// The latest incidents, oldest first, as they are told from records.
#[derive(Debug)]
pub struct History {
    incidents: VecDeque<Incident>,
    most: usize,
}

impl History {
    /// With room for so many.
    pub fn of_at_most(most: usize) -> Self {
        Self { incidents: VecDeque::new(), most }
    }

    /// Takes the next record.
    pub fn add(&mut self, record: Record) {
        match record {
            Record::Incident(incident) => {
                self.incidents.push_back(*incident);
                if self.incidents.len() > self.most {
                    self.incidents.pop_front();
                }
            }
            Record::Recovery(recovery) => {
                let ended = recovery.first..recovery.incarnation;
                for incident in
                    self.incidents.iter_mut().filter(|it| ended.contains(&it.incarnation))
                {
                    // The wall clock may have been set since.
                    let after = recovery.at.duration_since(incident.at).unwrap_or_default();
                    let is_first = incident.incarnation == recovery.first;
                    let after =
                        if is_first { recovery.downtime } else { after.min(recovery.downtime) };
                    incident.recovered_after = Some(after);
                }
            }
        }
    }

    /// The incidents.
    pub fn into_incidents(self) -> Vec<Incident> {
        self.incidents.into()
    }
}

/// An entry of the history as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An end that nobody asked for.
    Incident(Box<Incident>),
    /// The service's return from those before it.
    Recovery(Recovery),
}
