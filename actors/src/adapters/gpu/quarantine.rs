//! The GPUs that cannot be used, in a file of the state directory: `gpus.json`.
//!
//! It holds for one boot of the machine: what a reset or a reboot has cured is found out anew. Whoever
//! has made a GPU well whose driver does not say so removes the file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::adapters::proc_fs;
use crate::adapters::state_directory::StateDirectory;
use crate::domain::gpu::{FindingKind, GpuAction, GpuFinding};
use crate::ports::Quarantine;

/// The file in the state directory.
const FILE: &str = "gpus.json";

/// See the module.
#[derive(Clone, Debug)]
pub struct QuarantineFile {
    state: Arc<StateDirectory>,
}

impl QuarantineFile {
    /// The one of this directory.
    pub fn in_directory(state: Arc<StateDirectory>) -> Self {
        Self { state }
    }

    /// What forbids to use a GPU since this boot. What cannot be read is said in the log, and then
    /// found out anew: a GPU that is still unwell will fail once more.
    pub fn read(&self) -> Vec<GpuFinding> {
        let path = self.path();
        let json: Value = match fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?))
        {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "the GPUs' quarantine cannot be read");
                return Vec::new();
            }
        };
        match proc_fs::boot_id() {
            Ok(boot) if json["boot_id"] == boot => {}
            Ok(_) => return Vec::new(),
            // Perhaps the same.
            Err(error) => tracing::warn!(%error, "which boot this is cannot be found out"),
        }
        let findings = json["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
        findings.iter().filter_map(finding).collect()
    }

    fn write(&self, findings: &[GpuFinding]) -> io::Result<()> {
        if findings.is_empty() {
            return match fs::remove_file(self.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
        }
        let boot = proc_fs::boot_id().map_err(io::Error::other)?;
        let findings: Vec<Value> = findings.iter().map(of_finding).collect();
        let json = json!({ "boot_id": boot, "findings": findings });
        let part = self.path().with_extension("part");
        fs::write(&part, serde_json::to_vec_pretty(&json)?)?;
        fs::rename(part, self.path())
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.state.path().join(FILE)
    }
}

impl Quarantine for QuarantineFile {
    fn keep(&self, findings: &[GpuFinding]) {
        if let Err(error) = self.write(findings) {
            let file = self.path();
            let file: &Path = &file;
            tracing::warn!(%error, file = %file.display(), "the GPUs' quarantine cannot be kept");
        }
    }
}

fn of_finding(finding: &GpuFinding) -> Value {
    json!({
        "index": finding.index,
        "uuid": finding.uuid,
        "kind": finding.kind.as_str(),
        "number": finding.kind.number(),
        "action": finding.action.as_str(),
        "summary": finding.summary,
        "ours": finding.is_ours,
    })
}

fn finding(json: &Value) -> Option<GpuFinding> {
    let text = |name: &str| json[name].as_str();
    let number = |name: &str| json[name].as_u64().and_then(|number| u32::try_from(number).ok());
    let kind = FindingKind::named(text("kind")?, number("number"))?;
    let action = GpuAction::ALL.into_iter().find(|it| Some(it.as_str()) == text("action"))?;
    let mut finding =
        GpuFinding::new(number("index")?, text("uuid")?, kind, action, text("summary")?);
    finding.is_ours = json["ours"].as_bool()?;
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(directory: &tempfile::TempDir) -> QuarantineFile {
        let state = StateDirectory::open(directory.path()).unwrap();
        QuarantineFile::in_directory(Arc::new(state))
    }

    fn findings() -> Vec<GpuFinding> {
        let xid = GpuFinding::new(3, "GPU-3", FindingKind::Xid(79), GpuAction::Reboot, "Xid 79");
        let lost = GpuFinding::new(0, "", FindingKind::Lost, GpuAction::Reboot, "lost");
        vec![GpuFinding { is_ours: true, ..xid }, lost]
    }

    #[test]
    fn what_is_kept_is_read_again_and_removed_when_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        assert_eq!(file.read(), []);
        file.keep(&findings());
        assert_eq!(file.read(), findings());
        file.keep(&[]);
        assert!(!file.path().exists());
        file.keep(&[]);
        assert_eq!(file.read(), []);
    }

    #[test]
    fn another_boot_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        file.keep(&findings());
        let text = fs::read_to_string(file.path()).unwrap();
        let boot = proc_fs::boot_id().unwrap();
        fs::write(file.path(), text.replace(&boot, "another")).unwrap();
        assert_eq!(file.read(), []);
    }

    #[test]
    fn what_is_no_quarantine_holds_nothing_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        for text in ["", "{", "[]", "{\"boot_id\": 7, \"findings\": {}}", "\u{0}"] {
            fs::write(file.path(), text).unwrap();
            assert_eq!(file.read(), [], "{text:?}");
        }
    }
}
