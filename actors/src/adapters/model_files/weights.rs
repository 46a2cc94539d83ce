//! Files of weights: whether they are there, and whole.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;

use super::{LFS_POINTER, open, read_whole};
use crate::domain::preflight::{WeightFault, WeightFile, Weights};

/// An index has some hundred bytes a tensor.
const MOST_OF_INDEX: u64 = 64 << 20;

/// The longest header that safetensors takes (0.5, `MAX_HEADER_SIZE`), in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

/// What training leaves beside weights (vLLM 0.32, `model_executor/model_loader/weight_utils.py`,
/// `filter_files_not_needed_for_inference`).
const NOT_WEIGHTS: [&str; 5] =
    ["training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"];

pub(super) fn look(directory: &Path, names: Result<&[String], &io::Error>) -> Weights {
    let names = match names {
        Ok(names) => names,
        Err(error) => return Weights::Unread(error.to_string()),
    };
    let ending = |ending: &str| -> Vec<&String> {
        let is_one = |name: &&String| {
            Path::new(name).extension().is_some_and(|it| it == ending)
                && !NOT_WEIGHTS.iter().any(|other| name.ends_with(other))
        };
        names.iter().filter(is_one).collect()
    };
    // As vLLM, which takes these where there are any (0.32, `default_loader.py`, `_prepare_weights`).
    let mut weights = ending("safetensors");
    for others in ["bin", "pt"] {
        if weights.is_empty() {
            weights = ending(others);
        }
    }
    let is_mistrals = |name: &&&String| name.starts_with("consolidated");
    let index = if weights.iter().any(|name| is_mistrals(&name)) {
        weights.retain(|name| is_mistrals(&name));
        "consolidated.safetensors.index.json"
    } else {
        "model.safetensors.index.json"
    };
    let mut present = Vec::new();
    let mut missing = match indexed(directory, names, index) {
        // What an index does not name is not loaded.
        Ok(Some(indexed)) => {
            weights.retain(|name| indexed.contains(*name));
            indexed
        }
        Ok(None) => weights.iter().flat_map(|name| siblings(name)).collect(),
        Err(why) => return Weights::Unread(why),
    };
    missing.retain(|name| !names.contains(name));
    for name in weights {
        match look_at(directory, name) {
            Ok(file) => present.push(file),
            // A link into a cache whose file has gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing.insert(name.clone());
            }
            Err(error) => {
                let fault = Some(WeightFault::Unread(error.to_string()));
                present.push(WeightFile { name: name.clone(), bytes: 0, fault });
            }
        }
    }
    Weights::Files { present, missing: missing.into_iter().collect() }
}

/// The files that an index of this name tells of, if there is one.
fn indexed(
    directory: &Path,
    names: &[String],
    name: &str,
) -> Result<Option<BTreeSet<String>>, String> {
    if !names.iter().any(|it| it == name) {
        return Ok(None);
    }
    let bytes = read_whole(&directory.join(name), MOST_OF_INDEX);
    let bytes = bytes.map_err(|error| format!("{name}: {error}"))?;
    let index: Value =
        serde_json::from_slice(&bytes).map_err(|error| format!("{name}: {error}"))?;
    let files = index["weight_map"].as_object().into_iter().flatten();
    Ok(Some(files.filter_map(|(_, file)| file.as_str().map(str::to_owned)).collect()))
}

/// All parts of what this is one of: `model-00001-of-00003.safetensors`.
fn siblings(name: &str) -> Vec<String> {
    let parts = || {
        let (before, rest) = name.split_once("-of-")?;
        let (stem, number) = before.rsplit_once('-')?;
        let (count, ending) = rest.split_once('.')?;
        let is_number = |text: &str| text.len() == 5 && text.parse::<u32>().is_ok();
        (is_number(number) && is_number(count)).then_some(())?;
        let each = 1..=count.parse::<u32>().ok()?;
        Some(each.map(|at| format!("{stem}-{at:05}-of-{count}.{ending}")).collect())
    };
    parts().unwrap_or_default()
}

/// What a file of weights is like.
pub(super) fn look_at(directory: &Path, name: &str) -> io::Result<WeightFile> {
    let mut file = open(&directory.join(name))?;
    let bytes = file.metadata()?.len();
    let mut start = [0; LFS_POINTER.len()];
    let length = read_up_to(&mut file, &mut start)?;
    let fault = if start[..length] == *LFS_POINTER {
        Some(WeightFault::LfsPointer)
    } else if Path::new(name).extension().is_some_and(|it| it == "safetensors") {
        fault_of_safetensors(&start[..length], &mut file, bytes)?
    } else {
        None
    };
    Ok(WeightFile { name: name.to_owned(), bytes, fault })
}

/// A length of eight bytes, a header of JSON, and what the header describes (safetensors,
/// `README.md`, "Format").
fn fault_of_safetensors(
    start: &[u8],
    file: &mut File,
    bytes: u64,
) -> io::Result<Option<WeightFault>> {
    let Some((length, begun)) = start.split_first_chunk::<8>() else {
        return Ok(Some(WeightFault::Truncated { expected: None }));
    };
    let length = u64::from_le_bytes(*length);
    if length > LONGEST_HEADER || begun.first().is_some_and(|first| *first != b'{') {
        return Ok(Some(WeightFault::NotSafetensors));
    }
    if bytes < 8 + length {
        return Ok(Some(WeightFault::Truncated { expected: None }));
    }
    let mut header = begun.to_vec();
    let rest = length.saturating_sub(begun.len() as u64);
    file.take(rest).read_to_end(&mut header)?;
    header.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    let Ok(Value::Object(tensors)) = serde_json::from_slice(&header) else {
        return Ok(Some(WeightFault::NotSafetensors));
    };
    let ends = tensors.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    let expected = 8 + length + ends.max().unwrap_or(0);
    Ok((bytes < expected).then_some(WeightFault::Truncated { expected: Some(expected) }))
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}
