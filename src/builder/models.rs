//! Models as a supervisor judges them.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use vllm_supervisor_actors::adapters::launcher::{self, Foresee, Foreseen};
use vllm_supervisor_actors::domain::cause::Cause;
use vllm_supervisor_actors::domain::spec::ModelId;
use vllm_supervisor_actors::domain::target::{Arguments, Target};
use vllm_supervisor_actors::ports::{ModelCheck, Pending};

use crate::config::{ModelReferenceError, NamesOfProcess};
use crate::launch_recipe;

/// Models as they are named in a configuration, with what is known of them before they are loaded.
pub(super) struct ModelsOfProcess {
    foresee: Foresee,
    configured: Arguments,
    /// One look at a time: on a disk that hangs none comes to an end, and nobody waits for a second.
    looks: Arc<Semaphore>,
}

impl ModelsOfProcess {
    pub(super) fn new(foresee: Foresee, configured: Arguments) -> Self {
        Self { foresee, configured, looks: Arc::new(Semaphore::new(1)) }
    }
}

impl fmt::Debug for ModelsOfProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelsOfProcess").finish_non_exhaustive()
    }
}

impl ModelCheck for ModelsOfProcess {
    fn judge(&self, model: &ModelId) -> Result<ModelId, ModelReferenceError> {
        NamesOfProcess::model(model.as_str())
    }

    fn arguments(&self, words: Vec<String>) -> Result<Arguments, Cause> {
        launch_recipe::arguments_of_a_switch(words, &self.configured)
    }

    fn check(&self, target: &Target) -> Pending<'static, Result<(), Cause>> {
        let Ok(turn) = Arc::clone(&self.looks).try_acquire_owned() else {
            return Box::pin(async { Ok(()) });
        };
        let (foresee, target) = (Arc::clone(&self.foresee), target.clone());
        Box::pin(async move {
            match launcher::foresee(&foresee, &target.arguments).await {
                Some(Foreseen { preflight, .. }) => preflight.refuse_in(target.model, turn).await,
                None => Ok(()),
            }
        })
    }
}
