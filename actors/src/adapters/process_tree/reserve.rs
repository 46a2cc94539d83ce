//! Descriptors kept for looking at the limit: a directory, a file, and two processes.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use crate::domain::absence::ScanError;

const COUNT: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Reserve(Mutex<Vec<OwnedFd>>);

impl Reserve {
    pub(super) fn taken() -> Result<Self, ScanError> {
        Ok(Self(Mutex::new(descriptors()?)))
    }

    /// Frees them for whoever needs them now.
    pub(super) fn give(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn take(&self) {
        // At the limit there is none to be had; the next sweep may fail for that, and says so.
        if let Ok(descriptors) = descriptors() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = descriptors;
        }
    }
}

fn descriptors() -> Result<Vec<OwnedFd>, ScanError> {
    let open = || File::open("/dev/null").map(OwnedFd::from);
    let all: Result<Vec<_>, _> = std::iter::repeat_with(open).take(COUNT).collect();
    all.map_err(|error| ScanError::new("/dev/null", &error))
}
