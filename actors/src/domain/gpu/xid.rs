//! What NVIDIA prescribes for each Xid error: data, by NVIDIA's catalogue
//! (`docs.nvidia.com/deploy/xid-errors`, "immediate action"), as of October 2025.
//!
//! Where the driver itself says what is to be done (NVML's field 230), that counts more.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::GpuAction;

/// What an Xid is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XidClass {
    /// A consequence of something else, or for the record: every process that is killed amid its work
    /// leaves a 45.
    Ignored,
    /// A fault, for which this has to be done.
    Fault(GpuAction),
}

struct Row {
    xids: &'static [RangeInclusive<u32>],
    class: XidClass,
}

const TABLE: &[Row] = &[
    Row {
        xids: &[
            14..=14,
            37..=38,
            43..=45,
            66..=67,
            93..=93,
            106..=107,
            121..=121,
            137..=137,
            141..=141,
            152..=154,
            160..=165,
            171..=172,
        ],
        class: XidClass::Ignored,
    },
    // A row will be remapped; many errors that were corrected.
    Row { xids: &[63..=63, 92..=92, 157..=157], class: XidClass::Fault(GpuAction::None) },
    Row {
        xids: &[
            8..=8,
            11..=11,
            13..=13,
            25..=25,
            31..=32,
            39..=41,
            60..=60,
            68..=72,
            75..=77,
            80..=80,
            82..=86,
            88..=89,
            94..=94,
            96..=105,
            126..=135,
            139..=139,
        ],
        class: XidClass::Fault(GpuAction::RestartApplication),
    },
    // A double-bit error and NVLink's errors: what is to be done beyond depends on what else is told.
    Row {
        xids: &[48..=48, 74..=74, 144..=150, 159..=159],
        class: XidClass::Fault(GpuAction::RestartApplication),
    },
    Row {
        xids: &[
            46..=46,
            54..=54,
            62..=62,
            64..=64,
            78..=78,
            95..=95,
            109..=110,
            119..=120,
            136..=136,
            140..=140,
            142..=143,
            155..=156,
            158..=158,
        ],
        class: XidClass::Fault(GpuAction::ResetGpu),
    },
    Row { xids: &[79..=79, 151..=151], class: XidClass::Fault(GpuAction::Reboot) },
];

/// Those that what runs on a GPU makes of itself, as a rule (NVIDIA's k8s-device-plugin,
/// `internal/rm/health.go`): however often they come, they are not the GPU's.
const OF_APPLICATIONS: [u32; 6] = [13, 31, 43, 45, 68, 109];

pub(super) fn is_of_application(xid: u32) -> bool {
    OF_APPLICATIONS.contains(&xid)
}

/// The words of those that an operator meets.
const NAMES: &[(u32, &str)] = &[
    (13, "graphics engine exception"),
    (31, "memory page fault"),
    (43, "GPU stopped processing"),
    (45, "preemptive cleanup"),
    (46, "GPU stopped processing"),
    (48, "double-bit memory error"),
    (62, "internal microcontroller halt"),
    (63, "a row of memory will be remapped"),
    (64, "a row of memory could not be remapped"),
    (74, "NVLink error"),
    (79, "GPU has fallen off the bus"),
    (92, "high rate of corrected memory errors"),
    (94, "contained memory error"),
    (95, "uncontained memory error"),
    (109, "context switch timeout"),
    (119, "GSP does not answer"),
    (120, "GSP error"),
    (140, "memory error that could not be recovered"),
];

/// What is done about Xid errors: the table, but for what an operator wants otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XidPolicy {
    overrides: BTreeMap<u32, GpuAction>,
}

impl XidPolicy {
    /// The table, but for these.
    pub fn with(overrides: BTreeMap<u32, GpuAction>) -> Self {
        Self { overrides }
    }

    /// Whether an operator has said what is done about this one.
    pub(super) fn is_overridden(&self, xid: u32) -> bool {
        self.overrides.contains_key(&xid)
    }

    /// What is done about this one. Of one that is in no table the driver has to say what is to be
    /// done.
    pub fn class(&self, xid: u32) -> XidClass {
        if let Some(action) = self.overrides.get(&xid) {
            return match action {
                GpuAction::None => XidClass::Ignored,
                action => XidClass::Fault(*action),
            };
        }
        let has_it = |row: &&Row| row.xids.iter().any(|xids| xids.contains(&xid));
        TABLE.iter().find(has_it).map_or(XidClass::Fault(GpuAction::None), |row| row.class)
    }
}

/// The error in words: `Xid 79 (GPU has fallen off the bus)`.
pub(super) fn in_words(xid: u32) -> String {
    match NAMES.iter().find(|(number, _)| *number == xid) {
        Some((_, name)) => format!("Xid {xid} ({name})"),
        None => format!("Xid {xid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_xid_stands_in_the_table_once() {
        for xid in 0..400 {
            let rows = TABLE.iter().flat_map(|row| row.xids).filter(|xids| xids.contains(&xid));
            assert!(rows.count() <= 1, "Xid {xid}");
        }
    }

    #[test]
    fn an_operator_overrides_the_table() {
        let policy =
            XidPolicy::with(BTreeMap::from([(109, GpuAction::None), (13, GpuAction::ResetGpu)]));
        assert_eq!(policy.class(109), XidClass::Ignored);
        assert_eq!(policy.class(13), XidClass::Fault(GpuAction::ResetGpu));
        assert_eq!(policy.class(79), XidClass::Fault(GpuAction::Reboot));
        assert_eq!(policy.class(45), XidClass::Ignored);
        assert_eq!(policy.class(9999), XidClass::Fault(GpuAction::None));
    }
}
