//! A model's files, as far as they tell whether vLLM could load them: names, lengths, headers and
//! `config.json`. No weights are read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::domain::preflight::{ModelFacts, Tokenizer};

mod adapter;
mod cache_shape;
mod config;
mod installed;
mod weights;

pub use adapter::look_at_adapter;
pub use installed::installed;

/// The beginning of a file that stands for one which Git LFS has not fetched
/// (git-lfs, `docs/spec.md`).
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What is in a model's directory.
pub fn look(directory: &Path) -> ModelFacts {
    let names = names(directory);
    let tokenizer = match &names {
        Ok(names) if names.iter().any(|name| is_of_tokenizer(name)) => Tokenizer::Present,
        Ok(_) => Tokenizer::Missing,
        Err(error) => Tokenizer::Unread(error.to_string()),
    };
    let weights = weights::look(directory, names.as_deref());
    ModelFacts::new(directory.display().to_string(), config::look(directory), weights, tokenizer)
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(directory)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// By the names that tokenizers' files have (transformers 5, `tokenization_utils_base.py`; mistral-common;
/// tiktoken).
fn is_of_tokenizer(name: &str) -> bool {
    let begins = ["tokenizer", "vocab", "spiece", "tekken", "sentencepiece", "merges", "bpe"];
    begins.iter().any(|begin| name.starts_with(begin))
        || Path::new(name).extension().is_some_and(|it| it == "tiktoken" || it == "model")
        || name.starts_with("tokenization")
}

/// A regular file: to open another may take for ever.
fn open(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

/// A file that is no longer than this, in bytes.
fn read_whole(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
