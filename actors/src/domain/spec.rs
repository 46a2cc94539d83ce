//! What the rules need to know of the service. How to launch it is the launcher's business.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::domain::gpu::XidPolicy;
use crate::domain::restart::RestartPolicy;
use crate::domain::target::Target;

/// A model, named as vLLM is told it: a Hugging Face id, a path, or an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(String);

impl ModelId {
    /// A name that is safe to hand to vLLM as one argument.
    ///
    /// Whether such a model exists is not asked here.
    ///
    /// # Errors
    ///
    /// [`ModelIdError`] when the text is empty, has white space at an end or control characters
    /// anywhere, or starts with `-` (vLLM would read it as a flag).
    pub fn new(text: impl Into<String>) -> Result<Self, ModelIdError> {
        let text = text.into();
        if text.is_empty() {
            return Err(ModelIdError::Empty);
        }
        if text.starts_with('-') {
            return Err(ModelIdError::LooksLikeFlag);
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            return Err(ModelIdError::Unprintable);
        }
        Ok(Self(text))
    }

    /// The name as vLLM is told it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text cannot name a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelIdError {
    /// There is no text.
    #[error("the model id is empty")]
    Empty,
    /// vLLM would read it as a flag.
    #[error("the model id starts with `-`")]
    LooksLikeFlag,
    /// White space at an end, or a control character.
    #[error("the model id has white space at an end, or a control character")]
    Unprintable,
}

/// Why a text names no model. None of the messages repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelReferenceError {
    /// No text at all.
    #[error("empty")]
    Empty,
    /// A Hub id has exactly one slash.
    #[error("not of the form `namespace/name`")]
    NotNamespaceAndName,
    /// A character that no Hub id contains.
    #[error("a Hub id has only letters, digits, `-`, `_` and `.`")]
    ForbiddenCharacter,
    /// The Hub's rules for what stands next to what.
    #[error(
        "no part of a Hub id starts or ends with `-` or `.`; none has `--` or `..`, or `.git` at its end"
    )]
    MisplacedPunctuation,
    /// More than 96 characters in the namespace or the name.
    #[error("a part of a Hub id has at most 96 characters")]
    TooLong,
    /// `~` without a home directory to stand for.
    #[error("`~` is used, but there is no home directory")]
    NoHome,
    /// The path does not exist.
    #[error("there is no such path")]
    NoSuchDirectory,
    /// The path is a file or something else.
    #[error("neither a directory nor a `.gguf` file")]
    NotADirectory,
    /// The path is a symbolic link to what is not there.
    #[error("a symbolic link that leads nowhere")]
    DanglingLink,
    /// Something stood in the way of looking at the path.
    #[error("cannot be looked at by this user")]
    OutOfReach,
    /// An address that vLLM does not load from (0.32, `transformers_utils/runai_utils.py`).
    #[error("not an address that vLLM loads models from")]
    UnknownAddress,
}

impl ModelReferenceError {
    /// What to do about it.
    pub const fn help(self) -> &'static str {
        match self {
            Self::Empty
            | Self::NotNamespaceAndName
            | Self::ForbiddenCharacter
            | Self::MisplacedPunctuation
            | Self::TooLong => {
                "use a Hub id such as `Qwen/Qwen3-0.6B`, or a path starting with `/`, `./`, `../` or `~/`"
            }
            Self::NoHome => "write the whole path, or set HOME",
            Self::NoSuchDirectory => {
                "check the path; a relative one is taken from the working directory"
            }
            Self::NotADirectory => {
                "name the directory that holds the model's `config.json`, or a `.gguf` file"
            }
            Self::DanglingLink => "see with `ls -l` where it leads, and mend or replace it",
            Self::OutOfReach => "see with `namei -l` who may enter each directory on the way",
            Self::UnknownAddress => {
                "use `s3://`, `gs://`, `az://` or `hf://`; of a page on the Hub the id alone, such as `Qwen/Qwen3-0.6B`"
            }
        }
    }
}

/// Who owns the life of the vLLM process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LifecycleMode {
    /// We do: start, restart and stop are ours.
    #[default]
    Managed,
    /// Another manager, such as systemd, does: we watch and report.
    Monitored,
    /// Nobody we know of does: it is assumed to run, and only probed.
    External,
}

impl LifecycleMode {
    /// The mode's name in lower case, as in JSON and in the configuration file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Managed => "managed",
            Self::Monitored => "monitored",
            Self::External => "external",
        }
    }
}

/// How vLLM is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LaunchPolicy {
    /// As a process of its own, from nothing.
    Cold,
    /// Forked from a process that has imported what vLLM imports; from nothing where no such process can
    /// be had.
    Warm,
    /// Forked, for as long as nothing speaks against it: a launch that fails, or answers otherwise, where
    /// one made from nothing does not.
    #[default]
    Auto,
}

impl LaunchPolicy {
    /// The policy's name in lower case, as in JSON and in the configuration file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Auto => "auto",
        }
    }
}

/// What becomes of vLLM when the supervisor ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExitPolicy {
    /// It lives on, and the next supervisor with this state directory adopts it
    /// (`stop_on_exit: false`).
    #[default]
    Detach,
    /// Nothing of it survives (`stop_on_exit: true`).
    Stop,
}

/// The figures that the rules decide by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Who owns the life of the process.
    pub mode: LifecycleMode,
    /// The unit that its manager runs it as, if that is to be asked; of [`LifecycleMode::Monitored`] alone.
    pub unit: Option<String>,
    /// What to serve at first.
    pub target: Target,
    /// How to launch it.
    pub launch: LaunchPolicy,
    /// When and how often to restart.
    pub restart: RestartPolicy,
    /// Longest silence between launch and the first sign of life.
    pub start_timeout: Duration,
    /// Longest time without progress while loading.
    pub model_load_timeout: Duration,
    /// Time that a stop gives: to the requests that run, and from SIGTERM to SIGKILL.
    pub grace: Duration,
    /// Failed health checks in a row that mean dead.
    pub max_consecutive_failures: NonZeroU32,
    /// What becomes of vLLM when the supervisor ends.
    pub on_exit: ExitPolicy,
    /// What an Xid error that the kernel's log tells of vLLM means.
    pub xids: XidPolicy,
}
