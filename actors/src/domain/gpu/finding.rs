//! What is wrong with a GPU, for as long as it is.

use std::fmt;

use super::xid::is_of_application;
use crate::domain::cause::{Cause, Code, RetryClass};

/// What has to be done about a fault of a GPU, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GpuAction {
    /// Nothing now.
    None,
    /// Restart the application that uses it.
    RestartApplication,
    /// Stop all that uses it, and reset it.
    ResetGpu,
    /// Reboot the machine.
    Reboot,
    /// Have the hardware looked at.
    ContactSupport,
}

impl GpuAction {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::None, Self::RestartApplication, Self::ResetGpu, Self::Reboot, Self::ContactSupport];

    /// The action's name in lower case, as in JSON and in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::RestartApplication => "restart_application",
            Self::ResetGpu => "reset_gpu",
            Self::Reboot => "reboot",
            Self::ContactSupport => "contact_support",
        }
    }

    /// Whether nothing can be run on the GPU until a person has acted.
    pub fn blocks(self) -> bool {
        self >= Self::ResetGpu
    }

    /// By NVML's field 230 (nvml.h, `nvmlDeviceGpuRecoveryAction_t`).
    ///
    /// To drain it, alone (3) or for a reset when convenient (4), leaves running what was not hurt; a
    /// domain of the fabric (5), and what is newer than this table, is not for us to end vLLM for.
    pub fn of_recovery_field(value: u32) -> Self {
        match value {
            // Of itself; of its bus.
            1 | 6 => Self::ResetGpu,
            // Of the node; of the system.
            2 | 7 => Self::Reboot,
            _ => Self::None,
        }
    }
}

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FindingKind {
    /// The driver has told of this Xid error.
    Xid(u32),
    /// It has fallen off the bus.
    Lost,
    /// It is no longer counted by the driver.
    Missing,
    /// The driver will not use it before a reset.
    ResetRequired,
    /// The driver says what is to be done with it, by NVML's field 230.
    RecoveryAction(u32),
    /// Memory errors that could not be corrected have been counted since the look before.
    UncorrectableErrors,
    /// A row of its memory will be replaced at the next reset.
    RowRemapPending,
    /// A row of its memory could not be replaced.
    RowRemapFailed,
    /// It is too hot to run at full speed.
    ThermalSlowdown,
    /// Its power supply makes it run slower.
    PowerBrake,
}

impl FindingKind {
    /// The kind's name in lower case, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Xid(_) => "xid",
            Self::Lost => "lost",
            Self::Missing => "missing",
            Self::ResetRequired => "reset_required",
            Self::RecoveryAction(_) => "recovery_action",
            Self::UncorrectableErrors => "uncorrectable_errors",
            Self::RowRemapPending => "row_remap_pending",
            Self::RowRemapFailed => "row_remap_failed",
            Self::ThermalSlowdown => "thermal_slowdown",
            Self::PowerBrake => "power_brake",
        }
    }

    /// The kind of this name and number.
    pub fn named(name: &str, number: Option<u32>) -> Option<Self> {
        let kinds = [
            Self::Xid(number.unwrap_or_default()),
            Self::Lost,
            Self::Missing,
            Self::ResetRequired,
            Self::RecoveryAction(number.unwrap_or_default()),
            Self::UncorrectableErrors,
            Self::RowRemapPending,
            Self::RowRemapFailed,
            Self::ThermalSlowdown,
            Self::PowerBrake,
        ];
        kinds.into_iter().find(|kind| kind.as_str() == name && kind.number() == number)
    }

    /// Whether what runs on the GPU may have made it of itself.
    pub fn is_of_application(self) -> bool {
        matches!(self, Self::Xid(number) if is_of_application(number))
    }

    /// The number that the driver gives: of an Xid, of an action.
    pub const fn number(self) -> Option<u32> {
        match self {
            Self::Xid(number) | Self::RecoveryAction(number) => Some(number),
            _ => None,
        }
    }
}

/// Something that is wrong with a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuFinding {
    /// The GPU's place in the driver's order.
    pub index: u32,
    /// The GPU's identity; empty where the driver has never said.
    pub uuid: String,
    /// What kind of thing.
    pub kind: FindingKind,
    /// What has to be done.
    pub action: GpuAction,
    /// What is wrong, without the GPU; a lowercase fragment.
    pub summary: String,
    /// Whether vLLM uses this GPU.
    pub is_ours: bool,
}

impl GpuFinding {
    /// Of a GPU that vLLM does not use.
    pub fn new(
        index: u32,
        uuid: impl Into<String>,
        kind: FindingKind,
        action: GpuAction,
        summary: impl Into<String>,
    ) -> Self {
        let (uuid, summary) = (uuid.into(), summary.into());
        Self { index, uuid, kind, action, summary, is_ours: false }
    }

    /// Whether it is the same thing that is wrong with the same GPU, of which the place may have changed,
    /// and the identity become known.
    pub fn is_of_same(&self, other: &Self) -> bool {
        let is_same_gpu = if self.uuid.is_empty() || other.uuid.is_empty() {
            self.index == other.index
        } else {
            self.uuid == other.uuid
        };
        is_same_gpu && self.kind == other.kind
    }

    /// Whether vLLM can not be run because of it.
    pub fn blocks_us(&self) -> bool {
        self.is_ours && self.action.blocks()
    }

    /// The cause that it is of an end, or of a launch that cannot be.
    pub fn cause(&self) -> Cause {
        let cause = Cause::new(Code::GpuFault, self.to_string()).with_remedy(self.remedy());
        let retry =
            if self.action.blocks() { RetryClass::Permanent } else { RetryClass::Transient };
        Cause { retry, ..cause }
    }

    /// What the operator can do.
    pub fn remedy(&self) -> String {
        let Self { index, .. } = self;
        match self.action {
            GpuAction::None => {
                format!("`nvidia-smi -q -i {index}`, or `amd-smi metric -g {index}`, shows more of it")
            }
            GpuAction::RestartApplication => {
                "a restart of vLLM is what NVIDIA prescribes; if it recurs, see the kernel's log \
                 (`dmesg | grep -i xid`)"
                    .to_owned()
            }
            GpuAction::ResetGpu => format!(
                "end whatever uses the GPU, this supervisor too, and reset it (`nvidia-smi \
                 --gpu-reset -i {index}`), or reboot; then start again. Where its driver cannot say \
                 that it is well, remove gpus.json from the state directory"
            ),
            GpuAction::Reboot => "reboot the machine, or run vLLM on other GPUs (`CUDA_VISIBLE_DEVICES`), \
                                  then start again; if the fault comes back, have the hardware looked at"
                .to_owned(),
            GpuAction::ContactSupport => format!(
                "have the GPU looked at by its vendor (`nvidia-smi -q -i {index}`, \
                 `nvidia-bug-report.sh`), and run vLLM on others meanwhile (`CUDA_VISIBLE_DEVICES`)"
            ),
        }
    }
}

impl fmt::Display for GpuFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPU {}: {}", self.index, self.summary)
    }
}
