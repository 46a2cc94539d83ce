//! Who else has a segment: then it stays.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::super::older::{FileId, SharedFile};
use crate::adapters::proc_fs;
use crate::domain::absence::ScanError;

/// Files by what they are, each with its name.
pub(super) type Files = BTreeMap<FileId, (String, SharedFile)>;

pub(super) fn spare_what_others_use(there: &mut Files) -> Result<(), ScanError> {
    if there.is_empty() {
        return Ok(());
    }
    if !proc_fs::shows_everybody() {
        spare_what_is_open_to_others(there);
    }
    for pid in proc_fs::pids()? {
        match used_by(pid, there) {
            Ok(used) => used.into_iter().for_each(|id| {
                there.remove(&id);
            }),
            Err(error) if proc_fs::is_refusal(&error) => spare_what_is_open_to_others(there),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A process of somebody else can only have what is open to others.
pub(super) fn spare_what_is_open_to_others(there: &mut Files) {
    there.retain(|_, (name, file)| {
        let stays = file.is_open_to_others();
        if stays {
            tracing::info!(
                name,
                "shared memory may be in use by others, who cannot be seen: it stays"
            );
        }
        !stays
    });
}

/// Which of these a process has mapped or open. It may see them elsewhere than in `/dev/shm`.
fn used_by(pid: u32, there: &Files) -> Result<Vec<FileId>, ScanError> {
    let maps = proc_fs::maps(pid)?.unwrap_or_default();
    let is_name_of_one = |path: &str| {
        let name = path.rsplit('/').next();
        there.values().any(|(one, _)| Some(one.as_str()) == name)
    };
    let open = proc_fs::open_files(pid, is_name_of_one)?.unwrap_or_default();
    let used = maps.lines().filter_map(mapped_file);
    let used = used.chain(open.iter().map(|file| id_of(&file.metadata)));
    Ok(used.filter(|id| there.contains_key(id)).collect())
}

/// The file that a line of `/proc/<pid>/maps` speaks of (proc(5)).
pub(super) fn mapped_file(line: &str) -> Option<FileId> {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (major, minor) = fields.next()?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let device = (number(major)?, number(minor)?);
    Some(FileId { device, inode: fields.next()?.parse().ok()? })
}

pub(super) fn id_of(metadata: &fs::Metadata) -> FileId {
    let device = metadata.dev();
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    FileId { device, inode: metadata.ino() }
}
