//! The shared memory that members of the launch have mapped, and its end.
//!
//! Everything here runs in a copy of a process with threads: no allocation, no lock, no panic.

use std::mem::MaybeUninit;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, openat, unlinkat};
use rustix::io::Errno;

use super::super::ownership::{FileId, SharedFile};
use super::files::{Glance, each_open_file, each_segment, each_used_file};
use super::looking::each_process;
use super::{Orders, device_of, written};

/// Who of the living may have some of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// All of them were looked at.
    Everybody,
    /// Some may not be looked at by us: they can only have what is open to others.
    OwnOnly,
}

/// What was found with members stands in the orders.
pub(super) struct SharedMemory {
    used: usize,
}

impl SharedMemory {
    /// What the supervisor has named.
    pub(super) fn noted(orders: &mut Orders) -> Self {
        let mut room = std::mem::take(&mut orders.segments);
        let named = written(&orders.notes().segments).filter(|(inode, _)| *inode != 0);
        let mut used = 0_usize;
        // The slots are as many as the room is large.
        for ((inode, device), place) in named.zip(room.iter_mut()) {
            *place = FileId { device: device_of(device), inode };
            used = used.saturating_add(1);
        }
        orders.segments = room;
        Self { used }
    }

    /// Remembers what this member has mapped or open.
    pub(super) fn remember(&mut self, orders: &mut Orders, pid: u32) {
        let (buffer, found) = (&mut orders.buffer, &mut orders.segments);
        let mut keep = |id| {
            let is_known = found.iter().take(self.used).any(|one| *one == id);
            // One that does not fit is left.
            if !is_known && let Some(place) = found.get_mut(self.used) {
                *place = id;
                self.used = self.used.saturating_add(1);
            }
        };
        // It is asked again at the next look, or has ended by then.
        each_segment(pid, buffer, &mut keep).ok();
        each_open_file(pid, &mut keep).ok();
    }

    /// Unlinks those that are ours, were not there before the launch, and that nobody alive has: it
    /// may have been passed on. If not all of the living can be looked at, all of it stays.
    pub(super) fn unlink(&self, orders: &mut Orders) {
        if self.used == 0 {
            return;
        }
        let Ok(seen) = self.forget_those_in_use(orders) else { return };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(directory) = openat(CWD, c"/dev/shm", flags, Mode::empty()) else { return };
        let found = orders.segments.get(..self.used).unwrap_or_default();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&directory, &mut buffer);
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name();
            let Ok(file) = SharedFile::at(&directory, name) else { continue };
            let may_be_used = seen == Seen::OwnOnly && file.is_open_to_others();
            if found.contains(&file.id)
                && file.can_be_ours()
                && !may_be_used
                && !orders.older.includes(name.to_bytes(), &file, None)
            {
                unlinkat(&directory, name, AtFlags::empty()).ok();
            }
        }
    }

    fn forget_those_in_use(&self, orders: &mut Orders) -> Result<Seen, Errno> {
        let (buffer, found) = (&mut orders.buffer, &mut orders.segments);
        let found = found.get_mut(..self.used).unwrap_or_default();
        let mut seen = if orders.shows_everybody { Seen::Everybody } else { Seen::OwnOnly };
        let mut failure = None;
        each_process(|pid| {
            let mut forget = |id: FileId| {
                if let Some(used) = found.iter_mut().find(|one| **one == id) {
                    *used = FileId::default();
                }
            };
            let mapped = each_used_file(pid, buffer, &mut forget);
            for looked in [mapped, each_open_file(pid, &mut forget)] {
                match looked {
                    Ok(Glance::Seen | Glance::Gone) => {}
                    Ok(Glance::Refused) => seen = Seen::OwnOnly,
                    Err(error) => failure = Some(error),
                }
            }
        })?;
        failure.map_or(Ok(seen), Err)
    }
}
