//! Keeps the record of a launch true for as long as it lives.

use std::io;
use std::sync::{Arc, PoisonError};

use super::claim::Launch;
use crate::adapters::process_record::RecordError;
use crate::domain::diagnosis::Phase;

impl Launch {
    /// The next supervisor is to know that what was switched to has served.
    pub(super) fn keep_switch(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = &mut *written else { return };
        let Some(switched) = record.switched.as_mut().filter(|it| it.phase == Phase::Loading)
        else {
            return;
        };
        switched.phase = Phase::Serving;
        if let Err(error) = self.traces.record.write(record) {
            tracing::warn!(%error, "it cannot be kept that a switch has succeeded");
        }
    }

    /// Writes the record again if it is not there as it was written, be it that it was removed, with
    /// the whole directory, or replaced by another or spoiled: vLLM outlives us.
    pub(super) fn keep_record(&self) {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = &*written else { return };
        let file = &self.traces.record;
        let aside = match file.read() {
            Ok(Some(there)) if there == *record => return,
            // A directory could not be replaced.
            Err(RecordError::NotAFile) => file.set_aside().map(drop),
            Ok(_) | Err(_) => Ok(()),
        };
        tracing::warn!("the record of the running vLLM is not there any more");
        let restored = self.traces.state.restore().map_err(io::Error::other);
        let kept = restored.and_then(|()| self.spare_another()).and(aside);
        if let Err(error) = kept.and_then(|()| file.write(record)) {
            tracing::error!(%error, "the next supervisor has to search for vLLM");
        }
    }

    /// In another directory than ours, what is on record may live, and its supervisor have ended.
    fn spare_another(&self) -> io::Result<()> {
        if Arc::ptr_eq(&self.directory, &self.traces.state.present().now()) {
            return Ok(());
        }
        let there = self.traces.record.read().map_err(io::Error::other)?;
        let another = there.filter(|there| there.marker != self.traces.marker);
        let living = another.map_or(Ok(None), |it| it.living_main()).map_err(io::Error::other)?;
        living.map_or(Ok(()), |pid| {
            Err(io::Error::other(format!("another vLLM is on record there, process {pid}")))
        })
    }
}
