//! The faults that the driver tells of.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use libc::{c_uint, c_ulonglong};
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlEventTypeXidCriticalError, nvmlReturn_t,
};

use crate::call::{
    Answer, INVALID_ARGUMENT, POLL_MILLISECONDS, TIMEOUT, handle, index_of, of_driver, of_gpu,
    poll, put, refusal,
};
use crate::place;

/// What an event set is.
struct EventSet {
    /// The GPUs that it hears of.
    registered: BTreeSet<usize>,
    /// How many faults of the scenario have been told, or came before it.
    told: usize,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(to: *mut nvmlEventSet_t) -> nvmlReturn_t {
    of_driver("nvmlEventSetCreate", |state| {
        let set = EventSet { registered: BTreeSet::new(), told: state.xids.len() };
        let set: *mut Mutex<EventSet> = Box::into_raw(Box::new(Mutex::new(set)));
        // SAFETY: nvml.h's contract: a place for one handle.
        unsafe { put(to, set.cast()) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    of_driver("nvmlEventSetFree", |_| {
        let set: *mut Mutex<EventSet> = set.cast();
        if set.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: nvml.h's contract: made by `nvmlEventSetCreate`, and not used any more.
        drop(unsafe { Box::from_raw(set) });
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: nvmlDevice_t,
    to: *mut c_ulonglong,
) -> nvmlReturn_t {
    // SAFETY: nvml.h's contract: a place for one number.
    of_gpu("nvmlDeviceGetSupportedEventTypes", device, |_| unsafe { put(to, XID) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    kinds: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    of_gpu("nvmlDeviceRegisterEvents", device, |asked| {
        // SAFETY: nvml.h's contract: made by `nvmlEventSetCreate`.
        let set = unsafe { of(set)? };
        if kinds & XID != 0 {
            set.lock().unwrap_or_else(PoisonError::into_inner).registered.insert(asked.index);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    to: *mut nvmlEventData_t,
    milliseconds: c_uint,
) -> nvmlReturn_t {
    of_driver("nvmlEventSetWait_v2", |_| {
        // SAFETY: nvml.h's contract: made by `nvmlEventSetCreate`.
        let set = unsafe { of(set)? };
        for _ in 0..=milliseconds / c_uint::from(POLL_MILLISECONDS) {
            let next = set.lock().unwrap_or_else(PoisonError::into_inner).next()?;
            if let Some(event) = next {
                // SAFETY: nvml.h's contract: a place for one structure.
                return unsafe { put(to, event) };
            }
            poll();
        }
        Err(TIMEOUT)
    })
}

const XID: c_ulonglong = nvmlEventTypeXidCriticalError as c_ulonglong;

/// # Safety
///
/// Null, or made by `nvmlEventSetCreate` and not freed.
unsafe fn of<'a>(set: nvmlEventSet_t) -> Answer<&'a Mutex<EventSet>> {
    // SAFETY: the caller's promise.
    unsafe { set.cast::<Mutex<EventSet>>().as_ref() }.ok_or(INVALID_ARGUMENT)
}

impl EventSet {
    /// The next fault of a GPU that is registered, if there is one by now.
    fn next(&mut self) -> Answer<Option<nvmlEventData_t>> {
        // One that is being written is there at the next look.
        let Some(state) = place::state() else { return Ok(None) };
        for index in &self.registered {
            refusal(&state, "nvmlEventSetWait_v2", Some(*index))?;
        }
        while let Some(fault) = state.xids.get(self.told) {
            self.told += 1;
            let device = handle(usize::try_from(fault.gpu).unwrap_or(usize::MAX - 1));
            if index_of(device).is_some_and(|index| self.registered.contains(&index)) {
                return Ok(Some(nvmlEventData_t {
                    device,
                    eventType: XID,
                    eventData: fault.xid.into(),
                    gpuInstanceId: c_uint::MAX,
                    computeInstanceId: c_uint::MAX,
                }));
            }
        }
        Ok(None)
    }
}
