//! The lock of a state directory: taken by a supervisor, and looked at by whoever only asks.
//!
//! It is a lock of flock(2), which nobody can ask about but by trying to take it; whoever tried
//! would be in the way of a supervisor that starts just then. `/proc/locks` lists it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, flock, fstat, openat, statat};
use rustix::io::Errno;
use tokio::time::{Duration, Instant};

use crate::adapters::pause::pause;
use crate::adapters::proc_fs;

const NAME: &str = "lock";

/// How long the lock of a supervisor that was killed may outlive it: whom it had just forked holds it
/// until it executes something.
const LET_GO_WITHIN: Duration = Duration::from_millis(500);

/// The pause between two attempts to take it.
const PAUSE: Duration = Duration::from_millis(5);

/// Who holds a state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// A supervisor.
    Process {
        /// Its pid.
        pid: u32,
    },
    /// Nobody can say, and why: it may be held.
    Unknown {
        /// What was not to be seen.
        why: String,
    },
}

/// Takes the lock of a directory; it is held until the descriptor is closed, however that comes.
pub(super) fn take(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    let lock = open(directory, OFlags::WRONLY | OFlags::CREATE)?;
    let began = Instant::now();
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if began.elapsed() < LET_GO_WITHIN => pause(PAUSE),
            locked => return locked.map(|()| lock),
        }
    }
}

/// Whether this is the lock that whoever comes to this directory would take.
pub(super) fn is_in(directory: impl AsFd, lock: &OwnedFd) -> Result<bool, Errno> {
    let ours = fstat(lock)?;
    match statat(directory, NAME, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Who holds the lock of a directory, without touching it.
pub(super) fn holder(directory: &OwnedFd) -> Result<Holder, Errno> {
    let lock = match open(directory, OFlags::RDONLY) {
        Ok(lock) => lock,
        // Nobody has used the directory yet.
        Err(Errno::NOENT) => return Ok(Holder::Nobody),
        Err(error) => return Err(error),
    };
    let unknown = |error: io::Error| Holder::Unknown { why: error.to_string() };
    Ok(look(&lock).unwrap_or_else(unknown))
}

fn open(directory: &OwnedFd, how: OFlags) -> Result<OwnedFd, Errno> {
    // A FIFO in its place would otherwise keep us waiting for ever.
    let flags = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let lock = openat(directory, NAME, flags, Mode::RUSR | Mode::WUSR)?;
    if FileType::from_raw_mode(fstat(&lock)?.st_mode) != FileType::RegularFile {
        return Err(Errno::NXIO);
    }
    Ok(lock)
}

fn look(lock: &OwnedFd) -> io::Result<Holder> {
    let file = file_in_locks(lock)?;
    let locks = fs::read_to_string("/proc/locks")?;
    if let Some(pid) = locks.lines().find_map(|line| holder_in(line, &file)) {
        return Ok(Holder::Process { pid });
    }
    // The list leaves out whoever is in no pid namespace of ours.
    if proc_fs::is_in_first_pid_namespace()? {
        return Ok(Holder::Nobody);
    }
    let why = "processes outside this container cannot be seen".to_owned();
    Ok(Holder::Unknown { why })
}

/// How the list names an open file: by the numbers of its file system and its inode, which on some
/// file systems (btrfs, overlayfs) are not those of stat(2).
fn file_in_locks(file: &OwnedFd) -> io::Result<String> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let field = |name: &str| info.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
    // Linux 5.4 to 5.13 do not tell the inode.
    let inode = match field("ino:") {
        Some(inode) => inode.to_owned(),
        None => fstat(file)?.st_ino.to_string(),
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let device = field("mnt_id:").and_then(|mount| device_of(mount, &mounts));
    let device = device.ok_or_else(|| io::Error::other("its file system is not listed"))?;
    Ok(format!("{device}:{inode}"))
}

/// The device of a mount, as `/proc/locks` writes it: `MAJOR:MINOR`, in hexadecimal.
fn device_of(mount: &str, mounts: &str) -> Option<String> {
    let mut words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let of_mount = words.find(|words| words.first() == Some(&mount))?;
    let (major, minor) = of_mount.get(2)?.split_once(':')?;
    Some(format!("{:02x}:{:02x}", major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
}

/// Who holds a lock of this file, by a line of the list: `1: FLOCK  ADVISORY  WRITE 707 00:1c:9 0 EOF`.
/// Whoever waits for one has an arrow behind the number.
fn holder_in(line: &str, file: &str) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    if words.next()? != "FLOCK" {
        return None;
    }
    let pid = words.nth(2)?.parse().ok()?;
    (words.next()? == file).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_list_names_its_holder() {
        let holder = |line: &str| holder_in(line, "00:1c:9");
        assert_eq!(holder("1: FLOCK  ADVISORY  WRITE 707 00:1c:9 0 EOF"), Some(707));
        for other in [
            "1: FLOCK  ADVISORY  WRITE 707 00:1c:99 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 707 00:1d:9 0 EOF",
            "1: POSIX  ADVISORY  WRITE 707 00:1c:9 0 EOF",
            "1: -> FLOCK  ADVISORY  WRITE 707 00:1c:9 0 EOF",
            "1: FLOCK",
            "",
        ] {
            assert_eq!(holder(other), None, "{other}");
        }
    }

    #[test]
    fn a_mount_is_found_by_its_number_alone() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n2 1 0:41 / /tmp rw - tmpfs tmpfs rw";
        assert_eq!(device_of("2", mounts).as_deref(), Some("00:29"));
        assert_eq!(device_of("22", mounts).as_deref(), Some("fe:00"));
        assert_eq!(device_of("1", mounts), None);
    }
}
