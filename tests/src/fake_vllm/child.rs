//! How the stand-in starts itself again as one of its own helpers.
//!
//! Python starts `VLLM::EngineCore` and its workers as `python -c from multiprocessing.spawn …`;
//! only after importing vLLM, 16 s later, do they take their titles. So here: the helper first
//! runs under Python's name, then executes itself once more under its title, as the same process.

use std::ffi::CString;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::plan::{Plan, Quirk, Step};

/// The environment variable that carries a helper's orders, as JSON.
const ORDERS_VARIABLE: &str = "FAKE_VLLM_ORDERS";
/// This program, also when a build has put another in its place since.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Who a helper is and all it has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) role: Role,
    pub(super) stage: Stage,
    pub(super) plan: Plan,
    pub(super) model: String,
    pub(super) served_model: String,
    /// How many workers there are.
    pub(super) world_size: u32,
    /// The write end of the resource tracker's pipe, which every helper inherits.
    pub(super) tracker_pipe: RawFd,
    /// The engine's segment of shared memory, for the workers to map.
    pub(super) engine_segment: Option<PathBuf>,
}

/// The helpers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Role {
    EngineCore,
    Worker { rank: u32 },
    ResourceTracker,
    Grandchild,
}

/// Before or after the imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    Importing,
    Titled,
}

impl Orders {
    /// The orders of this process; `None` when it was not started by the stand-in itself.
    pub(super) fn of_this_process() -> Option<Self> {
        let json = std::env::var(ORDERS_VARIABLE).ok()?;
        let orders: Self = serde_json::from_str(&json).expect("orders are written by `start`");
        let name = match orders.stage {
            Stage::Importing => "python".to_owned(),
            Stage::Titled => orders.title(),
        };
        set_comm(&name);
        Some(orders)
    }

    /// The same orders for somebody else.
    pub(super) fn for_role(&self, role: Role) -> Self {
        Self { role, stage: Stage::Importing, ..self.clone() }
    }

    /// Starts the helper, with `stdin` as its line to whoever starts it.
    pub(super) fn start(&self, stdin: impl Into<OwnedFd>) -> Child {
        #[expect(clippy::disallowed_methods, reason = "the stand-in brings its own process tree")]
        let mut command = Command::new(OWN_PROGRAM);
        match self.role {
            Role::Grandchild => command.arg0("fake_vllm-grandchild"),
            Role::ResourceTracker => command
                .arg0("python")
                .args(["-c", "from multiprocessing.resource_tracker import main;main(0)"]),
            Role::EngineCore | Role::Worker { .. } => command
                .arg0("python")
                .args(["-c", "from multiprocessing.spawn import spawn_main; spawn_main()"])
                .arg("--multiprocessing-fork"),
        };
        if matches!(self.role, Role::Grandchild) && self.plan.has(Quirk::LeavesStranger) {
            command.env_clear();
        }
        let child = command.env(ORDERS_VARIABLE, self.as_json()).stdin(Stdio::from(stdin.into()));
        child.spawn().expect("the stand-in can start itself")
    }

    /// Spends the time for importing vLLM, then becomes the process with the title.
    ///
    /// Setting a title overwrites the environment that `/proc` shows, unless `SPT_NOENV` is set
    /// (setproctitle 1.3.8); here the environment goes altogether.
    pub(super) async fn import_and_take_title(self) -> ExitCode {
        tokio::time::sleep(self.import_time()).await;
        match self.role {
            Role::EngineCore => self.plan.pass(Step::EngineImports).await,
            Role::Worker { .. } => self.plan.pass(Step::WorkerImports).await,
            Role::ResourceTracker | Role::Grandchild => {}
        }
        let titled = Self { stage: Stage::Titled, ..self };
        #[expect(clippy::disallowed_methods, reason = "the stand-in brings its own process tree")]
        let mut command = std::process::Command::new(OWN_PROGRAM);
        if std::env::var_os("SPT_NOENV").is_none_or(|value| value.is_empty()) {
            command.env_clear();
        }
        let error = command.arg0(titled.title()).env(ORDERS_VARIABLE, titled.as_json()).exec();
        panic!("the stand-in cannot take its title: {error}");
    }

    /// The title as vLLM sets it (0.32, `multiproc_executor.py`): a rank only where there are
    /// several.
    pub(super) fn title(&self) -> String {
        match self.role {
            Role::EngineCore => "VLLM::EngineCore".to_owned(),
            Role::Worker { rank } if self.world_size > 1 => format!("VLLM::Worker_TP{rank}"),
            Role::Worker { .. } => "VLLM::Worker".to_owned(),
            Role::ResourceTracker => "python".to_owned(),
            Role::Grandchild => "grandchild".to_owned(),
        }
    }

    fn import_time(&self) -> Duration {
        self.plan.share_of_load_time(30)
    }

    fn as_json(&self) -> String {
        serde_json::to_string(self).expect("orders are plain data")
    }
}

/// Sets the name that `/proc/PID/comm` shows; the kernel cuts it to 15 bytes.
pub(super) fn set_comm(name: &str) {
    let name = CString::new(name).expect("a title has no NUL");
    rustix::thread::set_name(&name).ok();
}
