//! The deaths in one tree, as one listener hears them.

use tokio::sync::mpsc;

use crate::ports::{Death, DeathSource, Pending};

/// The deaths that one listener hears.
pub(super) struct Deaths(pub(super) Option<mpsc::UnboundedReceiver<Death>>);

impl DeathSource for Deaths {
    fn next_death(&mut self) -> Pending<'_, Death> {
        Box::pin(async {
            if let Some(deaths) = &mut self.0
                && let Some(death) = deaths.recv().await
            {
                return death;
            }
            std::future::pending().await
        })
    }
}
