//! Whether a GPU has room for what vLLM is going to take of it.

use super::{Devices, Gpu, GpuSnapshot};

/// A GPU without enough free memory.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Shortage {
    /// The GPU.
    pub gpu: Gpu,
    /// What vLLM would take, in bytes.
    pub wanted_bytes: u64,
    /// What it could have, in bytes.
    pub free_bytes: u64,
    /// The largest share of its memory that could be had.
    pub fitting_share: f64,
}

/// CUDA counts memory a little otherwise than the driver does: what lacks less than this share of the
/// whole is left to vLLM to judge.
const TOLERANCE: f64 = 0.02;

/// The first of these devices that vLLM would refuse to start on, as it would by now.
///
/// vLLM wants `share` (`--gpu-memory-utilization`, 0 to 1) of all memory to be free when it starts
/// (0.8 to 0.32, `v1/worker/gpu_worker.py`; 0.32 `v1/worker/utils.py`, `request_memory`). What is not
/// known is no shortage: of which devices it takes, of parts of devices, or of memory that a device
/// shares with its host.
pub fn shortage(snapshot: &GpuSnapshot, devices: &Devices, share: f64) -> Option<Shortage> {
    let used = snapshot.among(devices);
    used.filter(|gpu| gpu.condition.is_partitioned != Some(true)).find_map(|gpu| of_one(gpu, share))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of what has far fewer than 2^52 bytes"
)]
fn of_one(gpu: &Gpu, share: f64) -> Option<Shortage> {
    let (free_bytes, used) = (gpu.memory_free_bytes?, gpu.memory_used_bytes?);
    let whole = free_bytes.checked_add(used)? as f64;
    let wanted_bytes = (whole * share).ceil() as u64;
    if free_bytes as f64 + whole * TOLERANCE >= whole * share {
        return None;
    }
    // To be written with two digits, and not be too much.
    let fitting_share = (free_bytes as f64 / whole * 100.0).floor() / 100.0;
    Some(Shortage { gpu: gpu.clone(), wanted_bytes, free_bytes, fitting_share })
}

/// So many bytes, to one digit.
#[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
pub(crate) fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn gpu(index: u32, free: u64, used: u64) -> Gpu {
        Gpu {
            memory_free_bytes: Some(free * GIB),
            memory_used_bytes: Some(used * GIB),
            memory_total_bytes: Some((free + used + 1) * GIB),
            ..Gpu::new(index, format!("GPU-{index}"), "NVIDIA H100")
        }
    }

    fn lacking(gpus: &[Gpu], devices: &Devices, share: f64) -> Option<u32> {
        let snapshot = GpuSnapshot { gpus: gpus.to_vec() };
        shortage(&snapshot, devices, share).map(|shortage| shortage.gpu.index)
    }

    #[test]
    fn who_has_less_than_vllm_wants_is_short() {
        let first = Devices::First(1);
        assert_eq!(lacking(&[gpu(0, 79, 1)], &first, 0.9), None);
        assert_eq!(lacking(&[gpu(0, 20, 60)], &first, 0.9), Some(0));
        assert_eq!(lacking(&[gpu(0, 20, 60)], &first, 0.2), None);
        let snapshot = GpuSnapshot { gpus: vec![gpu(0, 20, 60)] };
        let short = shortage(&snapshot, &first, 0.9).unwrap();
        assert_eq!((short.wanted_bytes, short.free_bytes), (72 * GIB, 20 * GIB));
        assert!((short.fitting_share - 0.25).abs() < 1e-9);
    }

    #[test]
    fn what_is_at_the_border_is_left_to_vllm() {
        let first = Devices::First(1);
        assert_eq!(lacking(&[gpu(0, 71, 9)], &first, 0.9), None);
        assert_eq!(lacking(&[gpu(0, 70, 10)], &first, 0.9), Some(0));
    }

    #[test]
    fn only_what_vllm_takes_counts() {
        let gpus = [gpu(0, 1, 79), gpu(1, 79, 1)];
        assert_eq!(lacking(&gpus, &Devices::new(Some("1"), 1), 0.9), None);
        assert_eq!(lacking(&gpus, &Devices::First(2), 0.9), Some(0));
        assert_eq!(lacking(&gpus, &Devices::First(3), 0.9), None, "vLLM has its own word for that");
        assert_eq!(lacking(&gpus, &Devices::Unknown, 0.9), None);
    }

    #[test]
    fn what_is_not_known_is_no_shortage() {
        let first = Devices::First(1);
        let mut divided = gpu(0, 1, 79);
        divided.condition.is_partitioned = Some(true);
        assert_eq!(lacking(&[divided], &first, 0.9), None);
        assert_eq!(lacking(&[Gpu::new(0, "GPU-0", "GB10")], &first, 0.9), None);
    }
}
