//! What is read of trees like those that the kernel shows.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;

mod asking;
mod losing;

/// A root directory with a sysfs.
struct Machine {
    root: TempDir,
}

/// Where one GPU's files are.
struct Card {
    device: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(machine.path("sys/class/drm")).unwrap();
        machine
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// A GPU that has told of memory and of nothing else.
    fn card(&self, number: u32, address: &str) -> Card {
        let card = self.device(number, address);
        card.says("vendor", "0x1002\n");
        card.says("device", "0x74a1\n");
        card.says("mem_info_vram_total", "1000\n");
        card.says("mem_info_vram_used", "300\n");
        card
    }

    /// A card of nobody knows whom.
    fn device(&self, number: u32, address: &str) -> Card {
        let device = self.path(&format!("sys/devices/pci0000:00/{address}"));
        fs::create_dir_all(&device).unwrap();
        let card = self.path(&format!("sys/class/drm/card{number}"));
        fs::create_dir_all(&card).unwrap();
        symlink(format!("../../../devices/pci0000:00/{address}"), card.join("device")).unwrap();
        Card { device }
    }

    /// What KFD says of a GPU.
    fn node(&self, number: u32, gpu_id: u32, properties: &str) {
        let node = format!("sys/class/kfd/kfd/topology/nodes/{number}");
        write(&self.path(&format!("{node}/gpu_id")), &format!("{gpu_id}\n"));
        write(&self.path(&format!("{node}/properties")), properties);
    }

    /// What KFD says of a process's memory.
    fn process(&self, pid: u32, gpu_id: u32, bytes: &str) {
        let file = format!("sys/class/kfd/kfd/proc/{pid}/vram_{gpu_id}");
        write(&self.path(&file), bytes);
    }

    fn open(&self) -> Result<Amd, String> {
        Amd::open(self.root.path(), Arc::new(|pid| pid == 30))
    }

    fn looker(&self) -> Amd {
        self.open().unwrap()
    }

    /// One look at all of it.
    fn look(&self) -> Vec<Gpu> {
        self.looker().look().gpus
    }

    /// One look at the one GPU there is.
    fn the_gpu(&self) -> Gpu {
        let mut gpus = self.look();
        assert_eq!(gpus.len(), 1, "{gpus:?}");
        gpus.remove(0)
    }
}

impl Card {
    fn says(&self, file: &str, text: &str) {
        write(&self.device.join(file), text);
    }

    /// A reading that fails with an error that says nothing of what is wrong (EISDIR), for root too.
    fn refuses(&self, file: &str) {
        let path = self.device.join(file);
        if path.is_file() {
            fs::remove_file(&path).unwrap();
        }
        fs::create_dir_all(path).unwrap();
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}
