//! What comes before a launch is started.

use std::fmt;

use super::recipe::{Foresee, Foreseen, foresee};
use crate::adapters::gpu::GpuRoom;
use crate::domain::cause::Cause;
use crate::domain::target::Target;

/// See the module.
#[derive(Clone)]
pub(super) struct Before {
    /// For what.
    pub(super) target: Target,
    /// Tells what is to be looked at.
    pub(super) foresee: Foresee,
    /// Waits for room on the GPUs.
    pub(super) room: Option<GpuRoom>,
}

impl fmt::Debug for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Before").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Before {
    /// Returns when it may be started.
    pub(super) async fn pass(self) -> Result<(), Cause> {
        let Self { target: Target { model, arguments }, foresee: by, room } = self;
        let Some(Foreseen { preflight, filled }) = foresee(&by, &arguments).await else {
            return Ok(());
        };
        preflight.refuse(model).await?;
        match room {
            Some(room) => room.wait(&filled).await,
            None => Ok(()),
        }
    }
}
