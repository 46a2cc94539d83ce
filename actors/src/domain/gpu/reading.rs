//! What one look says is wrong with a GPU.

use std::time::Duration;

use super::{FindingKind, Gpu, GpuAction, Reachability, Slowdown};

/// Something that is wrong with a GPU at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) index: u32,
    pub(super) uuid: String,
    pub(super) kind: FindingKind,
    pub(super) action: GpuAction,
    pub(super) summary: String,
}

/// A GPU that hovers at a limit is not told of again and again.
pub(super) fn raised_after(kind: FindingKind) -> Duration {
    match kind {
        FindingKind::ThermalSlowdown | FindingKind::PowerBrake => Duration::from_secs(10),
        // A driver that is being reloaded counts anew.
        FindingKind::Missing => Duration::from_secs(2),
        _ => Duration::ZERO,
    }
}

/// How long it must have been right.
pub(super) fn cleared_after(kind: FindingKind, action: GpuAction) -> Duration {
    match kind {
        // The driver has said that it is well.
        FindingKind::Xid(_) if action.blocks() => Duration::from_secs(5),
        FindingKind::ThermalSlowdown
        | FindingKind::PowerBrake
        | FindingKind::Xid(_)
        | FindingKind::UncorrectableErrors => Duration::from_secs(60),
        _ => Duration::from_secs(5),
    }
}

/// Whether it is wrong still; `None` where this look cannot say, and another has to.
pub(super) fn is_wrong(kind: FindingKind, action: GpuAction, gpu: &Gpu) -> Option<bool> {
    let condition = &gpu.condition;
    let is = |what| match condition.reachability {
        Reachability::Unknown => None,
        reachability => Some(reachability == what),
    };
    match kind {
        FindingKind::Lost | FindingKind::Missing => is(Reachability::Lost),
        FindingKind::ResetRequired => is(Reachability::NeedsReset),
        FindingKind::RecoveryAction(action) => condition.recovery_action.map(|now| now == action),
        FindingKind::RowRemapPending => condition.row_remap_pending,
        FindingKind::RowRemapFailed => condition.row_remap_failed,
        FindingKind::ThermalSlowdown => {
            is(Reachability::Answers)?.then_some(condition.slowdown == Some(Slowdown::Thermal))
        }
        FindingKind::PowerBrake => {
            is(Reachability::Answers)?.then_some(condition.slowdown == Some(Slowdown::PowerBrake))
        }
        // The driver alone can say that a GPU is well again.
        FindingKind::Xid(_) if action.blocks() => {
            is(Reachability::Answers)?;
            condition.recovery_action.map(|now| GpuAction::of_recovery_field(now).blocks())
        }
        // They are over when none has come for a while.
        FindingKind::Xid(_) | FindingKind::UncorrectableErrors => Some(false),
    }
}

/// What a GPU that the driver does not count any more comes to.
pub(super) fn missing(gpu: &Gpu) -> Wrong {
    let said = "the driver does not count it any more".to_owned();
    wrong(gpu, FindingKind::Missing, GpuAction::Reboot, said)
}

/// What is wrong at this look, given the one before.
pub(super) fn wrongs(gpu: &Gpu, before: Option<&Gpu>) -> Vec<Wrong> {
    let condition = &gpu.condition;
    let mut found = Vec::new();
    let mut find = |kind, action, said: String| found.push(wrong(gpu, kind, action, said));
    match condition.reachability {
        Reachability::Answers | Reachability::Unknown => {}
        Reachability::Lost => {
            find(FindingKind::Lost, GpuAction::Reboot, "it has fallen off the bus".to_owned());
        }
        Reachability::NeedsReset => {
            let said = "the driver does not use it before it has been reset";
            find(FindingKind::ResetRequired, GpuAction::ResetGpu, said.to_owned());
        }
    }
    if let Some(field) = condition.recovery_action.filter(|field| *field != 0) {
        let action = GpuAction::of_recovery_field(field);
        let said = format!("its driver asks for recovery action {field} ({})", asked(field));
        find(FindingKind::RecoveryAction(field), action, said);
    }
    let errors = |gpu: &Gpu| gpu.condition.uncorrectable_errors;
    if let (Some(now), Some(then)) = (errors(gpu), before.and_then(errors))
        && now > then
    {
        let said = format!("{} memory errors could not be corrected", now - then);
        find(FindingKind::UncorrectableErrors, GpuAction::None, said);
    }
    if condition.row_remap_pending == Some(true) {
        let said =
            "a row of its memory will be replaced at its next reset: reset it when convenient";
        find(FindingKind::RowRemapPending, GpuAction::None, said.to_owned());
    }
    if condition.row_remap_failed == Some(true) {
        let said = "a row of its memory could not be replaced: have it looked at";
        find(FindingKind::RowRemapFailed, GpuAction::None, said.to_owned());
    }
    match condition.slowdown {
        None => {}
        Some(Slowdown::Thermal) => {
            let hot = gpu.temperature_celsius.map_or_else(String::new, |it| format!(" ({it} °C)"));
            let said = format!("it is too hot to run at full speed{hot}");
            find(FindingKind::ThermalSlowdown, GpuAction::None, said);
        }
        Some(Slowdown::PowerBrake) => {
            let said = "its power supply makes it run slower";
            find(FindingKind::PowerBrake, GpuAction::None, said.to_owned());
        }
    }
    found
}

/// In the words of `nvidia-smi -q`.
fn asked(field: u32) -> &'static str {
    match field {
        1 => "reset",
        2 => "reboot",
        3 => "drain P2P",
        4 => "drain and reset",
        5 => "recover the IMEX domain",
        6 => "reset of the bus",
        7 => "reboot of the system",
        _ => "unknown",
    }
}

fn wrong(gpu: &Gpu, kind: FindingKind, action: GpuAction, summary: String) -> Wrong {
    Wrong { index: gpu.index, uuid: gpu.uuid.clone(), kind, action, summary }
}
