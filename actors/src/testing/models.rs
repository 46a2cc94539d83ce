//! Models whose names are judged as a test says.

use std::sync::{Mutex, PoisonError};

use crate::domain::spec::{ModelId, ModelReferenceError};
use crate::ports::ModelNames;

/// Takes every name but those that the test forbids.
#[derive(Debug, Default)]
pub struct ScriptedModels(Mutex<Vec<ModelId>>);

impl ScriptedModels {
    /// There is no such directory.
    pub fn forbid(&self, model: ModelId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(model);
    }
}

impl ModelNames for ScriptedModels {
    fn judge(&self, model: &ModelId) -> Result<ModelId, ModelReferenceError> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(model) {
            return Err(ModelReferenceError::NoSuchDirectory);
        }
        Ok(model.clone())
    }
}
