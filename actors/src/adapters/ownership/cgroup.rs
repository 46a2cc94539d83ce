//! A cgroup of version 2 for one launch (Linux, `Documentation/admin-guide/cgroup-v2.rst`).
//!
//! It lies below our own group, wherever the hierarchy is mounted, also as the `unified` one beside
//! version 1. That may not be allowed, or there may be none: then a launch goes without.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use tokio::time::Instant;

use crate::adapters::pause::pause;
use crate::adapters::system_error::if_present;
use crate::domain::absence::ScanError;

/// How long everybody may take to come to a halt; who waits for a device does not.
const FREEZE_BUDGET: Duration = Duration::from_millis(100);

/// How old an empty group must be to be taken for forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

const NAME: &str = "vllmd-";

/// The group of one launch.
#[derive(Debug)]
pub(in crate::adapters) struct Cgroup {
    path: PathBuf,
    /// Set when the main process was seen not to be in it.
    is_forsaken: AtomicBool,
}

impl Cgroup {
    /// Makes one, if that is possible here.
    pub(in crate::adapters) fn create(marker: &str) -> Option<Self> {
        let above = match place_of("self") {
            Ok(above) => above?,
            Err(error) => {
                tracing::debug!(%error, "a launch goes without a cgroup");
                return None;
            }
        };
        remove_forgotten(&above);
        let path = above.join(format!("{NAME}{marker}"));
        match fs::create_dir(&path) {
            Ok(()) => Some(Self::at(path)),
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "a launch goes without a cgroup");
                None
            }
        }
    }

    fn at(path: PathBuf) -> Self {
        Self { path, is_forsaken: AtomicBool::new(false) }
    }

    /// The group that was made for this launch, if this process of it is in one.
    ///
    /// # Errors
    ///
    /// What could not be looked at: there may be one.
    pub(in crate::adapters) fn of_member(
        pid: u32,
        marker: &str,
    ) -> Result<Option<Self>, ScanError> {
        let path = place_of(&pid.to_string())?;
        Ok(path.filter(|path| path.ends_with(format!("{NAME}{marker}"))).map(Self::at))
    }

    /// The group of this launch, if it is where we would make one.
    ///
    /// # Errors
    ///
    /// What could not be looked at: there may be one.
    pub(in crate::adapters) fn find(marker: &str) -> Result<Option<Self>, ScanError> {
        let Some(above) = place_of("self")? else { return Ok(None) };
        let path = above.join(format!("{NAME}{marker}"));
        Ok(in_group(fs::metadata(&path), &path)?.map(|_| Self::at(path)))
    }

    /// Whether this process is in it, or in a group below.
    pub(in crate::adapters) fn has(&self, pid: u32) -> Result<bool, ScanError> {
        Ok(place_of(&pid.to_string())?.is_some_and(|place| place.starts_with(&self.path)))
    }

    /// It owns nobody from now on: the main process was refused.
    pub(in crate::adapters) fn forsake(&self) {
        self.is_forsaken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_forsaken(&self) -> bool {
        self.is_forsaken.load(Ordering::Relaxed)
    }

    pub(in crate::adapters) fn directory(&self) -> &Path {
        &self.path
    }

    pub(in crate::adapters) fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// Where a process writes `0` to become a member.
    pub(in crate::adapters) fn entrance(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))
    }

    /// The numbers of its members, those in groups that they made included.
    pub(super) fn pids(&self) -> Result<Vec<u32>, ScanError> {
        let mut pids = Vec::new();
        let mut groups = vec![self.path.clone()];
        while let Some(group) = groups.pop() {
            let list = group.join("cgroup.procs");
            let text = in_group(fs::read_to_string(&list), &list)?.unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            let Some(entries) = in_group(fs::read_dir(&group), &group)? else { continue };
            for entry in entries {
                let entry = entry.map_err(|error| ScanError::new(path_of(&group), &error))?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    groups.push(entry.path());
                }
            }
        }
        // 0 is somebody outside our pid namespace.
        pids.retain(|pid| *pid != 0);
        Ok(pids)
    }

    /// Whether anybody lives in it.
    pub(super) fn is_populated(&self) -> Result<bool, ScanError> {
        Ok(self.event("populated")?.unwrap_or(false))
    }

    /// Whether somebody has brought everybody in it to a halt.
    pub(in crate::adapters) fn is_frozen(&self) -> Result<bool, ScanError> {
        Ok(self.event("frozen")?.unwrap_or(false))
    }

    /// `None` if there is no such group any more, which nobody can live in then.
    fn event(&self, name: &str) -> Result<Option<bool>, ScanError> {
        let path = self.path.join("cgroup.events");
        let Some(text) = in_group(fs::read_to_string(&path), &path)? else { return Ok(None) };
        let mut values = text.lines().filter_map(|line| line.split_once(' '));
        Ok(values.find(|(key, _)| *key == name).map(|(_, value)| value != "0"))
    }

    /// Brings everybody to a halt, from Linux 5.2 on.
    pub(super) fn freeze(&self) {
        if !self.write("cgroup.freeze", "1") {
            return;
        }
        let began = Instant::now();
        while began.elapsed() < FREEZE_BUDGET && self.event("frozen") == Ok(Some(false)) {
            pause(Duration::from_millis(1));
        }
    }

    pub(super) fn thaw(&self) {
        self.write("cgroup.freeze", "0");
    }

    /// Kills everybody at once, from Linux 5.14 on.
    pub(super) fn kill(&self) {
        self.write("cgroup.kill", "1");
    }

    fn write(&self, file: &str, text: &str) -> bool {
        // Older kernels have no such file, and a group that is gone has none either.
        let file = OpenOptions::new().write(true).open(self.path.join(file));
        file.and_then(|mut file| file.write_all(text.as_bytes())).is_ok()
    }

    /// Removes it, once nobody lives in it.
    pub(in crate::adapters) fn remove(&self) {
        remove_tree(&self.path);
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel keeps it if anybody lives in it.
        fs::remove_dir(&self.path).ok();
    }
}

fn remove_tree(path: &Path) {
    let groups = fs::read_dir(path).into_iter().flatten().flatten();
    for group in groups.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&group.path());
    }
    match fs::remove_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::debug!(%error, path = %path.display(), "a cgroup stays behind"),
    }
}

/// The kernel removes no group that has members; others come from supervisors that were killed.
fn remove_forgotten(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(NAME);
        let age =
            entry.metadata().and_then(|it| it.modified()).ok().and_then(|it| it.elapsed().ok());
        if is_ours && age.is_some_and(|age| age >= FORGOTTEN_AFTER) {
            fs::remove_dir(entry.path()).ok();
        }
    }
}

/// Where the group of a process is mounted. `None` if there is none, or no such process.
fn place_of(process: &str) -> Result<Option<PathBuf>, ScanError> {
    const MOUNTS: &str = "/proc/self/mountinfo";
    let list = PathBuf::from(format!("/proc/{process}/cgroup"));
    let Some(cgroups) = in_group(fs::read_to_string(&list), &list)? else { return Ok(None) };
    let mounts = fs::read_to_string(MOUNTS).map_err(|error| ScanError::new(MOUNTS, &error))?;
    Ok(mounted(&cgroups, &mounts))
}

fn mounted(cgroups: &str, mounts: &str) -> Option<PathBuf> {
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = Path::new(own).strip_prefix(root).ok()?;
        kind.starts_with("cgroup2 ").then(|| Path::new(point).join(below))
    })
}

/// `None` where there is no such group, or no such process any more.
fn in_group<T>(result: io::Result<T>, path: &Path) -> Result<Option<T>, ScanError> {
    // A group that was removed while it is read says the second, a process the third.
    if_present(result, &[Errno::NOENT, Errno::NODEV, Errno::SRCH])
        .map_err(|error| ScanError::new(path_of(path), &error))
}

fn path_of(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_group_is_found_below_whatever_is_mounted() {
        let mounts = "28 26 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      29 26 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = mounted("4:memory:/x\n0::/a/b\n", mounts);
        assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/unified/a/b")));
        assert_eq!(mounted("4:memory:/x\n", mounts), None);
    }

    #[test]
    fn that_a_group_cannot_be_looked_at_is_not_that_there_is_none() {
        // No number of a process, but a directory below `/proc` all the same.
        assert!(place_of("self/cgroup").is_err());
        assert_eq!(place_of("5000000"), Ok(None));
        // Longer than a name may be.
        let path = Path::new("/").join("x".repeat(300));
        assert!(in_group(fs::metadata(&path), &path).is_err());
    }

    #[test]
    fn a_mount_of_a_part_shows_what_lies_in_it() {
        let mounts = "29 26 0:26 /a /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw\n";
        assert_eq!(mounted("0::/a/b\n", mounts), Some(PathBuf::from("/sys/fs/cgroup/b")));
        assert_eq!(mounted("0::/c\n", mounts), None);
    }
}
