//! How a model is named: an id on the Hugging Face Hub, a path on this machine, or an address.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use vllm_supervisor_actors::domain::spec::ModelId;

pub use vllm_supervisor_actors::domain::spec::ModelReferenceError;

/// Longest part of a Hub id, in characters (`REPO_ID_REGEX` in `huggingface_hub` 2.4.0
/// `utils/_validators.py`).
const LONGEST_PART: usize = 96;

/// The schemes of addresses that vLLM resolves itself (0.32, `transformers_utils/runai_utils.py`), and the
/// Hub's own.
const ADDRESSES: [&str; 4] = ["s3://", "gs://", "az://", "hf://"];

/// The model to serve. Displays as what vLLM is given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelReference {
    /// `namespace/name` on the Hugging Face Hub, or of a GGUF repository there `namespace/name:QUANT`.
    Hub(String),
    /// An existing directory with the model's files.
    Directory(PathBuf),
    /// An existing `.gguf` file.
    GgufFile(PathBuf),
    /// `s3://`, `gs://`, `az://` or `hf://`: vLLM knows what is there, and we cannot check it.
    Address(String),
    /// Whatever a server that is not ours calls it (`lifecycle.mode` other than `managed`).
    Listed(String),
}

impl ModelReference {
    /// Reads a model's name. An absolute path, or one that starts with `./`, `../` or `~`, is a
    /// directory or a `.gguf` file: a relative one is taken from `base`, `~` stands for `home`. All else
    /// is an address, or a Hub id; but as for vLLM, a directory that exists goes before an id.
    ///
    /// # Errors
    /// When the path does not exist, or the id could not be one of the Hub's.
    pub fn parse(
        text: &str,
        base: &Path,
        home: Option<&Path>,
    ) -> Result<Self, ModelReferenceError> {
        let first = text.split('/').next().unwrap_or_default();
        let reference = match first {
            "~" => {
                let home = home.ok_or(ModelReferenceError::NoHome)?;
                Self::of_path(home.join(text[1..].trim_start_matches('/')))
            }
            // Collecting the components drops the `./`, which would only clutter every message.
            "" | "." | ".." if !text.is_empty() => {
                Self::of_path(base.join(text).components().collect())
            }
            _ if text.contains("://") => Self::Address(text.to_owned()),
            _ if !text.is_empty() && base.join(text).is_dir() => Self::Directory(base.join(text)),
            _ if is_gguf(Path::new(text)) && base.join(text).is_file() => {
                Self::GgufFile(base.join(text))
            }
            _ => Self::Hub(text.to_owned()),
        };
        reference.check()?;
        Ok(reference)
    }

    fn of_path(path: PathBuf) -> Self {
        if is_gguf(&path) && !path.is_dir() { Self::GgufFile(path) } else { Self::Directory(path) }
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
            Self::Directory(path) => check_path(path, Metadata::is_dir),
            Self::GgufFile(path) => check_path(path, Metadata::is_file),
            Self::Address(address) => {
                let is_known = ADDRESSES.iter().any(|scheme| {
                    address.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty())
                });
                is_known.then_some(()).ok_or(ModelReferenceError::UnknownAddress)
            }
            Self::Listed(name) if name.is_empty() => Err(ModelReferenceError::Empty),
            Self::Listed(name) => {
                ModelId::new(name).map(drop).map_err(|_| ModelReferenceError::ForbiddenCharacter)
            }
        }
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// Only "no such path" is absence.
fn check_path(path: &Path, is_right: fn(&Metadata) -> bool) -> Result<(), ModelReferenceError> {
    match fs::metadata(path) {
        Ok(found) if is_right(&found) => Ok(()),
        Ok(_) => Err(ModelReferenceError::NotADirectory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_link = fs::symlink_metadata(path).is_ok();
            let (link, nothing) =
                (ModelReferenceError::DanglingLink, ModelReferenceError::NoSuchDirectory);
            Err(if is_link { link } else { nothing })
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(ModelReferenceError::NoSuchDirectory)
        }
        Err(_) => Err(ModelReferenceError::OutOfReach),
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

impl fmt::Display for ModelReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(text) | Self::Address(text) | Self::Listed(text) => f.write_str(text),
            Self::Directory(path) | Self::GgufFile(path) => path.display().fmt(f),
        }
    }
}

/// The rules of `validate_repo_id` in `huggingface_hub` 2.4.0 `utils/_validators.py`, with the
/// namespace required: the ids without one are aliases that the Hub keeps for old models.
fn check_hub_id(id: &str) -> Result<(), ModelReferenceError> {
    if id.is_empty() {
        return Err(ModelReferenceError::Empty);
    }
    // Of several quantisations in a GGUF repository one, as vLLM's loader of these takes it.
    let id = match id.split_once(':') {
        Some((id, quantisation)) if is_word(quantisation) => id,
        _ => id,
    };
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

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
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
        for id in ["meta-llama/Llama-2-7b-hf", "Qwen/Qwen3-0.6B", "_a/b_", "a/b", "a/b-GGUF:Q4_K_M"]
        {
            assert_eq!(parse(id), Ok(ModelReference::Hub(id.to_owned())));
            assert_eq!(parse(id).unwrap().to_string(), id);
        }
    }

    #[test]
    fn an_address_that_vllm_resolves_is_passed_on_and_no_other() {
        for address in ["s3://bucket/model", "gs://bucket/model", "az://x/model", "hf://a/b"] {
            assert_eq!(parse(address), Ok(ModelReference::Address(address.to_owned())));
        }
        for address in ["s3://", "https://huggingface.co/a/b", "file:///model", "://"] {
            assert_eq!(parse(address), Err(ModelReferenceError::UnknownAddress), "{address}");
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
            ("a/b:", E::ForbiddenCharacter),
            ("a/b:Q4 K", E::ForbiddenCharacter),
            (":Q4", E::NotNamespaceAndName),
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
    fn a_directory_that_exists_goes_before_an_id_as_for_vllm() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("models/llama")).unwrap();
        let found = ModelReference::parse("models/llama", base.path(), None);
        assert_eq!(found, Ok(ModelReference::Directory(base.path().join("models/llama"))));
    }

    #[test]
    fn of_files_a_gguf_is_a_model_and_no_other() {
        let base = tempfile::tempdir().unwrap();
        for name in ["file", "model.gguf"] {
            std::fs::write(base.path().join(name), "").unwrap();
        }
        let parse = |text| ModelReference::parse(text, base.path(), None);
        let file = ModelReference::GgufFile(base.path().join("model.gguf"));
        assert_eq!(parse("./model.gguf"), Ok(file.clone()));
        assert_eq!(parse("model.gguf"), Ok(file));
        assert_eq!(parse("./file"), Err(ModelReferenceError::NotADirectory));
        assert_eq!(parse("./file/x"), Err(ModelReferenceError::NoSuchDirectory));
        assert_eq!(parse("./none.gguf"), Err(ModelReferenceError::NoSuchDirectory));
    }

    #[test]
    fn a_link_that_leads_nowhere_and_what_may_not_be_looked_at_are_not_absent() {
        let base = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", base.path().join("link")).unwrap();
        let parse = |text: &str| ModelReference::parse(text, base.path(), None);
        assert_eq!(parse("./link"), Err(ModelReferenceError::DanglingLink));
        std::os::unix::fs::symlink("circle", base.path().join("circle")).unwrap();
        assert_eq!(parse("./circle"), Err(ModelReferenceError::OutOfReach));
    }

    #[test]
    fn a_tilde_without_a_home_is_an_error() {
        let found = ModelReference::parse("~/model", Path::new("/"), None);
        assert_eq!(found, Err(ModelReferenceError::NoHome));
    }
}
