//! The actor that hears what a service manager says of the unit that it runs vLLM as.
//!
//! It passes on what the manager tells, in its order; it asks for nothing to be done, and judges nothing.

use std::sync::Arc;

use ractor::{ActorProcessingErr, ActorRef, DerivedActorRef};

use crate::domain::unit::UnitReading;
use crate::message::messages;
use crate::ports::UnitSource;
use crate::tell::{OwnedTask, report};

/// See the module.
#[derive(Debug)]
pub struct UnitActor;

/// What a [`UnitActor`] is given.
#[derive(Debug)]
pub struct UnitArgs {
    /// Asks the manager.
    pub source: Arc<dyn UnitSource>,
    /// Where reports go.
    pub root: DerivedActorRef<UnitReading>,
}

/// The state of a [`UnitActor`].
#[derive(Debug)]
pub struct UnitState {
    /// Waits for what the manager says next.
    _listener: OwnedTask,
}

/// What a [`UnitActor`] is told: nothing.
#[derive(Debug)]
pub enum UnitMessage {}

messages!(UnitMessage);

#[ractor::actor(message = UnitMessage, state = UnitState, arguments = UnitArgs)]
impl UnitActor {
    async fn pre_start(
        &self,
        myself: ActorRef<UnitMessage>,
        args: UnitArgs,
    ) -> Result<UnitState, ActorProcessingErr> {
        let UnitArgs { source, root } = args;
        let mut readings = source.follow();
        let listener = OwnedTask::begin(myself.get_cell(), async move {
            loop {
                let reading = readings.next_reading().await;
                report(&root, reading);
            }
        });
        Ok(UnitState { _listener: listener })
    }
}
