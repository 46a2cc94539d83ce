//! Processes that have memory on a GPU: those of the scenario, and those that say so themselves, for as
//! long as they live.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::call::Asked;
use crate::place;
use crate::state::ProcessState;

/// Where processes say what they have, within a scenario's directory.
const DIRECTORY: &str = "processes";

/// Says, of this very process, that it has so much memory on a GPU of the scenario in this directory.
///
/// # Errors
///
/// The system's, when it cannot be written.
pub fn hold_memory(scenario: &Path, gpu: u32, bytes: u64) -> io::Result<()> {
    let directory = scenario.join(DIRECTORY);
    fs::create_dir_all(&directory)?;
    let pid = std::process::id().to_string();
    let part = directory.join(format!("{pid}.part"));
    fs::write(&part, json!({ "gpu": gpu, "bytes": bytes }).to_string())?;
    fs::rename(part, directory.join(pid))
}

/// Those of this GPU.
pub(crate) fn of(asked: &Asked) -> Vec<ProcessState> {
    let said = place::directory().map(|directory| directory.join(DIRECTORY));
    let entries = said.and_then(|directory| fs::read_dir(directory).ok()).into_iter().flatten();
    let living = entries.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let held: Value = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
        let is_here = held["gpu"].as_u64() == u64::try_from(asked.index).ok();
        let bytes = held["bytes"].as_u64()?;
        (is_here && is_alive(pid)).then_some(ProcessState { pid, bytes })
    });
    asked.gpu().processes.iter().copied().chain(living).collect()
}

/// A process that is dead has no memory, though its parent has not waited for it yet.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}
