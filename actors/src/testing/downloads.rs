//! Downloads that grow as a test says.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

use crate::domain::loading::Download;
use crate::domain::spec::ModelId;
use crate::ports::{DownloadMeter, Downloads, Pending};

/// See the module.
#[derive(Debug)]
pub struct ScriptedDownloads {
    sender: mpsc::UnboundedSender<Download>,
    receiver: Arc<Mutex<mpsc::UnboundedReceiver<Download>>>,
}

impl Default for ScriptedDownloads {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Arc::new(Mutex::new(receiver)) }
    }
}

impl ScriptedDownloads {
    /// So much has come, of so much.
    pub fn grow_to(&self, bytes: u64, total: Option<u64>) {
        // The receiver lives as long as we do.
        self.sender.send(Download { bytes, total }).ok();
    }
}

impl Downloads for ScriptedDownloads {
    fn follow(&self, _: &ModelId) -> Box<dyn DownloadMeter> {
        Box::new(Meter(Arc::clone(&self.receiver)))
    }
}

struct Meter(Arc<Mutex<mpsc::UnboundedReceiver<Download>>>);

impl DownloadMeter for Meter {
    fn next_growth(&mut self) -> Pending<'_, Download> {
        Box::pin(async {
            match self.0.lock().await.recv().await {
                Some(download) => download,
                None => std::future::pending().await,
            }
        })
    }
}
