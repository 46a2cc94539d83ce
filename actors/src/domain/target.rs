//! What a launch is to serve: a model, and what vLLM is told besides.

use std::sync::Arc;

use crate::domain::spec::ModelId;

/// What vLLM is told besides its model and what the supervisor sets itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arguments {
    words: Arc<[String]>,
    served_name: Option<String>,
}

impl Arguments {
    /// These words, as they stand on vLLM's command line. `served_name` is the name that they give the
    /// model (`--served-model-name`), if they do.
    pub fn new(words: Vec<String>, served_name: Option<String>) -> Self {
        Self { words: words.into(), served_name }
    }

    /// The words, in their order.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The name under which vLLM lists the model, if it is not the model's own.
    pub fn served_name(&self) -> Option<&str> {
        self.served_name.as_deref()
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The model.
    pub model: ModelId,
    /// What vLLM is told besides.
    pub arguments: Arguments,
}

impl Target {
    /// The name under which vLLM lists the model.
    pub fn listed_name(&self) -> &str {
        self.arguments.served_name().unwrap_or(self.model.as_str())
    }
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wanted {
    /// The model.
    pub model: ModelId,
    /// What vLLM is to be told besides; `None` where the asker does not mind: as the model is served, or to
    /// be served, now, else as configured.
    pub arguments: Option<Arguments>,
}

impl Wanted {
    /// Whether this is what is asked for.
    pub fn is(&self, target: &Target) -> bool {
        let Self { model, arguments } = self;
        *model == target.model && arguments.as_ref().is_none_or(|it| *it == target.arguments)
    }
}

impl From<ModelId> for Wanted {
    fn from(model: ModelId) -> Self {
        Self { model, arguments: None }
    }
}
