//! Models as a supervisor judges them.

use vllm_supervisor_actors::adapters::preflight::Preflight;
use vllm_supervisor_actors::domain::cause::Cause;
use vllm_supervisor_actors::domain::spec::ModelId;
use vllm_supervisor_actors::ports::{ModelCheck, Pending};

use crate::config::{ModelReferenceError, NamesOfProcess};

/// Models as they are named in a configuration, with what is known of them before they are loaded.
#[derive(Debug)]
pub(super) struct ModelsOfProcess {
    pub(super) preflight: Preflight,
}

impl ModelCheck for ModelsOfProcess {
    fn judge(&self, model: &ModelId) -> Result<ModelId, ModelReferenceError> {
        NamesOfProcess::model(model.as_str())
    }

    fn check(&self, model: &ModelId) -> Pending<'static, Result<(), Cause>> {
        Box::pin(self.preflight.clone().refuse(model.clone()))
    }
}
