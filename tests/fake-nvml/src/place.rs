//! Where the scenario is: in the directory that this copy of the library lies in.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::state::State;

/// The directory of the file that this very function was loaded from.
pub(crate) fn directory() -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let here: fn() -> Option<PathBuf> = directory;
    // SAFETY: the address is one of ours, and `info` is written before it is read.
    let found = unsafe { libc::dladdr(here as *const libc::c_void, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's own copy of the name, which lives as long as the library.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let file = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
    Some(file.parent()?.to_owned())
}

/// What the scenario says now. Whoever changes it replaces the file.
pub(crate) fn state() -> Option<State> {
    let text = fs::read(directory()?.join("state.json")).ok()?;
    serde_json::from_slice(&text).ok()
}
