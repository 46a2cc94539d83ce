//! The configuration of a program that settles things itself: what it gives need not be found out,
//! so what cannot be found out is a problem only of what it leaves.

use super::model_reference::ModelReference;
use super::problem::{ConfigError, Problem};
use super::secret::{self, HF_TOKEN, Secret, VLLM_API_KEY};
use super::sources::Sources;
use super::{Config, validate};

/// A configuration, and what could not be read for it.
#[derive(Debug)]
pub(crate) struct Draft {
    config: Config,
    /// Why the environment gives no token though it names one.
    hf_token: Option<Problem>,
    /// Why the environment gives no key though it names one.
    vllm_api_key: Option<Problem>,
}

impl Draft {
    /// The defaults for a model, with the directories and the secrets of a process's environment. A state directory that cannot be told is empty.
    pub(crate) fn of_model(text: &str, process: &Sources) -> Result<Self, ConfigError> {
        let model = model(text, process)?;
        let mut config =
            Config::with_defaults(model, process.state_directory().unwrap_or_default());
        config.cache_dir = process.cache_directory();
        let mut draft = Self::from(config);
        let secrets = &mut draft.config.secrets;
        (secrets.hf_token, draft.hf_token) = found(HF_TOKEN, process);
        (secrets.vllm_api_key, draft.vllm_api_key) = found(VLLM_API_KEY, process);
        Ok(draft)
    }

    /// The same with another model.
    pub(crate) fn with_model(mut self, text: &str, process: &Sources) -> Result<Self, ConfigError> {
        self.config.model = model(text, process)?;
        Ok(self)
    }

    /// What the program gives itself.
    pub(crate) fn edit(&mut self, edit: impl FnOnce(&mut Config)) {
        edit(&mut self.config);
    }

    /// The configuration, if it can be used.
    pub(crate) fn settle(self) -> Result<Config, ConfigError> {
        let mut problems = self.config.problems();
        problems.extend(self.unread().cloned());
        problems.sort();
        self.unless(problems)
    }

    /// The configuration as it stands, if everything could be read that the environment names.
    pub(super) fn unedited(self) -> Result<Config, ConfigError> {
        let problems = self.unread().cloned().collect();
        self.unless(problems)
    }

    fn unless(self, problems: Vec<Problem>) -> Result<Config, ConfigError> {
        if problems.is_empty() {
            Ok(self.config)
        } else {
            Err(ConfigError { problems, file: None })
        }
    }

    /// What is wrong with a secret that the program has not replaced.
    fn unread(&self) -> impl Iterator<Item = &Problem> {
        let secrets = &self.config.secrets;
        let hf_token = self.hf_token.iter().filter(|_| secrets.hf_token.is_none());
        let key = self.vllm_api_key.iter().filter(|_| secrets.vllm_api_key.is_none());
        hf_token.chain(key)
    }
}

/// A configuration that was settled elsewhere; of the environment it needs nothing.
impl From<Config> for Draft {
    fn from(config: Config) -> Self {
        Self { config, hf_token: None, vllm_api_key: None }
    }
}

fn model(text: &str, process: &Sources) -> Result<ModelReference, ConfigError> {
    ModelReference::parse(text, &process.working_directory, process.home())
        .map_err(|error| ConfigError::of(validate::invalid_model(error).with_value(text)))
}

fn found(variable: &str, process: &Sources) -> (Option<Secret>, Option<Problem>) {
    match secret::from_environment(variable, &process.environment, &process.working_directory) {
        Ok(found) => (found.map(|(secret, _)| secret), None),
        Err(problem) => (None, Some(problem)),
    }
}
