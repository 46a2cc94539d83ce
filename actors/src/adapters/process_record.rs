//! What a supervisor leaves in writing about the vLLM it runs, so that the next one finds it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::domain::id::Incarnation;

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProcessRecord {
    /// The boot that pid and start time belong to.
    pub(super) boot_id: String,
    /// Which launch.
    pub(super) incarnation: Incarnation,
    /// The marker in its environment.
    pub(super) marker: String,
    /// The main process and its start time; `None` before it exists.
    pub(super) main: Option<(u32, u64)>,
    /// The settings it was launched with, to be compared as a whole.
    pub(super) settings: Vec<String>,
}

/// Where it is written.
#[derive(Clone, Debug)]
pub(super) struct RecordFile(PathBuf);

impl RecordFile {
    pub(super) fn in_directory(directory: &Path) -> Self {
        Self(directory.join("process.json"))
    }

    /// Replaces what is written, as a whole.
    pub(super) fn write(&self, record: &ProcessRecord) -> io::Result<()> {
        let text = json!({
            "boot_id": record.boot_id,
            "incarnation": record.incarnation.get(),
            "marker": record.marker,
            "pid": record.main.map(|main| main.0),
            "start_time": record.main.map(|main| main.1),
            "settings": record.settings,
        })
        .to_string();
        let draft = self.0.with_extension("draft");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(text.as_bytes())?;
        fs::rename(draft, &self.0)
    }

    /// What is written, if it can be understood.
    pub(super) fn read(&self) -> Option<ProcessRecord> {
        let value: Value = serde_json::from_slice(&fs::read(&self.0).ok()?).ok()?;
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let main = value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        Some(ProcessRecord {
            boot_id: text("boot_id")?,
            incarnation: Incarnation::new(value["incarnation"].as_u64()?),
            marker: text("marker")?,
            main: main.zip(value["start_time"].as_u64()),
            settings: value["settings"]
                .as_array()?
                .iter()
                .map(|word| word.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
        })
    }

    /// Whether it is certain that nothing is written.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.0.try_exists(), Ok(false))
    }

    /// Forgets a launch, if it is the one that is written.
    pub(super) fn remove(&self, marker: &str) {
        if self.read().is_some_and(|record| record.marker == marker)
            && let Err(error) = fs::remove_file(&self.0)
        {
            tracing::warn!(%error, "the record of a process that is gone cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_only_its_own_launch_removes_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = RecordFile::in_directory(directory.path());
        let record = ProcessRecord {
            boot_id: "b".into(),
            incarnation: Incarnation::new(3),
            marker: "m-3".into(),
            main: Some((41, 42)),
            settings: vec!["vllm".into(), "--port".into()],
        };
        assert_eq!(file.read(), None);
        file.write(&record).unwrap();
        assert_eq!(file.read().as_ref(), Some(&record));
        file.remove("m-2");
        assert_eq!(file.read().as_ref(), Some(&record));
        file.remove("m-3");
        assert_eq!(file.read(), None);
    }
}
