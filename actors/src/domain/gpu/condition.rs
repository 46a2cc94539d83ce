//! How well a GPU is, by what its driver says of it.

/// What a look says of a GPU's health. A reading that the device does not offer is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuCondition {
    /// Whether it answers.
    pub reachability: Reachability,
    /// What the driver says has to be done with it, by NVML's field 230
    /// (`NVML_FI_DEV_GET_GPU_RECOVERY_ACTION` in nvml.h): 0 is nothing.
    pub recovery_action: Option<u32>,
    /// Memory errors since the driver was loaded that could not be corrected.
    pub uncorrectable_errors: Option<u64>,
    /// Whether a row of its memory will be replaced at the next reset (NVML's field 144).
    pub row_remap_pending: Option<bool>,
    /// Whether a row of its memory could not be replaced (NVML's field 145).
    pub row_remap_failed: Option<bool>,
    /// What makes it run slower than it could, beyond what is normal.
    pub slowdown: Option<Slowdown>,
    /// Whether it is divided (NVIDIA's MIG, AMD's compute partitions), so that figures of the whole say nothing of what an application
    /// gets.
    pub is_partitioned: Option<bool>,
}

/// Whether a GPU answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reachability {
    /// It does.
    #[default]
    Answers,
    /// It has fallen off the bus, or is otherwise inaccessible (`NVML_ERROR_GPU_IS_LOST`; of AMD's,
    /// the kernel has it no more).
    Lost,
    /// It wants to be reset first (`NVML_ERROR_RESET_REQUIRED`).
    NeedsReset,
    /// It could not be asked, for a reason that says nothing of it.
    Unknown,
}

/// Why a GPU runs slower than it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Slowdown {
    /// It is too hot (nvml.h: `nvmlClocksEventReasonHwThermalSlowdown`, `…SwThermalSlowdown`).
    Thermal,
    /// Its power supply asks for it (nvml.h: `nvmlClocksEventReasonHwPowerBrakeSlowdown`).
    PowerBrake,
}
