//! What is asked of the driver.

use libc::{c_char, c_int, c_uint};
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::call::{NOT_FOUND, code, handle, of_driver, put, put_text, refusal_of};
use crate::state::State;

fn open(state: State) -> Result<(), nvmlReturn_t> {
    state.init_error.map_or(Ok(()), |name| Err(code(&name)))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    of_driver("nvmlInit_v2", open)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    of_driver("nvmlInitWithFlags", open)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    of_driver("nvmlShutdown", |_| Ok(()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(to: *mut c_char, length: c_uint) -> nvmlReturn_t {
    // SAFETY: nvml.h's contract: room for `length` bytes.
    of_driver("nvmlSystemGetDriverVersion", |state| unsafe {
        put_text(to, length, &state.driver_version)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetNVMLVersion(to: *mut c_char, length: c_uint) -> nvmlReturn_t {
    // SAFETY: as above.
    of_driver("nvmlSystemGetNVMLVersion", |state| unsafe {
        put_text(to, length, &format!("13.{}", state.driver_version))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(to: *mut c_int) -> nvmlReturn_t {
    // SAFETY: nvml.h's contract: a place for one number.
    of_driver("nvmlSystemGetCudaDriverVersion_v2", |_| unsafe { put(to, 13_000) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(to: *mut c_uint) -> nvmlReturn_t {
    of_driver("nvmlDeviceGetCount_v2", |state| {
        let count = c_uint::try_from(state.gpus.len()).unwrap_or_default();
        // SAFETY: nvml.h's contract: a place for one number.
        unsafe { put(to, count) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    to: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    const SYMBOL: &str = "nvmlDeviceGetHandleByIndex_v2";
    of_driver(SYMBOL, |state| {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        state.gpus.get(index).ok_or(NOT_FOUND)?;
        // Of a GPU that is lost there is a handle, unless a scenario says otherwise by name.
        refusal_of(&state, SYMBOL, Some(index)).map_or(Ok(()), Err)?;
        // SAFETY: nvml.h's contract: a place for one handle.
        unsafe { put(to, handle(index)) }
    })
}
