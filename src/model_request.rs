//! What somebody asks to be served.

/// A model to be switched to, and what vLLM is to be told besides.
///
/// ```
/// # use vllm_supervisor::ModelRequest;
/// let by_name = ModelRequest::from("Qwen/Qwen3-0.6B");
/// let longer = ModelRequest::new("Qwen/Qwen3-0.6B").extra_args(["--max-model-len", "32768"]);
/// assert_ne!(by_name, longer);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelRequest {
    pub(crate) model: String,
    pub(crate) extra_args: Option<Vec<String>>,
}

impl ModelRequest {
    /// This model (`namespace/name` of Hugging Face, or a path), with the arguments with which it is served
    /// now, if it is, else with the `extra_args` of the configuration.
    pub fn new(model: impl Into<String>) -> Self {
        Self { model: model.into(), extra_args: None }
    }

    /// With these arguments of `vllm serve` in place of the configuration's `extra_args`. What those may not
    /// have these may not have either. Which GPUs are used stays as it is configured: `--device-ids` and
    /// `--data-parallel-size` are taken over from there.
    #[must_use]
    pub fn extra_args(self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { extra_args: Some(words.into_iter().map(Into::into).collect()), ..self }
    }
}

impl From<&str> for ModelRequest {
    fn from(model: &str) -> Self {
        Self::new(model)
    }
}

impl From<&String> for ModelRequest {
    fn from(model: &String) -> Self {
        Self::new(model)
    }
}

impl From<String> for ModelRequest {
    fn from(model: String) -> Self {
        Self::new(model)
    }
}
