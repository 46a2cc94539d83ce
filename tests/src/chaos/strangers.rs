//! Processes and a segment that look as if they were vLLM's and are nobody's business.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;

use super::place::{MODELS, Place};
use crate::process_table::Process;

/// See the module. They end with this.
#[derive(Debug)]
pub(super) struct Strangers {
    processes: Vec<(&'static str, Child)>,
    segment: PathBuf,
}

impl Strangers {
    pub(super) fn start(place: &Place) -> io::Result<Self> {
        let mut strangers = Self {
            processes: Vec::new(),
            segment: PathBuf::from(format!("/dev/shm/psm_stranger_{}", place.port)),
        };
        fs::write(&strangers.segment, "nobody's business")?;
        let front = format!("vllm serve {} --port {}", MODELS[0], place.port);
        for (who, title, variable) in [
            ("a front of somebody else", front.as_str(), ("SPT_NOENV", "1")),
            ("an engine of somebody else", "VLLM::EngineCore", ("SPT_NOENV", "1")),
            ("another supervisor's process", "VLLM::Worker", ("VLLMD_INSTANCE", "stranger-1")),
        ] {
            #[expect(clippy::disallowed_methods, reason = "a bystander of the test")]
            let mut command = Command::new("sleep");
            // What has no handler ends at nearly every signal: to be alive is not to have got one.
            // It ends in an hour by itself, should nobody be there to end it.
            command.arg0(title).arg("3600").env(variable.0, variable.1).stdin(Stdio::null());
            strangers.processes.push((who, command.spawn()?));
        }
        Ok(strangers)
    }

    /// Who of them was harmed, and how.
    pub(super) fn harmed(&self) -> Option<String> {
        if !self.segment.exists() {
            return Some(format!("{} was removed", self.segment.display()));
        }
        self.processes.iter().find_map(|(who, child)| {
            let pid = Pid::from_raw(child.id().cast_signed())?;
            match Process::of(pid).map(|process| process.state) {
                Some('Z') | None => Some(format!("{who} was ended")),
                Some('T') => Some(format!("{who} was stopped")),
                Some(_) => None,
            }
        })
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        for (_, child) in &mut self.processes {
            // One that was harmed is gone already.
            child.kill().ok();
            child.wait().ok();
        }
        fs::remove_file(&self.segment).ok();
    }
}
