//! How a model is named: an id on the Hugging Face Hub, or a directory of this machine.

use std::fmt;
use std::path::{Path, PathBuf};

use vllm_supervisor_actors::domain::spec::ModelId;
use vllm_supervisor_actors::ports::ModelNames;

pub use vllm_supervisor_actors::domain::spec::ModelReferenceError;

/// Longest part of a Hub id, in characters (`REPO_ID_REGEX` in `huggingface_hub` 2.4.0
/// `utils/_validators.py`).
const LONGEST_PART: usize = 96;

/// The model to serve. Displays as what vLLM is given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelReference {
    /// `namespace/name` on the Hugging Face Hub.
    Hub(String),
    /// An existing directory with the model's files.
    Directory(PathBuf),
}

impl ModelReference {
    /// Reads a model's name. An absolute path, or one that starts with `./`, `../` or `~`, is a
    /// directory: a relative one is taken from `base`, `~` stands for `home`. All else is a Hub id.
    ///
    /// # Errors
    /// When the directory does not exist, or the id could not be one of the Hub's.
    pub fn parse(
        text: &str,
        base: &Path,
        home: Option<&Path>,
    ) -> Result<Self, ModelReferenceError> {
        let first = text.split('/').next().unwrap_or_default();
        let reference = match first {
            "~" => {
                let home = home.ok_or(ModelReferenceError::NoHome)?;
                Self::Directory(home.join(text[1..].trim_start_matches('/')))
            }
            // Collecting the components drops the `./`, which would only clutter every message.
            "" | "." | ".." if !text.is_empty() => {
                Self::Directory(base.join(text).components().collect())
            }
            _ => Self::Hub(text.to_owned()),
        };
        reference.check()?;
        Ok(reference)
    }

    /// Reads a model's name as this process sees it: relative to its working directory and home.
    ///
    /// # Errors
    /// Those of [`ModelReference::parse`].
    pub fn parse_here(text: &str) -> Result<Self, ModelReferenceError> {
        // It cannot be told only when it was removed; relative paths then fail on their own.
        let base = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let home = std::env::var_os("HOME").map(PathBuf::from);
        Self::parse(text, &base, home.as_deref())
    }

    /// Judges a reference that was not made by [`ModelReference::parse`].
    ///
    /// # Errors
    /// Those of [`ModelReference::parse`].
    pub fn check(&self) -> Result<(), ModelReferenceError> {
        match self {
            Self::Hub(id) => check_hub_id(id),
            Self::Directory(path) if path.is_dir() => Ok(()),
            Self::Directory(path) if path.exists() => Err(ModelReferenceError::NotADirectory),
            Self::Directory(_) => Err(ModelReferenceError::NoSuchDirectory),
        }
    }
}

/// Names as they are written in a configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NamesOfProcess;

impl NamesOfProcess {
    /// The model of this name, as this process sees it.
    pub(crate) fn model(text: &str) -> Result<ModelId, ModelReferenceError> {
        let reference = ModelReference::parse_here(text)?;
        ModelId::new(reference.to_string()).map_err(|_| ModelReferenceError::ForbiddenCharacter)
    }
}

impl ModelNames for NamesOfProcess {
    fn judge(&self, model: &ModelId) -> Result<ModelId, ModelReferenceError> {
        Self::model(model.as_str())
    }
}

impl fmt::Display for ModelReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(id) => f.write_str(id),
            Self::Directory(path) => path.display().fmt(f),
        }
    }
}

/// The rules of `validate_repo_id` in `huggingface_hub` 2.4.0 `utils/_validators.py`, with the
/// namespace required: the ids without one are aliases that the Hub keeps for old models.
fn check_hub_id(id: &str) -> Result<(), ModelReferenceError> {
    if id.is_empty() {
        return Err(ModelReferenceError::Empty);
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if !id.chars().all(is_allowed) {
        return Err(ModelReferenceError::ForbiddenCharacter);
    }
    if id.strip_suffix(".git").is_some() {
        return Err(ModelReferenceError::MisplacedPunctuation);
    }
    match id.split_once('/') {
        Some((namespace, name)) if !name.contains('/') => {
            check_part(namespace)?;
            check_part(name)
        }
        _ => Err(ModelReferenceError::NotNamespaceAndName),
    }
}

fn check_part(part: &str) -> Result<(), ModelReferenceError> {
    if part.is_empty() {
        Err(ModelReferenceError::NotNamespaceAndName)
    } else if part.starts_with(['-', '.'])
        || part.ends_with(['-', '.'])
        || part.contains("--")
        || part.contains("..")
    {
        Err(ModelReferenceError::MisplacedPunctuation)
    } else if part.len() > LONGEST_PART {
        Err(ModelReferenceError::TooLong)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ModelReference, ModelReferenceError> {
        ModelReference::parse(text, Path::new("/nowhere"), Some(Path::new("/nowhere/home")))
    }

    #[test]
    fn an_id_of_the_hub_is_passed_on_as_it_is() {
        for id in ["meta-llama/Llama-2-7b-hf", "Qwen/Qwen3-0.6B", "_a/b_", "a/b"] {
            assert_eq!(parse(id).unwrap().to_string(), id);
        }
    }

    #[test]
    fn what_could_be_no_id_of_the_hub_is_rejected_with_its_reason() {
        use ModelReferenceError as E;
        let too_long = format!("a/{}", "b".repeat(97));
        for (text, error) in [
            ("", E::Empty),
            ("gpt2", E::NotNamespaceAndName),
            ("a/b/c", E::NotNamespaceAndName),
            ("a/", E::NotNamespaceAndName),
            ("my org/model", E::ForbiddenCharacter),
            ("a/b@main", E::ForbiddenCharacter),
            ("ä/b", E::ForbiddenCharacter),
            ("-a/b", E::MisplacedPunctuation),
            ("a./b", E::MisplacedPunctuation),
            ("a/.b", E::MisplacedPunctuation),
            ("a/b--c", E::MisplacedPunctuation),
            ("a/b..c", E::MisplacedPunctuation),
            ("a/b.git", E::MisplacedPunctuation),
            (&too_long, E::TooLong),
            ("~other/model", E::ForbiddenCharacter),
            ("/nowhere/at/all", E::NoSuchDirectory),
            ("./model", E::NoSuchDirectory),
            ("~/model", E::NoSuchDirectory),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_directory_is_found_from_the_root_the_base_and_the_home() {
        let base = tempfile::tempdir().unwrap();
        let model = base.path().join("model");
        std::fs::create_dir(&model).unwrap();
        for text in [model.to_str().unwrap(), "./model", "~/model"] {
            let found = ModelReference::parse(text, base.path(), Some(base.path())).unwrap();
            let ModelReference::Directory(found) = found else { panic!("{text}: {found:?}") };
            assert_eq!(found.canonicalize().unwrap(), model.canonicalize().unwrap(), "{text}");
        }
    }

    #[test]
    fn a_file_is_no_model_directory() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("file"), "").unwrap();
        let found = ModelReference::parse("./file", base.path(), None);
        assert_eq!(found, Err(ModelReferenceError::NotADirectory));
    }

    #[test]
    fn a_tilde_without_a_home_is_an_error() {
        let found = ModelReference::parse("~/model", Path::new("/"), None);
        assert_eq!(found, Err(ModelReferenceError::NoHome));
    }
}
