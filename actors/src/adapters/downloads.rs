//! Measures what comes of a model into the local cache of the Hugging Face Hub.
//!
//! Files come as `<etag>.incomplete`, or `<etag>.<8 digits>.incomplete` of each process (`huggingface_hub`
//! 2.4.0, `file_download.py`), out of order where Xet brings them: what takes room on the disk has come, not
//! what the length promises. How much there will be stands in `trees/<commit>.json`, where a snapshot is
//! downloaded as a whole.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::ownership::on_own_thread;
use crate::domain::loading::Download;
use crate::domain::target::{Arguments, Target};
use crate::ports::{DownloadMeter, Downloads, Pending};

/// How often what has come is measured.
const EVERY: Duration = Duration::from_secs(1);

/// Where what is loaded with these arguments comes to, and in which revision.
pub type HubPlace = Arc<dyn Fn(&Arguments) -> (Option<PathBuf>, Option<String>) + Send + Sync>;

/// See the module.
#[derive(Clone)]
pub struct HubDownloads {
    /// The cache, `None` where it is not known; and the branch, tag or commit.
    pub place: HubPlace,
}

impl fmt::Debug for HubDownloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubDownloads").finish_non_exhaustive()
    }
}

impl Downloads for HubDownloads {
    fn follow(&self, target: &Target) -> Box<dyn DownloadMeter> {
        let name = target.model.as_str();
        let is_id = !name.starts_with('/') && !name.contains("://");
        // Of several quantisations one is named behind a colon.
        let id = name.split(':').next().unwrap_or_default().replace('/', "--");
        let (place, arguments) = (Arc::clone(&self.place), target.arguments.clone());
        let locate = move || {
            let (cache, revision) = place(&arguments);
            let revision = revision.unwrap_or_else(|| "main".to_owned());
            Some(Place { directory: cache?.join(format!("models--{id}")), revision })
        };
        let locate = is_id.then(|| Box::new(locate) as Box<dyn FnOnce() -> Option<Place> + Send>);
        Box::new(Meter { locate, place: None, first: None, last: None })
    }
}

/// Where a model is in the cache.
#[derive(Clone)]
struct Place {
    directory: PathBuf,
    revision: String,
}

struct Meter {
    /// Finds out where the model is, unless it has.
    locate: Option<Box<dyn FnOnce() -> Option<Place> + Send>>,
    place: Option<Place>,
    /// What was there at the first look, of whatever revision, in bytes.
    first: Option<u64>,
    /// The same at the last look, and how much there was to be.
    last: Option<(u64, Option<u64>)>,
}

impl DownloadMeter for Meter {
    fn next_growth(&mut self) -> Pending<'_, Download> {
        Box::pin(async move {
            if let Some(locate) = self.locate.take() {
                self.place = on_own_thread("vllm-download", locate).await.ok().flatten();
            }
            let Some(place) = self.place.clone() else { return std::future::pending().await };
            loop {
                let Place { directory, revision } = place.clone();
                let look = on_own_thread("vllm-download", move || {
                    let blobs = blobs_in(&directory.join("blobs"))?;
                    Ok::<_, io::Error>((blobs, wanted(&directory, &revision)))
                });
                // What cannot be measured now may be the next time.
                if let Ok(Ok((blobs, wanted))) = look.await
                    && let Some(download) = self.take(&blobs, wanted.as_ref())
                {
                    return download;
                }
                tokio::time::sleep(EVERY).await;
            }
        })
    }
}

impl Meter {
    /// What has come, if it is more than at the last look, or if it is news how much there will be.
    fn take(&mut self, blobs: &[Blob], wanted: Option<&BTreeMap<String, u64>>) -> Option<Download> {
        let all: u64 = blobs.iter().map(|blob| blob.bytes).sum();
        let first = *self.first.get_or_insert(all);
        let total = wanted.map(|wanted| wanted.values().sum());
        let (before, expected) = self.last.replace((all, total))?;
        let bytes = match wanted {
            Some(wanted) => {
                let ours = blobs.iter().filter(|blob| wanted.contains_key(&blob.etag));
                ours.map(|blob| blob.bytes).sum()
            }
            None => all.saturating_sub(first),
        };
        let is_expected = total != expected && total.is_some_and(|total| bytes < total);
        let bytes = total.map_or(bytes, |total| bytes.min(total));
        (all > before || is_expected).then_some(Download { bytes, total })
    }
}

/// What is there of a file.
#[derive(Debug)]
struct Blob {
    etag: String,
    bytes: u64,
}

/// What is there of all files.
fn blobs_in(directory: &Path) -> io::Result<Vec<Blob>> {
    let mut blobs = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(blobs),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let metadata = match entry.metadata() {
            // It is whole now, and has another name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        let (etag, is_partial) = match name.split_once('.') {
            Some((etag, rest)) => (etag.to_owned(), rest.ends_with("incomplete")),
            None => (name, false),
        };
        // What stat(2) calls blocks is 512 bytes everywhere on Linux.
        let room = metadata.blocks().saturating_mul(512).min(metadata.len());
        let bytes = if is_partial { room } else { metadata.len() };
        blobs.push(Blob { etag, bytes });
    }
    Ok(blobs)
}

/// The files that vLLM wants, by the names that they have among the blobs, with their lengths; `None` if the
/// Hub's list of files was not kept, or does not say all lengths.
fn wanted(place: &Path, revision: &str) -> Option<BTreeMap<String, u64>> {
    let commit = fs::read_to_string(place.join("refs").join(revision)).ok();
    let commit = commit.as_deref().map_or(revision, str::trim);
    let tree = fs::read(place.join("trees").join(format!("{commit}.json"))).ok()?;
    let tree: Value = serde_json::from_slice(&tree).ok()?;
    let files = tree.get("files")?.as_object()?;
    // Those of one kind are enough (0.32, `model_loader/default_loader.py`).
    let is_other = |name: &str| ["bin", "pt"].contains(&extension(name));
    let has_safetensors = files.keys().any(|name| extension(name) == "safetensors");
    let wanted = files.iter().filter(|(name, _)| is_wanted(name));
    let wanted = wanted.filter(|(name, _)| !(has_safetensors && is_other(name)));
    let lengths = wanted.map(|(_, file)| {
        let text = |key: &str| file.get(key).and_then(Value::as_str).map(str::to_owned);
        let size = |key: &str| file.get(key).and_then(Value::as_u64);
        let etag = text("lfs_sha256").or_else(|| text("blob_id"))?;
        Some((etag, size("lfs_size").or_else(|| size("size"))?))
    });
    lengths.collect()
}

/// Whether vLLM may download it: weights at the top, and what is small.
fn is_wanted(name: &str) -> bool {
    const WANTED: [&str; 9] =
        ["safetensors", "bin", "pt", "json", "txt", "model", "tiktoken", "jinja", "py"];
    !name.contains('/') && WANTED.contains(&extension(name))
}

fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::spec::ModelId;

    struct Cache(tempfile::TempDir);

    impl Cache {
        fn new() -> Self {
            let cache = tempfile::tempdir().unwrap();
            fs::create_dir_all(cache.path().join("models--org--a/blobs")).unwrap();
            fs::create_dir_all(cache.path().join("models--org--a/refs")).unwrap();
            fs::create_dir_all(cache.path().join("models--org--a/trees")).unwrap();
            Self(cache)
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            fs::write(self.0.path().join("models--org--a").join(name), bytes).unwrap();
        }

        fn blobs(&self) -> PathBuf {
            self.0.path().join("models--org--a/blobs")
        }

        fn meter_of(&self, model: &str) -> Box<dyn DownloadMeter> {
            let cache = self.0.path().to_owned();
            let place: HubPlace = Arc::new(move |_| (Some(cache.clone()), None));
            let model = ModelId::new(model).unwrap();
            HubDownloads { place }.follow(&Target { model, arguments: Arguments::default() })
        }

        fn meter(&self) -> Box<dyn DownloadMeter> {
            self.meter_of("org/a")
        }
    }

    const TREE: &str = r#"{"format_version":1,"files":{
        "config.json":{"size":10,"blob_id":"c"},
        "model.safetensors":{"size":130,"lfs_size":9000,"blob_id":"p","lfs_sha256":"m"},
        "pytorch_model.bin":{"size":9000,"blob_id":"b"},
        "original/model.safetensors":{"size":9000,"blob_id":"o"}}}"#;

    #[tokio::test]
    async fn what_comes_of_the_files_that_are_wanted_is_told() {
        let cache = Cache::new();
        cache.write("blobs/of-another-revision", &[0; 100]);
        cache.write("refs/main", b"abc\n");
        cache.write("trees/abc.json", TREE.as_bytes());
        let mut meter = cache.meter();
        let growing = async {
            let mut ticks = tokio::time::interval(EVERY / 20);
            let mut bytes = Vec::new();
            loop {
                ticks.tick().await;
                bytes.extend([1; 10]);
                cache.write("blobs/m.0a1b2c3d.incomplete", &bytes);
            }
        };
        let download = tokio::select! {
            download = meter.next_growth() => download,
            () = growing => unreachable!("it grows for ever"),
        };
        assert!((1..9010).contains(&download.bytes), "{download:?}");
        assert_eq!(download.total, Some(9010));
    }

    #[test]
    fn without_a_list_of_files_it_is_what_has_come_since() {
        let mut meter = meter();
        assert_eq!(meter.take(&of(100), None), None);
        assert_eq!(meter.take(&of(100), None), None);
        let grown = Some(Download { bytes: 50, total: None });
        assert_eq!(meter.take(&of(150), None), grown);
        assert_eq!(meter.take(&of(120), None), None);
    }

    #[test]
    fn how_much_there_will_be_is_told_before_it_comes() {
        let wanted = |bytes| BTreeMap::from([("x".to_owned(), bytes)]);
        let mut expecting = meter();
        assert_eq!(expecting.take(&of(100), None), None);
        let expected = Some(Download { bytes: 100, total: Some(9000) });
        assert_eq!(expecting.take(&of(100), Some(&wanted(9000))), expected);
        assert_eq!(expecting.take(&of(100), Some(&wanted(9000))), None);
        let mut whole = meter();
        assert_eq!(whole.take(&of(100), None), None);
        assert_eq!(whole.take(&of(100), Some(&wanted(100))), None);
    }

    fn meter() -> Meter {
        Meter { locate: None, place: None, first: None, last: None }
    }

    fn of(bytes: u64) -> Vec<Blob> {
        vec![Blob { etag: "x".to_owned(), bytes }]
    }

    #[test]
    fn parts_are_counted_under_either_name() {
        let cache = Cache::new();
        cache.write("blobs/whole", &[0; 100]);
        cache.write("blobs/part.incomplete", &[1; 5000]);
        cache.write("blobs/part.0a1b2c3d.incomplete", &[1; 3000]);
        let mut found = blobs_in(&cache.blobs()).unwrap();
        found.sort_by_key(|blob| blob.bytes);
        let found: Vec<_> = found.iter().map(|it| (it.etag.as_str(), it.bytes)).collect();
        assert_eq!(found, [("whole", 100), ("part", 3000), ("part", 5000)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_is_there_is_not_downloaded() {
        let cache = Cache::new();
        cache.write("blobs/whole", &[0; 100]);
        let mut meter = cache.meter();
        let long = Duration::from_secs(60);
        assert!(tokio::time::timeout(long, meter.next_growth()).await.is_err());
        let mut meter = cache.meter_of("/models/a");
        assert!(tokio::time::timeout(long, meter.next_growth()).await.is_err());
    }

    #[test]
    fn room_that_is_not_taken_yet_has_not_come() {
        let cache = Cache::new();
        let part = fs::File::create(cache.blobs().join("x.incomplete")).unwrap();
        part.set_len(1 << 30).unwrap();
        assert_eq!(blobs_in(&cache.blobs()).unwrap()[0].bytes, 0);
        assert!(blobs_in(&cache.blobs().join("gone")).unwrap().is_empty());
        fs::write(cache.blobs().join("file"), "").unwrap();
        assert!(blobs_in(&cache.blobs().join("file")).is_err());
    }

    #[test]
    fn of_a_list_that_does_not_say_all_nothing_is_known() {
        let cache = Cache::new();
        let place = cache.0.path().join("models--org--a");
        let wanted = || wanted(&place, "main").map(|files| files.into_iter().collect::<Vec<_>>());
        assert_eq!(wanted(), None);
        cache.write("trees/main.json", br#"{"files":{"a.safetensors":{"blob_id":"a"}}}"#);
        assert_eq!(wanted(), None);
        cache.write("trees/main.json", b"rubbish");
        assert_eq!(wanted(), None);
        let tree = br#"{"files":{"a.bin":{"size":7,"blob_id":"a"},"b.onnx":{"size":9}}}"#;
        cache.write("trees/main.json", tree);
        assert_eq!(wanted(), Some(vec![("a".to_owned(), 7)]));
    }
}
