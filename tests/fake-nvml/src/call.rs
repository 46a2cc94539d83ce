//! What every call has in common: the scenario is asked whether it fails, or hangs, and nothing that
//! goes wrong here reaches C.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlReturn_enum_NVML_ERROR_CORRUPTED_INFOROM,
    nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED, nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST, nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH, nvmlReturn_enum_NVML_ERROR_NO_PERMISSION,
    nvmlReturn_enum_NVML_ERROR_NOT_FOUND, nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
    nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED, nvmlReturn_enum_NVML_ERROR_TIMEOUT,
    nvmlReturn_enum_NVML_ERROR_UNINITIALIZED, nvmlReturn_enum_NVML_ERROR_UNKNOWN,
    nvmlReturn_enum_NVML_SUCCESS, nvmlReturn_t,
};

use crate::place;
use crate::state::{GpuState, State};

pub(crate) const SUCCESS: nvmlReturn_t = nvmlReturn_enum_NVML_SUCCESS;
pub(crate) const UNKNOWN: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_UNKNOWN;
pub(crate) const NOT_SUPPORTED: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
pub(crate) const NOT_FOUND: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
pub(crate) const INVALID_ARGUMENT: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
pub(crate) const INSUFFICIENT_SIZE: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
pub(crate) const TIMEOUT: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_TIMEOUT;

/// The codes that a scenario can name.
const CODES: [(&str, nvmlReturn_t); 11] = [
    ("UNINITIALIZED", nvmlReturn_enum_NVML_ERROR_UNINITIALIZED),
    ("NOT_SUPPORTED", NOT_SUPPORTED),
    ("NO_PERMISSION", nvmlReturn_enum_NVML_ERROR_NO_PERMISSION),
    ("NOT_FOUND", NOT_FOUND),
    ("DRIVER_NOT_LOADED", nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED),
    ("FUNCTION_NOT_FOUND", nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND),
    ("CORRUPTED_INFOROM", nvmlReturn_enum_NVML_ERROR_CORRUPTED_INFOROM),
    ("GPU_IS_LOST", nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST),
    ("RESET_REQUIRED", nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED),
    ("LIB_RM_VERSION_MISMATCH", nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH),
    ("UNKNOWN", UNKNOWN),
];

/// A GPU, and everything around it.
pub(crate) struct Asked {
    pub(crate) state: State,
    pub(crate) index: usize,
}

impl Asked {
    pub(crate) fn gpu(&self) -> &GpuState {
        &self.state.gpus[self.index]
    }
}

pub(crate) type Answer<T = ()> = Result<T, nvmlReturn_t>;

/// The code of a call that is about no GPU.
pub(crate) fn of_driver(symbol: &str, answer: impl FnOnce(State) -> Answer) -> nvmlReturn_t {
    guarded(|| {
        let state = state_for(symbol)?;
        refusal(&state, symbol, None)?;
        answer(state)
    })
}

/// The code of a call that is about this GPU.
pub(crate) fn of_gpu(
    symbol: &str,
    device: nvmlDevice_t,
    answer: impl FnOnce(&Asked) -> Answer,
) -> nvmlReturn_t {
    guarded(|| {
        let state = state_for(symbol)?;
        let index = index_of(device).filter(|index| *index < state.gpus.len());
        let index = index.ok_or(INVALID_ARGUMENT)?;
        refusal(&state, symbol, Some(index))?;
        answer(&Asked { state, index })
    })
}

fn guarded(answer: impl FnOnce() -> Answer) -> nvmlReturn_t {
    match catch_unwind(AssertUnwindSafe(answer)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(code)) => code,
        Err(_panic) => UNKNOWN,
    }
}

/// The scenario, once it does not have this function hang any more.
fn state_for(symbol: &str) -> Answer<State> {
    loop {
        let state = place::state().ok_or(UNKNOWN)?;
        if !state.hanging.iter().any(|hanging| hanging == symbol) {
            return Ok(state);
        }
        poll();
    }
}

/// The pause between two looks at the scenario, in milliseconds. C waits here, and there is nothing to
/// be told by.
pub(crate) const POLL_MILLISECONDS: u16 = 5;

pub(crate) fn poll() {
    // SAFETY: of no descriptors, so none is read or written.
    unsafe { libc::poll(std::ptr::null_mut(), 0, POLL_MILLISECONDS.into()) };
}

/// Whether the scenario has a function fail, or a GPU fail every function. That a GPU cannot be asked
/// does not keep the driver from answering.
pub(crate) fn refusal(state: &State, symbol: &str, index: Option<usize>) -> Answer {
    let of_gpu = || index.and_then(|index| refusal_of(state, "*", Some(index)));
    refusal_of(state, symbol, index).or_else(of_gpu).map_or(Ok(()), Err)
}

/// The code that the scenario has a function fail with, by name.
pub(crate) fn refusal_of(
    state: &State,
    symbol: &str,
    index: Option<usize>,
) -> Option<nvmlReturn_t> {
    let codes = state.errors.get(symbol)?;
    let own = index.and_then(|index| codes.get(&index.to_string()));
    own.or_else(|| codes.get("*")).map(|name| code(name))
}

/// The code of this name; that of an unknown failure, if there is none.
pub(crate) fn code(name: &str) -> nvmlReturn_t {
    CODES.iter().find(|(known, _)| *known == name).map_or(UNKNOWN, |(_, code)| *code)
}

/// A handle is its GPU's index and one: it is never null.
pub(crate) fn handle(index: usize) -> nvmlDevice_t {
    std::ptr::without_provenance_mut(index + 1)
}

pub(crate) fn index_of(device: nvmlDevice_t) -> Option<usize> {
    device.addr().checked_sub(1)
}

/// Writes an answer where C wants it.
///
/// # Safety
///
/// `to` is null, or can be written.
pub(crate) unsafe fn put<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes a text that ends with NUL.
///
/// # Safety
///
/// `to` is null, or has room for `length` bytes.
pub(crate) unsafe fn put_text(to: *mut libc::c_char, length: u32, text: &str) -> Answer {
    let room = usize::try_from(length).unwrap_or_default();
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() >= room {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller's promise; there is room for the text and its end.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), to.cast(), text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}
