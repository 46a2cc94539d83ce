//! What a [`ModelLoaderActor`](super::ModelLoaderActor) is told.

use tokio::sync::OwnedSemaphorePermit;

use crate::domain::id::Incarnation;
use crate::domain::loading::Download;
use crate::domain::target::Target;
use crate::message::messages;

/// What a [`ModelLoaderActor`](super::ModelLoaderActor) is told.
#[derive(Debug)]
pub enum ModelLoaderMessage {
    /// Read the output of this launch; leave that of the one before.
    Follow {
        /// Which launch.
        incarnation: Incarnation,
        /// What it loads.
        target: Target,
    },
    /// Read nothing.
    Cease,
    /// Output came (from itself).
    Read {
        /// Which launch.
        incarnation: Incarnation,
        /// The lines.
        lines: Vec<String>,
        /// Dropped when they have been taken, which lets the next ones be read.
        turn: OwnedSemaphorePermit,
    },
    /// More of the model has come (from itself).
    Downloaded {
        /// Which launch.
        incarnation: Incarnation,
        /// How much there is.
        download: Download,
    },
    /// Time to say where the load stands (from itself).
    StandingDue {
        /// Which launch.
        incarnation: Incarnation,
    },
}

messages!(ModelLoaderMessage);
