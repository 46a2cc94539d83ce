//! Models as a supervisor judges them.

use std::sync::Arc;

use tokio::sync::Semaphore;
use vllm_supervisor_actors::adapters::preflight::Preflight;
use vllm_supervisor_actors::domain::cause::Cause;
use vllm_supervisor_actors::domain::spec::ModelId;
use vllm_supervisor_actors::ports::{ModelCheck, Pending};

use crate::config::{ModelReferenceError, NamesOfProcess};

/// Models as they are named in a configuration, with what is known of them before they are loaded.
#[derive(Debug)]
pub(super) struct ModelsOfProcess {
    preflight: Preflight,
    /// One look at a time: on a disk that hangs none comes to an end, and nobody waits for a second.
    looks: Arc<Semaphore>,
}

impl ModelsOfProcess {
    pub(super) fn new(preflight: Preflight) -> Self {
        Self { preflight, looks: Arc::new(Semaphore::new(1)) }
    }
}

impl ModelCheck for ModelsOfProcess {
    fn judge(&self, model: &ModelId) -> Result<ModelId, ModelReferenceError> {
        NamesOfProcess::model(model.as_str())
    }

    fn check(&self, model: &ModelId) -> Pending<'static, Result<(), Cause>> {
        let Ok(turn) = Arc::clone(&self.looks).try_acquire_owned() else {
            return Box::pin(async { Ok(()) });
        };
        Box::pin(self.preflight.clone().refuse_in(model.clone(), turn))
    }
}
