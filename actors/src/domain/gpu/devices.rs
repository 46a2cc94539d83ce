//! Which GPUs vLLM uses, where it cannot be seen.

use std::cmp::Ordering;

use super::Gpu;

/// The GPUs that vLLM was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Devices {
    /// The first ones, by the driver's order.
    First(u32),
    /// The first of those that a variable names.
    Named {
        /// The names, in their order.
        names: Vec<DeviceName>,
        /// How many of them are used.
        count: u32,
    },
    /// Nobody can say: parts of GPUs, or more than there are names for.
    Unknown,
}

/// One GPU of `CUDA_VISIBLE_DEVICES`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// By the number by which applications know it.
    Ordinal(u32),
    /// By the beginning of its identity.
    Uuid(String),
}

impl Devices {
    /// By `CUDA_VISIBLE_DEVICES` (or AMD's `HIP_VISIBLE_DEVICES`, `ROCR_VISIBLE_DEVICES`) and the
    /// number of GPUs that vLLM splits the model over.
    ///
    /// As CUDA has it, what stands behind a name that is none is not visible, and an identity may be
    /// cut short (CUDA programming guide, "CUDA Environment Variables").
    pub fn new(visible: Option<&str>, count: u32) -> Self {
        let Some(visible) = visible else { return Self::First(count) };
        let mut names = Vec::new();
        for name in visible.split(',').map(str::trim) {
            if name.starts_with("MIG-") {
                return Self::Unknown;
            } else if let Ok(number) = name.parse() {
                names.push(DeviceName::Ordinal(number));
            } else if name.starts_with("GPU-") {
                names.push(DeviceName::Uuid(name.to_owned()));
            } else {
                break;
            }
        }
        Self::Named { names, count }
    }

    /// Whether this is one of them, of as many as there are; `None` if nobody can say.
    pub fn include(&self, gpu: &Gpu, there_are: usize) -> Option<bool> {
        match self {
            Self::First(count) => {
                let count = usize::try_from(*count).ok()?;
                match count.cmp(&there_are) {
                    Ordering::Less => Some(usize::try_from(gpu.ordinal?).ok()? < count),
                    Ordering::Equal => Some(true),
                    Ordering::Greater => None,
                }
            }
            Self::Named { names, count } => {
                let used = names.get(..usize::try_from(*count).ok()?)?;
                let mut is_unknown = false;
                let is_it = used.iter().any(|name| match name {
                    DeviceName::Ordinal(number) => {
                        is_unknown |= gpu.ordinal.is_none();
                        gpu.ordinal == Some(*number)
                    }
                    DeviceName::Uuid(prefix) => gpu.uuid.starts_with(prefix),
                });
                (is_it || !is_unknown).then_some(is_it)
            }
            Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(visible: Option<&str>, count: u32) -> Vec<Option<bool>> {
        let devices = Devices::new(visible, count);
        let gpus = ["GPU-aa11", "GPU-bb22", "GPU-cc33"];
        let gpu = |(index, uuid)| Gpu::new(index, uuid, "");
        (0..).zip(gpus).map(gpu).map(|gpu| devices.include(&gpu, gpus.len())).collect()
    }

    #[test]
    fn the_first_are_used_where_nothing_is_said() {
        assert_eq!(used(None, 2), [Some(true), Some(true), Some(false)]);
        assert_eq!(used(None, 4), [None; 3]);
    }

    #[test]
    fn a_variable_names_them_by_place_or_identity() {
        assert_eq!(used(Some("2,0,1"), 2), [Some(true), Some(false), Some(true)]);
        assert_eq!(used(Some("GPU-bb"), 1), [Some(false), Some(true), Some(false)]);
    }

    #[test]
    fn where_applications_may_count_otherwise_a_number_says_nothing() {
        let gpu = Gpu { ordinal: None, ..Gpu::new(0, "GPU-aa11", "") };
        assert_eq!(Devices::First(1).include(&gpu, 2), None);
        assert_eq!(Devices::First(2).include(&gpu, 2), Some(true), "all of them");
        assert_eq!(Devices::new(Some("0"), 1).include(&gpu, 2), None);
        assert_eq!(Devices::new(Some("GPU-aa"), 1).include(&gpu, 2), Some(true));
        assert_eq!(Devices::new(Some("GPU-bb"), 1).include(&gpu, 2), Some(false));
    }

    #[test]
    fn what_cannot_be_said_is_no_answer() {
        assert_eq!(used(Some("MIG-1234"), 1), [None; 3]);
        assert_eq!(used(Some("1"), 2), [None; 3]);
        assert_eq!(used(Some("0,-1,1"), 2), [None; 3]);
        assert_eq!(used(Some(""), 1), [None; 3]);
    }
}
