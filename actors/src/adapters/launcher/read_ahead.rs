//! Has the system read a model's files into memory while others are at work, so that vLLM finds them
//! there: Python is imported, or the model before serves its last requests.

use std::fs::{self, File};
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rustix::fs::{Advice, fadvise};

use crate::adapters::proc_fs;

/// What weights are kept in.
const WEIGHTS: [&str; 5] = ["safetensors", "bin", "pt", "pth", "gguf"];

/// Asked for at a time: it is done by the time that the next is asked for.
const CHUNK: NonZeroU64 = NonZeroU64::new(8 << 20).expect("more than none");

/// See the module. It has the number of the last reading: those before are given up.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadAhead(Arc<AtomicU64>);

impl ReadAhead {
    /// Begins to read the weights in this directory, in the order in which vLLM does, on a thread of its
    /// own. Another model is no directory here, and not read ahead.
    pub(super) fn begin(&self, model: &str) {
        let (directory, last) = (PathBuf::from(model), Arc::clone(&self.0));
        if !directory.is_absolute() {
            return;
        }
        let number = last.fetch_add(1, Ordering::Relaxed) + 1;
        let read = move || {
            if let Err(error) = read(&directory, || last.load(Ordering::Relaxed) == number) {
                // vLLM reads it in any case, and will say what is wrong with it.
                tracing::debug!(%error, "a model is not read ahead");
            }
        };
        if let Err(error) = thread::Builder::new().name("vllm-read".to_owned()).spawn(read) {
            tracing::debug!(%error, "a model is not read ahead");
        }
    }
}

/// Reads no more than half of what is free: what is there would have to make room for the rest.
fn read(directory: &Path, is_wanted: impl Fn() -> bool) -> io::Result<u64> {
    let mut left = proc_fs::available_memory()? / 2;
    let mut asked = 0;
    for path in weights(directory)? {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut at = 0;
        while at < length && left > 0 && is_wanted() {
            fadvise(&file, at, Some(CHUNK), Advice::WillNeed)?;
            let done = CHUNK.get().min(length - at);
            at += done;
            asked += done;
            left = left.saturating_sub(done);
        }
    }
    Ok(asked)
}

fn weights(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.map(|entry| entry.map(|it| it.path()));
    let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
    let is_weights = |path: &PathBuf| {
        path.extension().is_some_and(|it| WEIGHTS.iter().any(|known| it == *known))
    };
    // Opened, a pipe would wait for ever.
    paths.retain(|path| is_weights(path) && path.is_file());
    if paths.iter().any(|path| is_safetensors(path)) {
        paths.retain(|path| is_safetensors(path));
    }
    // Mistral's own form of what is there in that of Hugging Face as well.
    if !paths.iter().all(|path| is_consolidated(path)) {
        paths.retain(|path| !is_consolidated(path));
    }
    paths.sort();
    Ok(paths)
}

fn is_safetensors(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "safetensors")
}

fn is_consolidated(path: &Path) -> bool {
    path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("consolidated"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(files: &[(&str, usize)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, length) in files {
            fs::write(directory.path().join(name), vec![0; *length]).unwrap();
        }
        directory
    }

    #[test]
    fn weights_are_read_and_nothing_else_is() {
        let megabytes = 9 << 20;
        let files = [("b.safetensors", megabytes), ("a.safetensors", 1), ("README.md", megabytes)];
        let model = model(&files);
        let names = weights(model.path()).unwrap();
        let names: Vec<_> = names.iter().map(|it| it.file_name().unwrap()).collect();
        assert_eq!(names, ["a.safetensors", "b.safetensors"]);
        assert_eq!(read(model.path(), || true).unwrap(), u64::try_from(megabytes).unwrap() + 1);
    }

    #[test]
    fn what_is_there_twice_is_read_once() {
        let names = ["model-1.safetensors", "consolidated.safetensors", "pytorch_model.bin"];
        let model = model(&names.map(|name| (name, 1)));
        assert_eq!(weights(model.path()).unwrap(), [model.path().join(names[0])]);
        fs::remove_file(model.path().join(names[0])).unwrap();
        assert_eq!(weights(model.path()).unwrap(), [model.path().join(names[1])]);
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let model = model(&[]);
        let pipe = model.path().join("a.safetensors");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert_eq!(read(model.path(), || true).unwrap(), 0);
    }

    #[test]
    fn a_reading_that_nobody_wants_any_more_ends() {
        let model = model(&[("a.safetensors", 9 << 20)]);
        assert_eq!(read(model.path(), || false).unwrap(), 0);
    }

    #[test]
    fn what_is_not_there_is_an_error_and_nothing_worse() {
        read(Path::new("/nowhere/at/all"), || true).unwrap_err();
        ReadAhead::default().begin("/nowhere/at/all");
        ReadAhead::default().begin("org/model");
    }
}
