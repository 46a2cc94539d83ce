//! The GPUs that cannot be used, in a file of the state directory: `gpus.json`.
//!
//! It holds for one boot of the machine: what a reset or a reboot has cured is found out anew. Whoever
//! has made a GPU well whose driver does not say so removes the file.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::adapters::proc_fs;
use crate::adapters::state_directory::StateDirectory;
use crate::domain::gpu::{FindingKind, GpuAction, GpuFinding, GpuRules, GpuWatch};
use crate::ports::{GpuReading, GpuSource, Quarantine};

/// The file in the state directory.
const FILE: &str = "gpus.json";

/// How long the first look is waited for: to open NVML where nobody else has it open takes a while.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

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

    /// What still forbids to use a GPU, by a look at them: one that is well again is not held back, and
    /// one that vLLM is not given any more holds nothing back. Where no look can be had, all of it does.
    pub async fn examine(&self, source: &dyn GpuSource, rules: &GpuRules) -> Vec<GpuFinding> {
        let kept = self.read();
        if kept.is_empty() {
            return kept;
        }
        let mut readings = source.readings();
        let has_looked = readings.wait_for(|reading| *reading != GpuReading::Pending);
        let snapshot = match timeout(SEEN_WITHIN, has_looked).await {
            Ok(Ok(reading)) => match &*reading {
                GpuReading::Seen(snapshot) => snapshot.clone(),
                GpuReading::Pending | GpuReading::Unavailable(_) => return kept,
            },
            Ok(Err(_)) | Err(_) => return kept,
        };
        let mut watch = GpuWatch::resume(rules.clone(), kept, 0);
        // What was found in another life was found long ago, and vLLM may be given others than then.
        watch.looked(&snapshot, Duration::from_secs(24 * 3600));
        let left: Vec<GpuFinding> =
            watch.findings().filter(|finding| finding.action.blocks()).cloned().collect();
        self.keep(&left);
        left
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
    use crate::domain::gpu::{Devices, Gpu, GpuSnapshot, XidPolicy};
    use crate::testing::gpu::ScriptedGpus;

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

    fn rules() -> GpuRules {
        GpuRules::new(XidPolicy::default(), Devices::First(1))
    }

    fn saying(uuid: &str, action: Option<u32>) -> GpuSnapshot {
        let mut gpu = Gpu::new(0, uuid, "NVIDIA H100");
        gpu.condition.recovery_action = action;
        GpuSnapshot { gpus: vec![gpu] }
    }

    fn kept() -> GpuFinding {
        let found =
            GpuFinding::new(0, "GPU-0", FindingKind::Xid(95), GpuAction::ResetGpu, "Xid 95");
        GpuFinding { is_ours: true, ..found }
    }

    #[tokio::test(start_paused = true)]
    async fn a_gpu_that_was_made_well_meanwhile_holds_nothing_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        let source = ScriptedGpus::every(Duration::from_secs(1));
        file.keep(&[kept()]);
        assert_eq!(file.examine(&source, &rules()).await, [kept()], "nobody could look");
        source.see(saying("GPU-0", None));
        assert_eq!(file.examine(&source, &rules()).await, [kept()], "its driver does not say");
        source.see(saying("GPU-0", Some(1)));
        let left = file.examine(&source, &rules()).await;
        assert!(left.iter().all(GpuFinding::blocks_us) && left.len() == 2, "{left:?}");
        source.see(saying("GPU-0", Some(0)));
        assert_eq!(file.examine(&source, &rules()).await, []);
        assert!(!file.path().exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_gpu_that_vllm_is_not_given_any_more_holds_nothing_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        let source = ScriptedGpus::every(Duration::from_secs(1));
        file.keep(&[kept()]);
        let mut snapshot = saying("GPU-0", None);
        snapshot.gpus.push(Gpu::new(1, "GPU-1", "NVIDIA H100"));
        source.see(snapshot);
        let rules = GpuRules::new(XidPolicy::default(), Devices::new(Some("1"), 1));
        let left = file.examine(&source, &rules).await;
        assert!(left.len() == 1 && !left[0].blocks_us(), "{left:?}");
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
