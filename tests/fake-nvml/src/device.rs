//! What is asked of a GPU: who it is, and what it does.

use libc::{c_char, c_int, c_uint, c_ulonglong};
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlMemory_v2_t, nvmlProcessInfo_t, nvmlReturn_t, nvmlUtilization_t,
};

use crate::call::{Answer, Asked, INSUFFICIENT_SIZE, NOT_SUPPORTED, of_gpu, put, put_text};
use crate::processes;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(
    device: nvmlDevice_t,
    to: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    // SAFETY: nvml.h's contract: room for `length` bytes.
    of_gpu("nvmlDeviceGetName", device, |asked| unsafe { put_text(to, length, &asked.gpu().name) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(
    device: nvmlDevice_t,
    to: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    // SAFETY: nvml.h's contract: room for `length` bytes.
    of_gpu("nvmlDeviceGetUUID", device, |asked| unsafe { put_text(to, length, &asked.gpu().uuid) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetIndex(device: nvmlDevice_t, to: *mut c_uint) -> nvmlReturn_t {
    of_gpu("nvmlDeviceGetIndex", device, |asked| {
        let index = c_uint::try_from(asked.index).unwrap_or_default();
        // SAFETY: nvml.h's contract: a place for one number.
        unsafe { put(to, index) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMinorNumber(
    device: nvmlDevice_t,
    to: *mut c_uint,
) -> nvmlReturn_t {
    of_gpu("nvmlDeviceGetMinorNumber", device, |asked| {
        let minor = c_uint::try_from(asked.index).unwrap_or_default();
        // SAFETY: nvml.h's contract: a place for one number.
        unsafe { put(to, minor) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: nvmlDevice_t,
    major: *mut c_int,
    minor: *mut c_int,
) -> nvmlReturn_t {
    // SAFETY: nvml.h's contract: places for two numbers.
    of_gpu("nvmlDeviceGetCudaComputeCapability", device, |_| unsafe {
        put(major, 9)?;
        put(minor, 0)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    to: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    of_gpu("nvmlDeviceGetMemoryInfo_v2", device, |asked| {
        let gpu = asked.gpu();
        let total = gpu.memory_total.ok_or(NOT_SUPPORTED)?;
        let of_processes: u64 = processes::of(asked).iter().map(|process| process.bytes).sum();
        let reserved = gpu.memory_reserved;
        let used = (gpu.memory_used + of_processes).min(total - reserved);
        let free = total - reserved - used;
        // SAFETY: nvml.h's contract: a place for one structure, whose version is set.
        unsafe { put(to, nvmlMemory_v2_t { version: (*to).version, total, reserved, free, used }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    device: nvmlDevice_t,
    to: *mut nvmlUtilization_t,
) -> nvmlReturn_t {
    of_gpu("nvmlDeviceGetUtilizationRates", device, |asked| {
        let gpu = asked.gpu().utilization.ok_or(NOT_SUPPORTED)?;
        // SAFETY: nvml.h's contract: a place for one structure.
        unsafe { put(to, nvmlUtilization_t { gpu, memory: 0 }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: nvmlDevice_t,
    _sensor: c_uint,
    to: *mut c_uint,
) -> nvmlReturn_t {
    of_gpu("nvmlDeviceGetTemperature", device, |asked| {
        let degrees = asked.gpu().temperature.ok_or(NOT_SUPPORTED)?;
        // SAFETY: nvml.h's contract: a place for one number.
        unsafe { put(to, degrees) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPowerUsage(
    device: nvmlDevice_t,
    to: *mut c_uint,
) -> nvmlReturn_t {
    of_gpu("nvmlDeviceGetPowerUsage", device, |asked| {
        let milliwatts = asked.gpu().power_mw.ok_or(NOT_SUPPORTED)?;
        // SAFETY: nvml.h's contract: a place for one number.
        unsafe { put(to, milliwatts) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    device: nvmlDevice_t,
    to: *mut c_ulonglong,
) -> nvmlReturn_t {
    of_gpu("nvmlDeviceGetCurrentClocksThrottleReasons", device, |asked| {
        let reasons = asked.gpu().throttle_reasons.ok_or(NOT_SUPPORTED)?;
        // SAFETY: nvml.h's contract: a place for one number.
        unsafe { put(to, reasons) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    of_gpu("nvmlDeviceGetComputeRunningProcesses_v3", device, |asked| {
        // SAFETY: nvml.h's contract: a number, and room for as many structures.
        unsafe { put_processes(asked, count, to) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    _to: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    // SAFETY: nvml.h's contract: a number.
    of_gpu("nvmlDeviceGetGraphicsRunningProcesses_v3", device, |_| unsafe { put(count, 0) })
}

/// nvml.h: the number is always told; where there is no room for so many, that is said.
unsafe fn put_processes(asked: &Asked, count: *mut c_uint, to: *mut nvmlProcessInfo_t) -> Answer {
    let processes = processes::of(asked);
    // SAFETY: the caller's promise.
    let room = usize::try_from(unsafe { *count }).unwrap_or_default();
    let found = c_uint::try_from(processes.len()).unwrap_or_default();
    // SAFETY: the caller's promise.
    unsafe { put(count, found)? };
    if processes.len() > room || (to.is_null() && !processes.is_empty()) {
        return Err(INSUFFICIENT_SIZE);
    }
    for (at, process) in processes.iter().enumerate() {
        let info = nvmlProcessInfo_t {
            pid: process.pid,
            usedGpuMemory: process.bytes,
            gpuInstanceId: c_uint::MAX,
            computeInstanceId: c_uint::MAX,
        };
        // SAFETY: the caller's promise, and there is room.
        unsafe { put(to.add(at), info)? };
    }
    Ok(())
}
