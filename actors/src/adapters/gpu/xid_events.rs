//! The faults that NVIDIA's driver tells of by itself: Xid errors.
//!
//! Waiting for them blocks, so a thread of its own does it, with an NVML of its own (NVML counts how
//! often it was opened). Several that come before a wait are told as the last of them (nvml.h,
//! `nvmlEventSetWait_v2`): what has become of the GPU is to be seen by looks at it too.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::Duration;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, EventSet, Nvml};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::nvml::open;
use crate::domain::gpu::DriverFaults;

/// How long one wait lasts, in milliseconds: so long does the thread outlive its owner at most.
const WAIT_MILLISECONDS: u32 = 1000;

/// The pause before GPUs that do not tell are tried again.
const PAUSE: Duration = Duration::from_secs(10);

/// Nothing is ever sent; that it is gone is the thread's sign to end.
pub(super) type Owner = mpsc::Receiver<Infallible>;

/// Begins to tell of faults until the owner is gone.
pub(super) fn begin(library: Option<PathBuf>, told: watch::Sender<DriverFaults>, owner: Owner) {
    let listening = move || listen(library.as_deref(), &told, &owner);
    let begun = thread::Builder::new().name("gpu-faults".to_owned()).spawn(listening);
    if let Err(error) = begun {
        warn!(%error, "no thread to hear of GPU faults on");
    }
}

fn listen(library: Option<&Path>, told: &watch::Sender<DriverFaults>, owner: &Owner) {
    let nvml = match open(library) {
        Ok(nvml) => nvml,
        Err(error) => return warn!(%error, "no GPU faults are told of"),
    };
    // A GPU that is lost fails the waits for all: they go on without it at once, and with it after a
    // pause, for it may come back.
    let mut silent = BTreeSet::new();
    loop {
        if let Some(registered) = Registered::but_for(&nvml, &silent) {
            let Err(error) = registered.tell(told, owner) else { return };
            let known = silent.len();
            silent.extend(registered.lost());
            debug!(%error, ?silent, "GPU faults could not be waited for");
            if silent.len() > known {
                continue;
            }
        }
        if owner.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        silent.clear();
    }
}

/// The GPUs that tell of their faults, and where they do.
struct Registered<'nvml> {
    events: EventSet<'nvml>,
    /// Index and identity of each: one that is lost may not say who it is.
    gpus: Vec<(u32, Device<'nvml>, String)>,
}

impl<'nvml> Registered<'nvml> {
    /// Every GPU that tells, but for these; `None` if none does. To add one to a set takes the set, and
    /// does not give it back where that fails: then another is begun without that GPU.
    fn but_for(nvml: &'nvml Nvml, silent: &BTreeSet<u32>) -> Option<Self> {
        let mut telling: Vec<u32> = (0..nvml.device_count().ok()?).collect();
        telling.retain(|index| !silent.contains(index));
        while !telling.is_empty() {
            match Self::these(nvml, &telling) {
                Ok(registered) => return Some(registered),
                Err(Some(refused)) => telling.retain(|index| *index != refused),
                Err(None) => return None,
            }
        }
        None
    }

    /// These; or which one cannot be among them, if it is for one of them.
    fn these(nvml: &'nvml Nvml, indices: &[u32]) -> Result<Self, Option<u32>> {
        let mut events = nvml.create_event_set().map_err(|_| None)?;
        let mut gpus = Vec::new();
        for &index in indices {
            let device = nvml.device_by_index(index).map_err(|_| Some(index))?;
            let wanted = EventTypes::CRITICAL_XID_ERROR;
            events = device.register_events(wanted, events).map_err(|_| Some(index))?;
            let uuid = device.uuid().unwrap_or_default();
            gpus.push((index, device, uuid));
        }
        Ok(Self { events, gpus })
    }

    /// Tells of faults until the owner is gone.
    fn tell(&self, told: &watch::Sender<DriverFaults>, owner: &Owner) -> Result<(), NvmlError> {
        while owner.try_recv() == Err(TryRecvError::Empty) {
            let event = match self.events.wait(WAIT_MILLISECONDS) {
                Ok(event) => event,
                Err(NvmlError::Timeout) => continue,
                Err(error) => return Err(error),
            };
            let Some(xid) = event.event_data else { continue };
            if let Some((index, uuid)) = self.who(&event.device) {
                told.send_modify(|faults| faults.tell(index, uuid, number(&xid)));
            } else {
                // To name another would be worse.
                warn!(xid = number(&xid), "a GPU has a fault, and it cannot be told which");
            }
        }
        Ok(())
    }

    /// Those that have fallen off the bus.
    fn lost(&self) -> Vec<u32> {
        let is_lost = |gpu: &Device<'_>| matches!(gpu.memory_info(), Err(NvmlError::GpuLost));
        self.gpus.iter().filter(|(_, gpu, _)| is_lost(gpu)).map(|(index, ..)| *index).collect()
    }

    /// Index and identity of a GPU; `None` if it cannot be told which it is.
    fn who(&self, device: &Device<'_>) -> Option<(u32, String)> {
        let said = device.uuid().ok();
        let is_it = |(_, gpu, uuid): &&(u32, Device<'_>, String)| match &said {
            Some(said) => said == uuid,
            // One that is lost says no more who it is than this one does.
            None => gpu.uuid().is_err(),
        };
        let mut found = self.gpus.iter().filter(is_it);
        let (index, _, uuid) = found.next().filter(|_| found.next().is_none())?;
        Some((*index, uuid.clone()))
    }
}

/// Its number in NVIDIA's catalogue; 999 where the driver knows none (nvml.h, `nvmlEventData_t`).
fn number(xid: &XidError) -> u32 {
    match xid {
        XidError::Value(number) => u32::try_from(*number).unwrap_or(UNKNOWN),
        XidError::Unknown => UNKNOWN,
    }
}

const UNKNOWN: u32 = 999;
