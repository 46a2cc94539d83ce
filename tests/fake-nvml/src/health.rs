//! What is asked of a GPU: how well it is.

use libc::{c_int, c_uint, c_ulonglong};
use nvml_wrapper_sys::bindings::{
    field_id, nvmlDevice_t, nvmlEnableState_t, nvmlFieldValue_t, nvmlReturn_t, nvmlValue_t,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT,
};

use crate::call::{NOT_SUPPORTED, SUCCESS, of_gpu, put};
use crate::state::GpuState;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetEccMode(
    device: nvmlDevice_t,
    current: *mut nvmlEnableState_t,
    pending: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    of_gpu("nvmlDeviceGetEccMode", device, |asked| {
        let enabled = nvmlEnableState_t::from(asked.gpu().uncorrectable_errors.is_some());
        // SAFETY: nvml.h's contract: places for two numbers.
        unsafe {
            put(current, enabled)?;
            put(pending, enabled)
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    kind: c_uint,
    _counter: c_uint,
    to: *mut c_ulonglong,
) -> nvmlReturn_t {
    of_gpu("nvmlDeviceGetTotalEccErrors", device, |asked| {
        let errors = asked.gpu().uncorrectable_errors.ok_or(NOT_SUPPORTED)?;
        // SAFETY: nvml.h's contract: a place for one number. Kind 0 is what was corrected.
        unsafe { put(to, if kind == 0 { 0 } else { errors }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    of_gpu("nvmlDeviceGetMigMode", device, |asked| {
        let mode = c_uint::from(asked.gpu().mig.ok_or(NOT_SUPPORTED)?);
        // SAFETY: nvml.h's contract: places for two numbers.
        unsafe {
            put(current, mode)?;
            put(pending, mode)
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    of_gpu("nvmlDeviceGetFieldValues", device, |asked| {
        for at in 0..usize::try_from(count).unwrap_or_default() {
            // SAFETY: nvml.h's contract: as many structures, whose fields are named.
            let value = unsafe { &mut *values.add(at) };
            value.valueType = nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
            let reading = field(asked.gpu(), value.fieldId);
            value.nvmlReturn = if reading.is_some() { SUCCESS } else { NOT_SUPPORTED };
            value.value = nvmlValue_t { uiVal: reading.unwrap_or_default() };
        }
        Ok(())
    })
}

fn field(gpu: &GpuState, id: u32) -> Option<u32> {
    match id {
        field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => gpu.recovery_action,
        field_id::NVML_FI_DEV_REMAPPED_PENDING => gpu.remap_pending.map(u32::from),
        field_id::NVML_FI_DEV_REMAPPED_FAILURE => gpu.remap_failed.map(u32::from),
        _ => None,
    }
}
