//! The configuration of a program that settles things itself: what it gives need not be found out,
//! so what cannot be found out is a problem only of what it leaves.

use super::model_reference::ModelReference;
use super::problem::{ConfigError, Problem};
use super::secret::{self, HF_TOKEN, Secret, VLLM_API_KEY};
use super::sources::Sources;
use super::{Config, LifecycleMode, validate};

/// A configuration, and what could not be read for it.
#[derive(Debug)]
pub(crate) struct Draft {
    config: Config,
    /// The model as it was named here, what was made of that, and why it cannot be launched by that name.
    named: Option<(String, ModelReference, Option<Problem>)>,
    /// Why the environment gives no token though it names one.
    hf_token: Option<Problem>,
    /// Why the environment gives no key though it names one.
    vllm_api_key: Option<Problem>,
}

impl Draft {
    /// The defaults for a model, with the directories and the secrets of a process's environment. A state directory that cannot be told is empty.
    pub(crate) fn of_model(text: &str, process: &Sources) -> Self {
        let unnamed = ModelReference::Listed(text.to_owned());
        let mut config =
            Config::with_defaults(unnamed, process.state_directory().unwrap_or_default());
        config.cache_dir = process.cache_directory();
        let mut draft = Self::from(config).with_model(text, process);
        let secrets = &mut draft.config.secrets;
        (secrets.hf_token, draft.hf_token) = found(HF_TOKEN, process);
        (secrets.vllm_api_key, draft.vllm_api_key) = found(VLLM_API_KEY, process);
        draft
    }

    /// The same with another model.
    pub(crate) fn with_model(mut self, text: &str, process: &Sources) -> Self {
        let (model, problem) =
            match ModelReference::parse(text, &process.working_directory, process.home()) {
                Ok(model) => (model, None),
                Err(error) => {
                    let problem = validate::invalid_model(error).with_value(text);
                    (ModelReference::Listed(text.to_owned()), Some(problem.in_code()))
                }
            };
        self.config.model = model.clone();
        self.named = Some((text.to_owned(), model, problem));
        self
    }

    /// What the program gives itself.
    pub(crate) fn edit(&mut self, edit: impl FnOnce(&mut Config)) {
        edit(&mut self.config);
    }

    /// The configuration, if it can be used.
    pub(crate) fn settle(mut self) -> Result<Config, ConfigError> {
        if let Some((name, made, problem)) = &mut self.named
            && self.config.lifecycle.mode != LifecycleMode::Managed
            && self.config.model == *made
        {
            // It is whatever name the server lists.
            self.config.model = ModelReference::Listed(std::mem::take(name));
            *problem = None;
        }
        let mut problems = self.config.problems();
        problems.extend(self.unread().cloned());
        problems.sort();
        problems.dedup();
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

    /// What is wrong with what the program has not replaced.
    fn unread(&self) -> impl Iterator<Item = &Problem> {
        let is_named = matches!(self.config.model, ModelReference::Listed(_));
        let model = self.named.iter().filter_map(|(_, _, problem)| problem.as_ref());
        let model = model.filter(move |_| is_named);
        let secrets = &self.config.secrets;
        let hf_token = self.hf_token.iter().filter(|_| secrets.hf_token.is_none());
        let key = self.vllm_api_key.iter().filter(|_| secrets.vllm_api_key.is_none());
        model.chain(hf_token).chain(key)
    }
}

/// A configuration that was settled elsewhere; of the environment it needs nothing.
impl From<Config> for Draft {
    fn from(config: Config) -> Self {
        Self { config, named: None, hf_token: None, vllm_api_key: None }
    }
}

fn found(variable: &str, process: &Sources) -> (Option<Secret>, Option<Problem>) {
    match secret::from_environment(variable, &process.environment, &process.working_directory) {
        Ok(found) => (found.map(|(secret, _)| secret), None),
        Err(problem) => (None, Some(problem)),
    }
}
