//! Who owns a launch: whoever holds the lock (flock(2)) of its private directory.
//!
//! A supervisor takes it when it launches or finds one, and keeps it until nothing of the launch is
//! left. The kernel unlocks it when the supervisor ends, however that ends. Unlike a state directory it
//! cannot be copied, restored or replaced by another while the launch lives; and what is locked is not
//! aged by systemd-tmpfiles (tmpfiles.d(5)).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use tokio::time::{Duration, Instant};

use super::{What, what_is_at};
use crate::adapters::pause::pause;
use crate::adapters::system_error::if_present;

/// How long somebody must hold a lock to be believed an owner. Who has forked and not yet called exec
/// holds what its parent held, be the parent dead or alive.
const BELIEVED_AFTER: Duration = Duration::from_secs(1);

/// The pause between two attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(10);

/// Who owns a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters) enum Owner {
    /// We do: we did before, or nobody did.
    Us,
    /// Another supervisor, which lives.
    Another,
}

/// The locks that one supervisor holds, by the path of the directory.
#[derive(Debug, Default)]
pub(in crate::adapters) struct ScratchLocks(Mutex<BTreeMap<PathBuf, OwnedFd>>);

impl ScratchLocks {
    /// Takes the launch with this directory, unless another supervisor owns it. One whose directory is
    /// not there any more, or is none of ours, is owned by nobody. `member` is a process of the launch,
    /// which may see another file system than we do.
    ///
    /// Waits up to a second for a lock that somebody holds.
    ///
    /// # Errors
    ///
    /// The system's, when it cannot be told who owns it.
    pub(in crate::adapters) fn take(&self, path: &Path, member: Option<u32>) -> io::Result<Owner> {
        self.take_pausing(path, member, || pause(ATTEMPT_PAUSE))
    }

    fn take_pausing(
        &self,
        path: &Path,
        member: Option<u32>,
        mut between_attempts: impl FnMut(),
    ) -> io::Result<Owner> {
        if self.held().contains_key(path) {
            return Ok(Owner::Us);
        }
        let Some(directory) = open(path, member)? else { return Ok(Owner::Us) };
        let began = Instant::now();
        loop {
            let mut held = self.held();
            if held.contains_key(path) {
                return Ok(Owner::Us);
            }
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    held.insert(path.to_owned(), directory);
                    return Ok(Owner::Us);
                }
                Err(Errno::WOULDBLOCK) if began.elapsed() >= BELIEVED_AFTER => {
                    return Ok(Owner::Another);
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            drop(held);
            between_attempts();
        }
    }

    /// Lets go of a launch that is gone, or was not meant to be taken.
    pub(in crate::adapters) fn let_go(&self, path: &Path) {
        self.held().remove(path);
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<PathBuf, OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path, member: Option<u32>) -> io::Result<Option<OwnedFd>> {
    if let Some(directory) = open_as_made(path)? {
        return Ok(Some(directory));
    }
    // It may be in a private `/tmp` (systemd.exec(5), `PrivateTmp=`).
    match (member, path.strip_prefix("/")) {
        (Some(pid), Ok(below)) => {
            open_as_made(&Path::new("/proc").join(pid.to_string()).join("root").join(below))
        }
        (Some(_) | None, _) => Ok(None),
    }
}

fn open_as_made(path: &Path) -> io::Result<Option<OwnedFd>> {
    match what_is_at(path)? {
        What::Ours => {}
        What::Nothing | What::SomethingElse => return Ok(None),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, path.as_os_str().as_bytes(), flags, Mode::empty());
    if_present(opened.map_err(io::Error::from), &[Errno::NOENT])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::adapters::scratch::{choose, remove};

    fn made(parent: &Path) -> PathBuf {
        let scratch = choose(&[parent.to_owned()]).unwrap();
        scratch.make().unwrap();
        scratch.path
    }

    #[test]
    fn a_launch_has_one_owner_until_he_lets_go_of_it_or_ends() {
        let parent = tempfile::tempdir().unwrap();
        let path = made(parent.path());
        let (one, other) = (ScratchLocks::default(), ScratchLocks::default());
        assert_eq!(one.take(&path, None).unwrap(), Owner::Us);
        assert_eq!(one.take(&path, None).unwrap(), Owner::Us);
        assert_eq!(other.take(&path, None).unwrap(), Owner::Another);
        one.let_go(&path);
        owned_in_the_end(&other, &path);
        drop(other);
        owned_in_the_end(&one, &path);
    }

    /// Another test's child may hold the lock between its fork and its exec.
    fn owned_in_the_end(locks: &ScratchLocks, path: &Path) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while locks.take(path, None).unwrap() == Owner::Another {
            assert!(Instant::now() < deadline);
        }
    }

    #[test]
    fn who_holds_a_lock_for_a_moment_is_no_owner() {
        let parent = tempfile::tempdir().unwrap();
        let path = made(parent.path());
        let mut passing = open(&path, None).unwrap();
        flock(passing.as_ref().unwrap(), FlockOperation::LockExclusive).unwrap();
        let locks = ScratchLocks::default();
        let owner = locks.take_pausing(&path, None, || drop(passing.take()));
        assert_eq!(owner.unwrap(), Owner::Us);
    }

    #[test]
    fn what_is_not_there_or_none_of_ours_has_no_owner() {
        let parent = tempfile::tempdir().unwrap();
        let path = made(parent.path());
        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();
        remove(&path).unwrap();
        for path in [path, other, parent.path().join("missing/vllmd-0")] {
            let (one, other) = (ScratchLocks::default(), ScratchLocks::default());
            assert_eq!(one.take(&path, None).unwrap(), Owner::Us);
            assert_eq!(other.take(&path, Some(std::process::id())).unwrap(), Owner::Us);
        }
    }

    #[test]
    fn that_it_cannot_be_looked_at_is_an_answer_of_its_own() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join(format!("vllmd-{}", "x".repeat(300)));
        ScratchLocks::default().take(&path, None).unwrap_err();
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a process to look at")]
    fn a_directory_is_found_where_a_process_of_the_launch_sees_it() {
        if !rustix::process::geteuid().is_root() {
            println!("not shown: only root can mount a file system");
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("vllmd-1");
        let script =
            "mount -t tmpfs none ${0%/*} && mkdir -m 700 $0 && echo it is there && read end";
        let mut member = Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(member.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert!(open(&path, None).unwrap().is_none());
        let seen = open(&path, Some(member.id())).unwrap();
        // Its input ends with it.
        drop(member.stdin.take());
        member.wait().unwrap();
        assert_eq!((said.as_str(), seen.is_some()), ("it is there\n", true));
    }
}
