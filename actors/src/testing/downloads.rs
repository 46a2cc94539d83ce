//! Downloads that grow as a test says.

use crate::domain::loading::Download;
use crate::domain::target::Target;
use crate::ports::{DownloadMeter, Downloads, Pending};
use crate::testing::queue::{Listener, Queue};

/// See the module.
#[derive(Debug, Default)]
pub struct ScriptedDownloads(Queue<Download>);

impl ScriptedDownloads {
    /// So much has come, of so much.
    pub fn grow_to(&self, bytes: u64, total: Option<u64>) {
        self.0.say(Download { bytes, total });
    }
}

impl Downloads for ScriptedDownloads {
    fn follow(&self, _: &Target) -> Box<dyn DownloadMeter> {
        Box::new(self.0.listener())
    }
}

impl DownloadMeter for Listener<Download> {
    fn next_growth(&mut self) -> Pending<'_, Download> {
        Box::pin(self.next())
    }
}
