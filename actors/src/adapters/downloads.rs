//! Measures what comes of a model into the local cache of the Hugging Face Hub.
//!
//! Files come as `<etag>.incomplete`, or `<etag>.<8 digits>.incomplete` of each process (`huggingface_hub`
//! 2.4.0, `file_download.py`), out of order where Xet brings them: what takes room on the disk has come, not
//! what the length promises. How much there will be stands in `trees/<commit>.json`, where a snapshot is
//! downloaded as a whole.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::ownership::on_own_thread;
use crate::domain::loading::Download;
use crate::domain::spec::ModelId;
use crate::ports::{DownloadMeter, Downloads, Pending};

/// How often what has come is measured.
const EVERY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Debug)]
pub struct HubDownloads {
    /// The cache; `None` where it is not known.
    pub cache: Option<PathBuf>,
    /// The branch, tag or commit.
    pub revision: Option<String>,
}

impl Downloads for HubDownloads {
    fn follow(&self, model: &ModelId) -> Box<dyn DownloadMeter> {
        let name = model.as_str();
        // A path and an address have a colon, or no namespace.
        let is_id = !name.starts_with('/') && !name.contains("://");
        let id = name.split(':').next().unwrap_or_default().replace('/', "--");
        let place = self.cache.as_ref().filter(|_| is_id);
        Box::new(Meter {
            place: place.map(|cache| cache.join(format!("models--{id}"))),
            revision: self.revision.clone().unwrap_or_else(|| "main".to_owned()),
            measured: None,
        })
    }
}

struct Meter {
    /// Where the model is in the cache.
    place: Option<PathBuf>,
    revision: String,
    /// What was there at the last look.
    measured: Option<u64>,
}

impl DownloadMeter for Meter {
    fn next_growth(&mut self) -> Pending<'_, Download> {
        Box::pin(async move {
            let Some(place) = self.place.clone() else { return std::future::pending().await };
            loop {
                let (place, revision) = (place.clone(), self.revision.clone());
                let look = on_own_thread("vllm-download", move || {
                    (bytes_in(&place.join("blobs")), total_of(&place, &revision))
                });
                // What cannot be measured now may be the next time.
                if let Ok((Ok(bytes), total)) = look.await {
                    let before = self.measured.replace(bytes);
                    if before.is_some_and(|before| bytes > before) {
                        return Download { bytes, total };
                    }
                }
                tokio::time::sleep(EVERY).await;
            }
        })
    }
}

/// What is there of all files.
fn bytes_in(blobs: &Path) -> io::Result<u64> {
    let mut bytes: u64 = 0;
    let entries = match fs::read_dir(blobs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let metadata = match entry.metadata() {
            // It is whole now, and has another name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let is_partial =
            Path::new(&entry.file_name()).extension().is_some_and(|it| it == "incomplete");
        // What stat(2) calls blocks is 512 bytes everywhere on Linux.
        let room = metadata.blocks().saturating_mul(512).min(metadata.len());
        bytes = bytes.saturating_add(if is_partial { room } else { metadata.len() });
    }
    Ok(bytes)
}

/// What there will be, if the Hub's list of files was kept.
fn total_of(place: &Path, revision: &str) -> Option<u64> {
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
    let sizes = wanted.map(|(_, file)| {
        let size = |key: &str| file.get(key).and_then(Value::as_u64);
        size("lfs_size").or_else(|| size("size"))
    });
    sizes.sum()
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

        fn meter(&self) -> Box<dyn DownloadMeter> {
            let cache = Some(self.0.path().to_owned());
            HubDownloads { cache, revision: None }.follow(&ModelId::new("org/a").unwrap())
        }
    }

    #[tokio::test]
    async fn what_comes_is_measured_under_either_name_of_a_part() {
        let cache = Cache::new();
        cache.write("blobs/whole", &[0; 100]);
        cache.write("refs/main", b"abc\n");
        let tree = r#"{"format_version":1,"files":{
            "config.json":{"size":10}, "model.safetensors":{"size":130,"lfs_size":9000},
            "pytorch_model.bin":{"size":9000}, "original/model.safetensors":{"size":9000}}}"#;
        cache.write("trees/abc.json", tree.as_bytes());
        let mut meter = cache.meter();
        let growing = async {
            tokio::time::sleep(EVERY / 2).await;
            cache.write("blobs/part.incomplete", &[1; 5000]);
            cache.write("blobs/part.0a1b2c3d.incomplete", &[1; 3000]);
        };
        let (download, ()) = tokio::join!(meter.next_growth(), growing);
        assert_eq!(download, Download { bytes: 8100, total: Some(9010) });
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_is_there_is_not_downloaded() {
        let cache = Cache::new();
        cache.write("blobs/whole", &[0; 100]);
        let mut meter = cache.meter();
        let long = Duration::from_secs(60);
        assert!(tokio::time::timeout(long, meter.next_growth()).await.is_err());
        let local = HubDownloads { cache: Some(cache.0.path().to_owned()), revision: None };
        let mut meter = local.follow(&ModelId::new("/models/a").unwrap());
        assert!(tokio::time::timeout(long, meter.next_growth()).await.is_err());
    }

    #[test]
    fn room_that_is_not_taken_yet_has_not_come() {
        let cache = Cache::new();
        let blobs = cache.0.path().join("models--org--a/blobs");
        let part = fs::File::create(blobs.join("x.incomplete")).unwrap();
        part.set_len(1 << 30).unwrap();
        assert_eq!(bytes_in(&blobs).unwrap(), 0);
        assert_eq!(bytes_in(&blobs.join("gone")).unwrap(), 0);
        fs::write(blobs.join("file"), "").unwrap();
        assert!(bytes_in(&blobs.join("file")).is_err());
    }

    #[test]
    fn of_a_list_that_does_not_say_all_sizes_nothing_is_known() {
        let cache = Cache::new();
        let place = cache.0.path().join("models--org--a");
        assert_eq!(total_of(&place, "main"), None);
        cache.write("trees/main.json", br#"{"files":{"a.safetensors":{}}}"#);
        assert_eq!(total_of(&place, "main"), None);
        cache.write("trees/main.json", b"rubbish");
        assert_eq!(total_of(&place, "main"), None);
        cache.write("trees/main.json", br#"{"files":{"a.bin":{"size":7},"b.onnx":{"size":9}}}"#);
        assert_eq!(total_of(&place, "main"), Some(7));
    }
}
