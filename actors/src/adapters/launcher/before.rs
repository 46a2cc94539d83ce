//! What comes before a launch is started.

use crate::adapters::gpu::GpuRoom;
use crate::adapters::preflight::Preflight;
use crate::domain::cause::Cause;
use crate::domain::gpu::Devices;
use crate::domain::spec::ModelId;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Before {
    /// What is looked at.
    pub(super) preflight: Preflight,
    /// For what.
    pub(super) model: ModelId,
    /// Waits for room on the GPUs that are to have some.
    pub(super) room: Option<(GpuRoom, Devices)>,
}

impl Before {
    /// Returns when it may be started.
    pub(super) async fn pass(self) -> Result<(), Cause> {
        self.preflight.refuse(self.model).await?;
        match self.room {
            Some((room, filled)) => room.wait(&filled).await,
            None => Ok(()),
        }
    }
}
