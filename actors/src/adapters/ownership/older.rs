//! The files among shared memory, and which of them were there before a launch: the weights of a
//! model, what somebody else has put there. They are not of the launch, whoever of it uses them.
//!
//! The guardian asks here too: what it asks allocates nothing, takes no lock, and cannot panic.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, StatxFlags, StatxTimestamp, statx};
use rustix::io::Errno;
use rustix::path::Arg;
use rustix::time::{ClockId, clock_gettime};

use crate::adapters::proc_fs;

/// What those may who are not the owner.
const OTHERS: u16 = 0o077;

/// A file, whatever it is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::adapters) struct FileId {
    pub(in crate::adapters) device: (u32, u32),
    pub(in crate::adapters) inode: u64,
}

/// A time of the system's clock, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::adapters) struct Timestamp(i128);

const SECOND: i128 = 1_000_000_000;

impl Timestamp {
    fn now() -> Self {
        Self(nanoseconds(ClockId::Realtime))
    }

    /// When a process began that says this of its start, in ticks since boot; up to a tick late.
    pub(in crate::adapters) fn of_start(ticks: u64) -> Self {
        let per_second = i128::from(rustix::param::clock_ticks_per_second().max(1));
        let since_boot = (i128::from(ticks) + 1) * SECOND / per_second;
        Self(nanoseconds(ClockId::Realtime) - nanoseconds(ClockId::Boottime) + since_boot)
    }
}

fn nanoseconds(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * SECOND + i128::from(time.tv_nsec)
}

impl From<StatxTimestamp> for Timestamp {
    fn from(time: StatxTimestamp) -> Self {
        let seconds = i128::from(time.tv_sec).saturating_mul(SECOND);
        Self(seconds.saturating_add(i128::from(time.tv_nsec)))
    }
}

/// A file among shared memory, as it is now.
#[derive(Clone, Copy, Debug)]
pub(in crate::adapters) struct SharedFile {
    pub(in crate::adapters) id: FileId,
    /// Unknown on a Linux before 5.18.
    born: Option<Timestamp>,
    owner: u32,
    mode: u16,
    links: u32,
}

impl SharedFile {
    /// The one of this name.
    pub(in crate::adapters) fn at(directory: impl AsFd, name: impl Arg) -> Result<Self, Errno> {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let found = statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, mask)?;
        let born = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Self {
            id: FileId { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino },
            born: born.then(|| found.stx_btime.into()),
            owner: found.stx_uid,
            mode: found.stx_mode,
            links: found.stx_nlink,
        })
    }

    /// Whether it can be a segment of ours: a file of our user, with no other name, which may lie
    /// among the weights of a model.
    pub(in crate::adapters) fn can_be_ours(&self) -> bool {
        FileType::from_raw_mode(self.mode.into()) == FileType::RegularFile
            && self.owner == rustix::process::geteuid().as_raw()
            && self.links == 1
    }

    /// Whether somebody else may use it, too.
    pub(in crate::adapters) fn is_open_to_others(&self) -> bool {
        self.mode & OTHERS != 0
    }
}

/// What was there before a launch.
#[derive(Clone, Debug, Default)]
pub(in crate::adapters) enum Older {
    /// What was seen to be there right before it.
    Listed(Listing),
    /// What is older than its main process.
    BornBefore(Timestamp),
    /// Nobody knows when it began: what is older than those who use it.
    #[default]
    Unknown,
}

impl Older {
    /// Whether a file was there before, or may have been: then it is not of the launch. `holder` is
    /// when somebody of the launch began who had it. A file whose birth the system does not tell is
    /// young only if it was not seen before; when it was changed says nothing.
    pub(in crate::adapters) fn includes(
        &self,
        name: &[u8],
        file: &SharedFile,
        holder: Option<Timestamp>,
    ) -> bool {
        match self {
            Self::Listed(listing) => {
                listing.includes(name, file.id)
                    // It may have been moved here from a directory.
                    || file.born.is_some_and(|born| born < listing.taken)
            }
            Self::BornBefore(start) => file.born.is_none_or(|born| born <= *start),
            Self::Unknown => {
                let times = file.born.zip(holder);
                times.is_none_or(|(born, holder)| born <= holder)
            }
        }
    }

    /// Whether it was seen before the launch.
    pub(in crate::adapters) fn lists(&self, name: &str, id: FileId) -> bool {
        match self {
            Self::Listed(listing) => listing.includes(name.as_bytes(), id),
            Self::BornBefore(_) | Self::Unknown => false,
        }
    }

    /// When this member began, if that matters.
    pub(in crate::adapters) fn start_of(&self, pid: u32) -> Option<Timestamp> {
        match self {
            Self::Listed(_) | Self::BornBefore(_) => None,
            Self::Unknown => {
                let stat = proc_fs::Stat::of(pid).ok().flatten()?;
                Some(Timestamp::of_start(stat.start_time))
            }
        }
    }
}

/// A name, and what is there if that can be seen.
pub(super) type Entry = (String, Result<FileId, Errno>);

/// All files among shared memory at a moment.
#[derive(Clone, Debug)]
pub(in crate::adapters) struct Listing {
    /// Sorted.
    files: Vec<FileId>,
    /// The names of those that could not be looked at.
    unseen: Vec<String>,
    taken: Timestamp,
}

impl Listing {
    /// Of everything that is there. One that cannot be looked at is known by its name.
    pub(super) fn of(entries: impl Iterator<Item = Entry>) -> Self {
        // The clock of a file system is a few milliseconds late (fs/inode.c, `current_time`).
        let taken = Timestamp(Timestamp::now().0 - SECOND);
        let (mut files, mut unseen) = (Vec::new(), Vec::new());
        for (name, entry) in entries {
            match entry {
                Ok(id) => files.push(id),
                Err(Errno::NOENT) => {}
                Err(error) => {
                    tracing::debug!(name, %error, "a file among shared memory is known by name");
                    unseen.push(name);
                }
            }
        }
        files.sort_unstable();
        Self { files, unseen, taken }
    }

    /// As if it had been taken much later.
    #[cfg(test)]
    pub(super) fn taken_later(mut self) -> Self {
        self.taken.0 += 3600 * SECOND;
        self
    }

    fn includes(&self, name: &[u8], id: FileId) -> bool {
        self.files.binary_search(&id).is_ok()
            || self.unseen.iter().any(|unseen| unseen.as_bytes() == name)
    }
}
