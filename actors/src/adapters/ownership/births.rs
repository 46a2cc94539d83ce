//! Segments of shared memory as they appear: whose one is can be seen from the moment it is made.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::domain::absence::ScanError;

/// What has changed among the names of a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Appeared(String),
    Vanished(String),
    /// More than the kernel remembers (`fs.inotify.max_queued_events`).
    Missed,
}

/// Hears what appears in a directory.
#[derive(Debug)]
pub(super) struct Births(OwnedFd);

impl Births {
    /// From now on.
    ///
    /// # Errors
    ///
    /// The system's: a user may have 128 of these (`fs.inotify.max_user_instances`).
    pub(super) fn of(directory: &str) -> Result<Self, ScanError> {
        let failed = |error| ScanError::new(format!("inotify of {directory}"), &error);
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        let inotify = inotify::init(flags).map_err(failed)?;
        let comings = WatchFlags::CREATE | WatchFlags::MOVED_TO;
        let goings = WatchFlags::DELETE | WatchFlags::MOVED_FROM;
        let what = comings | goings | WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, directory, what).map_err(failed)?;
        Ok(Self(inotify))
    }

    pub(super) fn descriptor(&self) -> PollFd<'_> {
        PollFd::new(&self.0, PollFlags::IN)
    }

    /// What has changed since it was last asked.
    pub(super) fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    changes.push(Change::Missed);
                }
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
                    let has_come =
                        event.events().intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
                    let change = if has_come { Change::Appeared } else { Change::Vanished };
                    changes.extend(name.map(change));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return changes,
                Err(error) => {
                    tracing::debug!(%error, "what appears among shared memory cannot be heard");
                    changes.push(Change::Missed);
                    return changes;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_that_come_and_go_are_heard_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let births = Births::of(directory.path().to_str().unwrap()).unwrap();
        assert_eq!(births.changes(), []);
        fs::write(directory.path().join("one"), "").unwrap();
        fs::remove_file(directory.path().join("one")).unwrap();
        fs::write(directory.path().join("two"), "").unwrap();
        let (appeared, vanished) = (Change::Appeared, Change::Vanished);
        let expected =
            [appeared("one".to_owned()), vanished("one".to_owned()), appeared("two".to_owned())];
        assert_eq!(births.changes(), expected);
        assert_eq!(births.changes(), []);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(Births::of("/dev/shm/there/is/none").is_err());
    }
}
