//! Models whose names are judged as a test says.

use std::sync::{Mutex, PoisonError};

use crate::domain::cause::{Cause, Code};
use crate::domain::spec::{ModelId, ModelReferenceError};
use crate::domain::target::{Arguments, Target};
use crate::ports::{ModelCheck, Pending};

/// Takes every model but those that the test forbids.
#[derive(Debug, Default)]
pub struct ScriptedModels {
    forbidden: Mutex<Vec<ModelId>>,
    broken: Mutex<Vec<(ModelId, Cause)>>,
}

impl ScriptedModels {
    /// There is no such directory.
    pub fn forbid(&self, model: ModelId) {
        self.forbidden.lock().unwrap_or_else(PoisonError::into_inner).push(model);
    }

    /// It could not be loaded, and that is known beforehand.
    pub fn refuse(&self, model: ModelId, cause: Cause) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).push((model, cause));
    }
}

impl ModelCheck for ScriptedModels {
    fn judge(&self, model: &ModelId) -> Result<ModelId, ModelReferenceError> {
        if self.forbidden.lock().unwrap_or_else(PoisonError::into_inner).contains(model) {
            return Err(ModelReferenceError::NoSuchDirectory);
        }
        Ok(model.clone())
    }

    fn arguments(&self, words: Vec<String>) -> Result<Arguments, Cause> {
        match words.iter().find(|word| word.starts_with("--port")) {
            None => Ok(Arguments::new(words, None)),
            Some(word) => Err(Cause::new(Code::InvalidConfiguration, format!("{word} is ours"))),
        }
    }

    fn check(&self, target: &Target) -> Pending<'static, Result<(), Cause>> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let cause = broken
            .iter()
            .find(|(broken, _)| *broken == target.model)
            .map(|(_, cause)| cause.clone());
        Box::pin(async move { cause.map_or(Ok(()), Err) })
    }
}
