//! A service manager that says what a test has it say.

use crate::domain::unit::{UnitReading, UnitStatus};
use crate::ports::{Pending, UnitReadings, UnitSource};
use crate::testing::queue::{Listener, Queue};

/// See the module.
#[derive(Debug, Default)]
pub struct ScriptedUnit(Queue<UnitReading>);

impl ScriptedUnit {
    /// Has it tell of the unit.
    pub fn tell(&self, status: UnitStatus) {
        self.0.say(UnitReading::Seen(status));
    }
}

impl UnitSource for ScriptedUnit {
    fn follow(&self) -> Box<dyn UnitReadings> {
        Box::new(self.0.listener())
    }
}

impl UnitReadings for Listener<UnitReading> {
    fn next_reading(&mut self) -> Pending<'_, UnitReading> {
        Box::pin(self.next())
    }
}
