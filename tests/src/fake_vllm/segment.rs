//! The shared memory through which engine and workers would pass tensors: here it is only held.

use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions};
use std::hash::BuildHasher as _;
use std::io::{self, Write as _};
use std::os::fd::RawFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Small, where the real ones are 160 to 250 MB; sparse like them.
const SIZE: u32 = 64 * 1024;

/// A segment that this process made. It is removed when the process ends in order, and left to the
/// resource tracker when it does not.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    tracker: File,
}

impl Segment {
    /// Makes `/dev/shm/psm_` and eight hexadecimal digits, as Python's `SharedMemory` does, maps
    /// it, and tells the resource tracker.
    pub(super) fn create(tracker_pipe: RawFd) -> io::Result<Self> {
        // The descriptor is inherited, and open until this process ends. For writing alone it could
        // not be opened where the tracker has died (fifo(7)).
        let tracker = format!("/proc/self/fd/{tracker_pipe}");
        let tracker = OpenOptions::new().read(true).write(true).open(tracker)?;
        let path = loop {
            let number = RandomState::new().hash_one(std::process::id()) & 0xffff_ffff;
            let path = PathBuf::from(format!("/dev/shm/psm_{number:08x}"));
            let mut options = OpenOptions::new();
            match options.read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    file.set_len(SIZE.into())?;
                    break path;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        attach(&path)?;
        let segment = Self { path, tracker };
        segment.tell_tracker("REGISTER");
        Ok(segment)
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn tell_tracker(&self, command: &str) {
        let line = format!("{command}:{}\n", self.path.display());
        (&self.tracker).write_all(line.as_bytes()).ok();
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
        self.tell_tracker("UNREGISTER");
    }
}

/// Maps somebody's segment until this process ends, so that `/proc/PID/maps` shows it.
pub(super) fn attach(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    #[expect(unsafe_code, reason = "there is no safe way to map a file, and a map is the point")]
    // SAFETY: the kernel chooses a free address, and nobody ever uses the memory.
    let mapped = unsafe { mmap(std::ptr::null_mut(), SIZE as usize, protection, flags, &file, 0) };
    mapped.map(drop).map_err(io::Error::from)
}
