//! The kernel's driver for computing on AMD's GPUs (KFD), which knows who has memory on them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tracing::debug;

use super::pci_address::PciAddress;
use super::sysfs;
use crate::domain::gpu::GpuProcess;

/// What KFD shows of itself.
pub(super) struct Kfd {
    directory: PathBuf,
}

/// Which GPU a number of KFD's means.
pub(super) struct Topology {
    /// A GPU that is divided has a number for each of its parts.
    pub(super) gpus: BTreeMap<u64, PciAddress>,
    /// Whether it has some that this process may not use.
    pub(super) denied: Denied,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    None,
    Some,
}

impl Kfd {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Reads which of these GPUs KFD knows by which number.
    pub(super) fn topology(&self, gpus: &BTreeMap<PciAddress, PathBuf>) -> Topology {
        let mut topology = Topology { gpus: BTreeMap::new(), denied: Denied::None };
        let nodes = self.directory.join("topology/nodes");
        let names = sysfs::names(&nodes).unwrap_or_else(|error| {
            debug!(%error, nodes = %nodes.display(), "the processes on AMD's GPUs are not known");
            Vec::new()
        });
        for name in names {
            match Node::read(&nodes.join(name)) {
                Ok(Some(node)) => {
                    if let Some(address) = node.address(gpus) {
                        topology.gpus.insert(node.gpu_id, address);
                    }
                }
                Ok(None) => {}
                // The cgroup that we are in does not allow the device (kfd_topology.c, `node_show`).
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    topology.denied = Denied::Some;
                }
                Err(error) => debug!(%error, "a node of KFD cannot be read"),
            }
        }
        topology
    }

    /// The processes with memory on each GPU, by pid.
    pub(super) fn processes(
        &self,
        topology: &Topology,
        ours: &dyn Fn(u32) -> bool,
    ) -> BTreeMap<PciAddress, Vec<GpuProcess>> {
        let directory = self.directory.join("proc");
        let names = sysfs::names(&directory).unwrap_or_default();
        let mut pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        pids.sort_unstable();
        let mut processes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for pid in pids {
            for (address, memory) in memory_of(&directory.join(pid.to_string()), topology) {
                // Whoever has opened KFD is shown with every GPU, mostly with none of its memory.
                if memory != Some(0) {
                    let process = GpuProcess { pid, memory_bytes: memory, ours: ours(pid) };
                    processes.entry(address).or_default().push(process);
                }
            }
        }
        processes
    }
}

impl Topology {
    /// Whether this GPU, which the kernel has, is not one that this process may use.
    pub(super) fn denies(&self, gpu: PciAddress) -> bool {
        self.denied == Denied::Some && !self.gpus.values().any(|known| *known == gpu)
    }
}

/// A GPU, or a part of one.
struct Node {
    gpu_id: u64,
    domain: u32,
    place: u16,
}

impl Node {
    /// `None` for a CPU.
    fn read(directory: &Path) -> io::Result<Option<Self>> {
        let gpu_id = sysfs::number(&directory.join("gpu_id"))?;
        let properties = sysfs::text(&directory.join("properties"))?;
        let property = |name: &str| {
            let mut lines = properties.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(key, _)| *key == name)?.1.trim().parse::<u64>().ok()
        };
        if gpu_id == 0 {
            return Ok(None);
        }
        let place = property("location_id").map(|id| id & u64::from(u16::MAX));
        let place = place.and_then(|place| u16::try_from(place).ok());
        let domain = property("domain").and_then(|domain| u32::try_from(domain).ok());
        Ok(place.map(|place| Self { gpu_id, domain: domain.unwrap_or_default(), place }))
    }

    /// The GPU it is, or is a part of: some kernels put the number of the part where the function is
    /// (`kfd_topology.c`, `kfd_topology_add_device`), others above what is an address.
    fn address(&self, gpus: &BTreeMap<PciAddress, PathBuf>) -> Option<PciAddress> {
        let exact = PciAddress::new(self.domain, self.place);
        [exact, exact.first_function()].into_iter().find(|address| gpus.contains_key(address))
    }
}

/// What a process holds, by GPU, from its `vram_<number of the GPU>` in bytes (`kfd_process.c`); `None`
/// where that cannot be read.
fn memory_of(process: &Path, topology: &Topology) -> BTreeMap<PciAddress, Option<u64>> {
    let mut memory = BTreeMap::new();
    // Empty for a process that has just ended.
    for name in sysfs::names(process).unwrap_or_default() {
        let number = name.strip_prefix("vram_").and_then(|number| number.parse().ok());
        let Some(address) = number.and_then(|number: u64| topology.gpus.get(&number)) else {
            continue;
        };
        let part = match sysfs::number(&process.join(&name)) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => None,
        };
        let all = memory.entry(*address).or_insert(Some(0));
        *all = all.zip(part).map(|(all, part): (u64, u64)| all.saturating_add(part));
    }
    memory
}
