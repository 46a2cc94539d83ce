//! AMD's GPUs, by what the kernel shows of them in sysfs: no library is needed.
//!
//! The kernel's documentation describes the files (gpu/amdgpu/driver-misc, gpu/amdgpu/thermal and
//! gpu/amdgpu/ras). A kernel or a product may lack any of them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tracing::debug;

use self::kfd::{Kfd, Topology};
use self::pci_address::PciAddress;
use super::Ours;
use crate::domain::gpu::{Gpu, GpuCondition, GpuSnapshot, Reachability};

mod kfd;
mod pci_address;
mod sysfs;

/// AMD's number among the vendors of PCI devices (the kernel's `include/linux/pci_ids.h`).
const VENDOR: u64 = 0x1002;

/// A sysfs that shows GPUs of AMD.
pub(super) struct Amd {
    drm: PathBuf,
    kfd: Kfd,
    ours: Ours,
    /// Every GPU that was ever there: one that is gone keeps its name and its index. The order is
    /// that of amd-smi and rocm-smi. HIP counts in that of KFD's nodes, which may be another
    /// (`ROCm/rocm_smi_lib`, issue 122): only PCI addresses compare.
    known: BTreeMap<PciAddress, Identity>,
}

/// Who a GPU is, as far as it has said.
#[derive(Default)]
struct Identity {
    unique_id: Option<String>,
    name: Option<String>,
    access: Access,
}

/// Whether a GPU was ours to look at when it was last there.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Access {
    /// It was not looked at yet.
    #[default]
    Unknown,
    Granted,
    /// The machine's, but not for this container, whose sysfs shows it all the same.
    Denied,
    /// It was granted before; who has it open may use it still.
    Revoked,
}

impl Amd {
    /// Finds the GPUs below this root: `/`, outside of tests. `ours` is asked for every process.
    ///
    /// # Errors
    ///
    /// In words for an operator: that there is none, or why that cannot be told.
    pub(super) fn open(root: &Path, ours: Ours) -> Result<Self, String> {
        let drm = root.join("sys/class/drm");
        let cards = Cards::find(&drm);
        if cards.devices.is_empty() {
            let none = || format!("no AMD GPU in {}", drm.display());
            return Err(cards.unread.unwrap_or_else(none));
        }
        let kfd = Kfd::new(root.join("sys/class/kfd/kfd"));
        Ok(Self { drm, kfd, ours, known: BTreeMap::new() })
    }

    pub(super) fn look(&mut self) -> GpuSnapshot {
        let cards = Cards::find(&self.drm);
        if let Some(reason) = &cards.unread {
            debug!(reason, "not every GPU can be looked at");
        }
        let topology = self.kfd.topology(&cards.devices);
        let mut gpus = self.look_at_all(&cards, &topology);
        if let [_, _, ..] = &gpus[..] {
            for gpu in &mut gpus {
                gpu.ordinal = None;
            }
        }
        GpuSnapshot { gpus }
    }

    fn look_at_all(&mut self, cards: &Cards, topology: &Topology) -> Vec<Gpu> {
        for (address, device) in &cards.devices {
            let identity = self.known.entry(*address).or_default();
            identity.learn(device);
            identity.access = match identity.access {
                _ if !topology.denies(*address) => Access::Granted,
                Access::Unknown | Access::Denied => Access::Denied,
                Access::Granted | Access::Revoked => Access::Revoked,
            };
        }
        let mut processes = self.kfd.processes(topology, &*self.ours);
        let mut gpus = Vec::new();
        for (index, (address, identity)) in (0..).zip(&self.known) {
            let mut gpu = identity.gpu(index, *address);
            match identity.access {
                Access::Unknown | Access::Granted => {}
                Access::Denied => continue,
                Access::Revoked => {
                    gpu.condition.reachability = Reachability::Unknown;
                    gpus.push(gpu);
                    continue;
                }
            }
            if let Some(device) = cards.devices.get(address) {
                gpu.processes = processes.remove(address).unwrap_or_default();
                gpu = look_at(device, gpu);
            } else {
                gpu.condition.reachability = cards.of_what_is_absent();
            }
            gpus.push(gpu);
        }
        gpus
    }
}

/// What is found in one look.
struct Cards {
    /// The GPUs' directories.
    devices: BTreeMap<PciAddress, PathBuf>,
    /// Why there may be more.
    unread: Option<String>,
}

impl Cards {
    fn find(drm: &Path) -> Self {
        let mut cards = Self { devices: BTreeMap::new(), unread: None };
        let names = sysfs::names(drm);
        for name in cards.or_unread(drm, names).unwrap_or_default() {
            // A connector is shown too, as card0-DP-1.
            let is_card = name.strip_prefix("card").is_some_and(|number| {
                !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
            });
            if is_card {
                let card = drm.join(name);
                let found = gpu_of(&card);
                let found = cards.or_unread(&card, found).flatten();
                cards.devices.extend(found);
            }
        }
        cards
    }

    /// What is not there is no trouble: it may have gone just now.
    fn or_unread<T>(&mut self, path: &Path, found: io::Result<T>) -> Option<T> {
        match found {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let reason = format!("{} cannot be read: {error}", path.display());
                self.unread.get_or_insert(reason);
                None
            }
        }
    }

    /// What it says of a GPU that it is not found.
    fn of_what_is_absent(&self) -> Reachability {
        if self.unread.is_some() { Reachability::Unknown } else { Reachability::Lost }
    }
}

/// The GPU of a card; `None` for one of another vendor or another driver.
fn gpu_of(card: &Path) -> io::Result<Option<(PciAddress, PathBuf)>> {
    let device = card.join("device");
    if sysfs::number(&device.join("vendor"))? != VENDOR
        || !device.join("mem_info_vram_total").try_exists()?
    {
        return Ok(None);
    }
    // A link to the device's own directory, which is called by its address.
    let device = fs::canonicalize(device)?;
    let address = device.file_name().and_then(|name| PciAddress::parse(name.to_str()?));
    Ok(address.map(|address| (address, device)))
}

impl Identity {
    /// Takes over what the GPU has not said before: amid a reset it says nothing.
    fn learn(&mut self, device: &Path) {
        let said = |file| sysfs::text(&device.join(file)).ok().filter(|text| !text.is_empty());
        self.unique_id = self.unique_id.take().or_else(|| said("unique_id"));
        // A board without a record of itself has no name but that in libdrm's table.
        let number = || said("device").map(|number| format!("AMD {number}"));
        self.name = self.name.take().or_else(|| said("product_name")).or_else(number);
    }

    fn gpu(&self, index: u32, address: PciAddress) -> Gpu {
        // As rocminfo writes it, and ROCR_VISIBLE_DEVICES takes it (ROCm's documentation, "GPU
        // isolation techniques").
        let uuid = self.unique_id.as_ref().map(|id| format!("GPU-{id}"));
        let uuid = uuid.unwrap_or_else(|| address.to_string());
        Gpu::new(index, uuid, self.name.as_deref().unwrap_or("AMD"))
    }
}

fn look_at(device: &Path, gpu: Gpu) -> Gpu {
    let total = sysfs::number(&device.join("mem_info_vram_total"));
    let used = sysfs::number(&device.join("mem_info_vram_used"));
    let busy = sysfs::number(&device.join("gpu_busy_percent"));
    let errors = [total.as_ref().err(), used.as_ref().err(), busy.as_ref().err()];
    let reachability = reachability(device, errors.into_iter().flatten());
    let (total, used) = (total.ok(), used.ok());
    Gpu {
        memory_used_bytes: used,
        memory_total_bytes: total,
        memory_free_bytes: total
            .zip(used)
            .filter(|(total, _)| !has_memory_of_its_host(device, *total))
            .map(|(total, used)| total.saturating_sub(used)),
        utilization_percent: busy.ok().and_then(|percent| u32::try_from(percent).ok()),
        temperature_celsius: sysfs::temperature(device),
        power_watts: sysfs::power(device),
        condition: GpuCondition {
            reachability,
            uncorrectable_errors: uncorrectable_errors(device),
            is_partitioned: is_partitioned(device),
            ..GpuCondition::default()
        },
        ..gpu
    }
}

/// One within a processor takes what it needs of the host's memory, besides a small part that is set
/// aside for it.
fn has_memory_of_its_host(device: &Path, total: u64) -> bool {
    let hosts = sysfs::number(&device.join("mem_info_gtt_total"));
    total <= MOST_SET_ASIDE && hosts.is_ok_and(|hosts| hosts > total)
}

/// What is set aside at most, where more is not all that there is; the smallest accelerator that vLLM
/// runs on has twice as much.
const MOST_SET_ASIDE: u64 = 8 << 30;

/// What the errors of a look say of whether a GPU answers.
fn reachability<'a>(device: &Path, errors: impl Iterator<Item = &'a io::Error>) -> Reachability {
    let mut found = Reachability::Answers;
    for error in errors {
        match trouble(error) {
            None => {}
            Some(Reachability::Lost) => return Reachability::Lost,
            Some(trouble) => {
                debug!(%error, device = %device.display(), "a GPU does not answer");
                found = trouble;
            }
        }
    }
    // Asked only now: reading it wakes a GPU that sleeps.
    if found != Reachability::Answers && has_left_the_bus(device) {
        return Reachability::Lost;
    }
    found
}

/// `None` for an error that tells of a reading and not of the GPU.
fn trouble(error: &io::Error) -> Option<Reachability> {
    match Errno::from_io_error(error) {
        // The kernel has no such device any more.
        Some(Errno::NODEV | Errno::NXIO) => Some(Reachability::Lost),
        // The product lacks it, or the kernel does (amdgpu_pm.c): not there, not supported, not
        // measured, or not while the GPU sleeps.
        Some(Errno::NOENT | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => None,
        _ => Some(Reachability::Unknown),
    }
}

/// Whether nothing is there where the driver still sees a GPU: then every bit that is read from its
/// configuration is set, and no vendor has that number (PCI Local Bus Specification 3.0, 6.1).
fn has_left_the_bus(device: &Path) -> bool {
    sysfs::bytes(&device.join("config"))
        .is_ok_and(|config| config.get(..2).is_some_and(|vendor| vendor == [0xff; 2]))
}

/// Errors that could not be corrected, in the blocks that hold memory: the memory controllers, the
/// shaders, the copy engines and the memory hub (the names are of the kernel's `amdgpu_ras.c`). All of
/// them, since a controller that poisons broken data counts it as deferred, and the block that
/// consumes it as uncorrected. Where one does not say, there is no sum.
fn uncorrectable_errors(device: &Path) -> Option<u64> {
    let mut sum = None;
    for block in ["umc", "gfx", "sdma", "mmhub"] {
        match sysfs::text(&device.join(format!("ras/{block}_err_count"))) {
            Ok(text) => *sum.get_or_insert(0) += uncorrected(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    sum
}

/// The `ue` among lines such as `ue: 0` and `ce: 1`; amid a reset there is one of words instead.
fn uncorrected(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("ue:")?.trim().parse().ok())
}

/// Whether it serves as several (the kernel's `amdgpu_gfx.c`): SPX is a single partition.
fn is_partitioned(device: &Path) -> Option<bool> {
    match sysfs::text(&device.join("current_compute_partition")).ok()?.as_str() {
        "SPX" => Some(false),
        "DPX" | "TPX" | "QPX" | "CPX" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
