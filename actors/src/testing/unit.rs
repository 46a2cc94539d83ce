//! A service manager that says what a test has it say.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

use crate::domain::unit::{UnitReading, UnitStatus};
use crate::ports::{Pending, UnitReadings, UnitSource};

/// See the module.
#[derive(Debug)]
pub struct ScriptedUnit {
    sender: mpsc::UnboundedSender<UnitReading>,
    receiver: Arc<Mutex<mpsc::UnboundedReceiver<UnitReading>>>,
}

impl Default for ScriptedUnit {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Arc::new(Mutex::new(receiver)) }
    }
}

impl ScriptedUnit {
    /// Has it say this.
    pub fn say(&self, reading: UnitReading) {
        // The receiver lives as long as we do.
        drop(self.sender.send(reading));
    }

    /// Has it tell of the unit.
    pub fn tell(&self, status: UnitStatus) {
        self.say(UnitReading::Seen(status));
    }
}

impl UnitSource for ScriptedUnit {
    fn follow(&self) -> Box<dyn UnitReadings> {
        Box::new(Readings(Arc::clone(&self.receiver)))
    }
}

struct Readings(Arc<Mutex<mpsc::UnboundedReceiver<UnitReading>>>);

impl UnitReadings for Readings {
    fn next_reading(&mut self) -> Pending<'_, UnitReading> {
        Box::pin(async {
            match self.0.lock().await.recv().await {
                Some(reading) => reading,
                None => std::future::pending().await,
            }
        })
    }
}
