//! The shared memory of a launch.
//!
//! A process that is killed leaves its segments in `/dev/shm`, and they hold memory until somebody
//! removes them. Whose they are can only be seen while somebody has them mapped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::adapters::proc_fs;
use crate::domain::absence::{Leftover, ScanError};

/// What those may who are not the owner.
const OTHERS: u32 = 0o077;

const PLACE: &str = "/dev/shm";

/// A file, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileId {
    device: (u32, u32),
    inode: u64,
}

impl FileId {
    fn of(metadata: &fs::Metadata) -> Self {
        let device = metadata.dev();
        Self {
            device: (rustix::fs::major(device), rustix::fs::minor(device)),
            inode: metadata.ino(),
        }
    }
}

/// The segments that members of one launch were seen to have mapped.
#[derive(Debug, Default)]
pub(in crate::adapters) struct Segments {
    /// Those that were there before the launch are not of it.
    older: BTreeSet<FileId>,
    seen: BTreeMap<FileId, String>,
}

impl Segments {
    /// None yet; what is there now is not of the launch.
    pub(in crate::adapters) fn before_launch() -> Result<Self, ScanError> {
        let failed = |error: io::Error| ScanError::new(PLACE, &error);
        let entries = match fs::read_dir(PLACE) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut older = BTreeSet::new();
        for entry in entries {
            match entry.map_err(failed)?.metadata() {
                Ok(metadata) => {
                    older.insert(FileId::of(&metadata));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(Self { older, seen: BTreeMap::new() })
    }

    /// Remembers what this member has mapped.
    pub(super) fn remember(&mut self, pid: u32) -> Result<(), ScanError> {
        let maps = proc_fs::maps(pid)?.unwrap_or_default();
        let mapped = maps.lines().filter_map(mapped);
        self.seen.extend(mapped.filter(|(id, _)| !self.older.contains(id)));
        Ok(())
    }

    /// Removes those that nobody has mapped any more, and tells what could not be removed. For when
    /// no member lives.
    pub(in crate::adapters) fn remove(&mut self) -> Result<Vec<Leftover>, ScanError> {
        let mut there = BTreeMap::new();
        for (id, path) in &self.seen {
            if let Some(metadata) = present(path)?
                && FileId::of(&metadata) == *id
                && metadata.uid() == rustix::process::geteuid().as_raw()
            {
                there.insert(*id, (path.clone(), metadata.mode()));
            }
        }
        if !there.is_empty() {
            spare_what_others_map(&mut there)?;
        }
        let mut left = Vec::new();
        for (path, _) in there.into_values() {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, path, "shared memory stays behind");
                    left.push(Leftover::Segment { name: path });
                }
            }
        }
        Ok(left)
    }
}

fn spare_what_others_map(there: &mut BTreeMap<FileId, (String, u32)>) -> Result<(), ScanError> {
    for pid in proc_fs::pids()? {
        match proc_fs::maps(pid) {
            Ok(maps) => {
                for (id, _) in maps.unwrap_or_default().lines().filter_map(mapped) {
                    there.remove(&id);
                }
            }
            // A process of somebody else can only have what is open to others.
            Err(error) if proc_fs::is_refusal(&error) => {
                there.retain(|_, (_, mode)| *mode & OTHERS == 0);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn present(path: &str) -> Result<Option<fs::Metadata>, ScanError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ScanError::new(path, &error)),
    }
}

/// The segment that a line of `/proc/<pid>/maps` speaks of (proc(5)), if it still has its name.
fn mapped(line: &str) -> Option<(FileId, String)> {
    let path = &line[line.find(&format!("{PLACE}/"))?..];
    if path.ends_with(" (deleted)") {
        return None;
    }
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (major, minor) = fields.next()?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let id =
        FileId { device: (number(major)?, number(minor)?), inode: fields.next()?.parse().ok()? };
    Some((id, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_read_from_a_map() {
        let line = "7f1c-7f2c rw-s 00000000 00:1b 4242                   /dev/shm/psm_1";
        let id = FileId { device: (0, 0x1b), inode: 4242 };
        assert_eq!(mapped(line), Some((id, "/dev/shm/psm_1".to_owned())));
        assert_eq!(mapped(&format!("{line} (deleted)")), None);
        assert_eq!(mapped("7f1c-7f2c r-xp 00000000 fe:00 11 /usr/lib/libc.so.6"), None);
    }
}
