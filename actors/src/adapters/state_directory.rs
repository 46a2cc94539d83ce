//! The directory where a supervisor keeps what outlives it: one supervisor at a time.
//!
//! Whoever can write there decides what is adopted and what is killed, so a directory that others
//! may write is not used, and a link in its place, or in place of what is kept in it, is not followed.
//! Of the directories above it nothing is asked, and links among them are followed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    Access, AtFlags, CWD, Mode, OFlags, Stat, accessat, fstat, mkdirat, openat, stat,
};
use rustix::io::Errno;

use super::directory::Directory;
use super::marks::STATE;
use super::proc_fs;
use super::scratch::ScratchLocks;
use crate::domain::id::Incarnation;

mod held;
mod identity;
mod lock;

pub use held::HeldDirectory;
pub(super) use identity::Identity;
pub use lock::Holder;

/// Where in a state directory vLLM's output is kept.
pub(super) const LOGS: &str = "logs";

/// A state directory, held for as long as this lives.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    present: HeldDirectory,
    hold: Mutex<Hold>,
    launches: ScratchLocks,
}

/// That a directory is ours.
#[derive(Debug)]
struct Hold {
    identity: Identity,
    /// Locked; the kernel unlocks it when we end, however we end.
    lock: Arc<OwnedFd>,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateDirectoryError {
    /// Another supervisor uses it.
    #[error("the state directory {} is used by another supervisor", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else could write what we would believe.
    #[error("the state directory {} is not safe: {problem}", path.display())]
    Unsafe {
        /// The directory, or what in it is not as it should be.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// It cannot be made or opened.
    #[error("the state directory {} cannot be used", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl StateDirectory {
    /// Makes the directory if need be (mode 0700), and takes hold of it.
    ///
    /// # Errors
    ///
    /// [`StateDirectoryError`] if another supervisor holds it, others may write to it, or it cannot
    /// be used.
    pub fn open(path: &Path) -> Result<Self, StateDirectoryError> {
        let (directory, hold) = hold(path, None)?;
        let present = HeldDirectory::new(directory, &hold.lock);
        let (path, hold) = (path.to_owned(), Mutex::new(hold));
        Ok(Self { path, present, hold, launches: ScratchLocks::default() })
    }

    /// Who holds the directory, without taking hold of it or making anything; `None` if there is no
    /// such directory yet.
    ///
    /// # Errors
    ///
    /// [`StateDirectoryError`] if [`StateDirectory::open`] would fail even if nobody held it.
    pub fn holder(path: &Path) -> Result<Option<Holder>, StateDirectoryError> {
        let unusable = |error: Errno| StateDirectoryError::Unusable {
            path: path.to_owned(),
            source: error.into(),
        };
        let directory = match open_directory(path) {
            Err(StateDirectoryError::Unusable { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                return Ok(None);
            }
            directory => directory?,
        };
        let rights = Access::WRITE_OK | Access::EXEC_OK;
        accessat(&directory, ".", rights, AtFlags::EACCESS).map_err(unusable)?;
        match trust_logs(&directory) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(unusable(error)),
        }
        lock::holder(&directory).map(Some).map_err(|error| cannot_lock(path, error))
    }

    /// The directory's name, which may lead elsewhere until [`StateDirectory::restore`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself.
    pub fn present(&self) -> &HeldDirectory {
        &self.present
    }

    /// By what it is known.
    pub(super) fn identity(&self) -> Identity {
        self.hold().identity.clone()
    }

    /// The launches that its supervisor owns.
    /// Whether this process is of a launch that was made for this directory, by us or by a supervisor
    /// before us. Of one that cannot be looked at nobody can say.
    pub fn has_launched(&self, pid: u32) -> bool {
        let wanted = format!("{STATE}={}", self.identity().id);
        let environment = proc_fs::environment(pid).ok().flatten();
        let is_it = |variable: &[u8]| variable == wanted.as_bytes();
        environment.is_some_and(|environment| proc_fs::has_variable(&environment, is_it))
    }

    pub(super) fn launches(&self) -> &ScratchLocks {
        &self.launches
    }

    fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where vLLM's output of a launch is.
    pub fn log_of(&self, incarnation: Incarnation) -> PathBuf {
        log_file(&self.path, incarnation)
    }

    /// Makes the directory anew, and takes hold of it, if it was removed, moved or replaced. Until
    /// then, and if another supervisor holds what is there now, the former one stays ours.
    ///
    /// # Errors
    ///
    /// As [`StateDirectory::open`].
    pub fn restore(&self) -> Result<(), StateDirectoryError> {
        let unusable = |error: Errno| StateDirectoryError::Unusable {
            path: self.path.clone(),
            source: error.into(),
        };
        let mut held = self.hold();
        let directory = self.present.now();
        let ours = fstat(&directory).map_err(unusable)?;
        match stat(self.path.as_os_str().as_bytes()) {
            Ok(there)
                if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
                    && lock::is_in(&directory, &held.lock).map_err(unusable)? =>
            {
                make_logs(&directory).map_err(unusable)?;
            }
            // Of one that was emptied the next would take another lock than ours.
            Ok(_) | Err(Errno::NOENT) => {
                tracing::warn!(path = %self.path.display(), "the state directory is not where it was; the one there is used from now on");
                let (directory, hold) = hold(&self.path, Some(&held.identity))?;
                self.present.replace(directory, &hold.lock);
                *held = hold;
            }
            Err(error) => return Err(unusable(error)),
        }
        Ok(())
    }
}

/// Where vLLM's output of a launch is, below a state directory.
pub fn log_file(state_directory: &Path, incarnation: Incarnation) -> PathBuf {
    state_directory.join(LOGS).join(log_name(incarnation))
}

/// What vLLM's output of a launch is called among the logs.
pub(super) fn log_name(incarnation: Incarnation) -> String {
    format!("vllm-{incarnation}.log")
}

fn hold(path: &Path, known: Option<&Identity>) -> Result<(Directory, Hold), StateDirectoryError> {
    let unusable =
        |source: io::Error| StateDirectoryError::Unusable { path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
    let directory = open_directory(path)?;
    make_logs(&directory).map_err(|error| unusable(error.into()))?;
    let lock = lock::take(&directory).map_err(|error| cannot_lock(path, error))?;
    let identity = Identity::of(&directory, known).map_err(|error| unusable(error.into()))?;
    Ok((Directory::of(directory, path), Hold { identity, lock: Arc::new(lock) }))
}

/// Opens a directory in which only we and root can write.
fn open_directory(path: &Path) -> Result<OwnedFd, StateDirectoryError> {
    let unusable = |error: Errno| StateDirectoryError::Unusable {
        path: path.to_owned(),
        source: error.into(),
    };
    let refused = |problem| StateDirectoryError::Unsafe { path: path.to_owned(), problem };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(CWD, path.as_os_str().as_bytes(), flags, Mode::empty()) {
        // Which of the two a link to a directory is depends on the kernel's order (open(2)).
        Err(Errno::LOOP | Errno::NOTDIR) if path.is_symlink() => {
            return Err(refused("it is a symbolic link; name the directory itself"));
        }
        directory => directory.map_err(unusable)?,
    };
    match problem_of(&fstat(&directory).map_err(unusable)?) {
        Some(problem) => Err(refused(problem)),
        None => Ok(directory),
    }
}

fn cannot_lock(path: &Path, error: Errno) -> StateDirectoryError {
    match error {
        Errno::WOULDBLOCK => StateDirectoryError::InUse { path: path.to_owned() },
        Errno::LOOP | Errno::ISDIR | Errno::NXIO => StateDirectoryError::Unsafe {
            path: path.join("lock"),
            problem: "it is no regular file",
        },
        error => StateDirectoryError::Unusable { path: path.to_owned(), source: error.into() },
    }
}

/// Why others could write into a directory; `None` if they cannot.
fn problem_of(stat: &Stat) -> Option<&'static str> {
    if stat.st_uid != rustix::process::geteuid().as_raw() && stat.st_uid != 0 {
        return Some("it belongs to another user");
    }
    (stat.st_mode & 0o022 != 0).then_some("others may write to it; take that away (`chmod go-w`)")
}

fn make_logs(directory: impl AsFd) -> Result<(), Errno> {
    let directory = directory.as_fd();
    match mkdirat(directory, LOGS, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    trust_logs(directory)
}

fn trust_logs(directory: impl AsFd) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let logs = fstat(openat(directory, LOGS, flags, Mode::empty())?)?;
    if problem_of(&logs).is_some() { Err(Errno::PERM) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::{FileType, mknodat};

    use super::*;

    #[test]
    fn a_second_supervisor_is_refused_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let first = StateDirectory::open(directory.path()).unwrap();
        let second = StateDirectory::open(directory.path()).unwrap_err();
        assert!(matches!(second, StateDirectoryError::InUse { .. }), "{second}");
        drop(first);
        // Another test's child may hold the lock's descriptor between its fork and its exec.
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while StateDirectory::open(directory.path()).is_err() {
            assert!(tokio::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_asks_for_the_holder_is_told_and_holds_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        assert_eq!(StateDirectory::holder(&path).unwrap(), None);
        assert!(!path.exists());
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        let holder = || StateDirectory::holder(&path).unwrap().unwrap();
        assert!(!matches!(holder(), Holder::Process { .. }));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        let held = StateDirectory::open(&path).unwrap();
        assert_eq!(holder(), Holder::Process { pid: std::process::id() });
        // Nor does it let go of what another descriptor of this process holds.
        assert!(matches!(StateDirectory::open(&path), Err(StateDirectoryError::InUse { .. })));
        drop(held);
    }

    #[test]
    fn what_could_not_be_taken_is_no_matter_of_who_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = StateDirectory::holder(directory.path()).unwrap_err();
        assert!(matches!(error, StateDirectoryError::Unsafe { .. }), "{error}");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(directory.path().join("lock")).unwrap();
        let error = StateDirectory::holder(directory.path()).unwrap_err();
        assert!(matches!(error, StateDirectoryError::Unsafe { .. }), "{error}");
    }

    #[test]
    fn a_path_that_cannot_be_a_directory_is_named() {
        let error = StateDirectory::open(Path::new("/dev/null/state")).unwrap_err();
        assert!(error.to_string().contains("/dev/null/state"), "{error}");
    }

    #[test]
    fn a_directory_that_others_may_write_is_not_trusted() {
        for mode in [0o770, 0o702, 0o1777] {
            let directory = tempfile::tempdir().unwrap();
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error = StateDirectory::open(directory.path()).unwrap_err();
            assert!(matches!(error, StateDirectoryError::Unsafe { .. }), "{mode:o}: {error}");
        }
    }

    #[test]
    fn the_logs_of_others_are_not_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("logs");
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), &logs).unwrap();
        StateDirectory::open(directory.path()).unwrap_err();
        fs::remove_file(&logs).unwrap();
        fs::create_dir(&logs).unwrap();
        fs::set_permissions(&logs, fs::Permissions::from_mode(0o777)).unwrap();
        StateDirectory::open(directory.path()).unwrap_err();
    }

    #[test]
    fn a_link_is_not_followed_wherever_it_stands() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        let error = StateDirectory::open(&link).unwrap_err();
        assert!(matches!(error, StateDirectoryError::Unsafe { .. }), "{error}");

        symlink(directory.path().join("precious"), real.join("lock")).unwrap();
        StateDirectory::open(&real).unwrap_err();
        assert!(!directory.path().join("precious").exists());
    }

    #[test]
    fn a_lock_that_is_no_file_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let lock = directory.path().join("lock");
        mknodat(CWD, &lock, FileType::Fifo, Mode::RWXU, 0).unwrap();
        StateDirectory::open(directory.path()).unwrap_err();
        // With a reader it could be opened.
        let _reader = fs::OpenOptions::new().read(true).write(true).open(&lock).unwrap();
        StateDirectory::open(directory.path()).unwrap_err();
    }

    #[test]
    fn one_that_was_removed_is_made_anew_and_held_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let state = StateDirectory::open(&path).unwrap();
        fs::remove_dir_all(path.join("logs")).unwrap();
        state.restore().unwrap();
        assert!(path.join("logs").is_dir());
        fs::remove_dir_all(&path).unwrap();

        state.restore().unwrap();

        assert!(path.join("logs").is_dir());
        let second = StateDirectory::open(&path).unwrap_err();
        assert!(matches!(second, StateDirectoryError::InUse { .. }), "{second}");
        assert_eq!(
            fs::read_to_string(path.join("id")).unwrap().lines().next(),
            Some(&*state.identity().id)
        );
    }

    #[test]
    fn one_that_was_moved_away_stays_ours_until_what_is_in_its_place_can_be_held() {
        let parent = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (parent.path().join("state"), parent.path().join("elsewhere"));
        let state = StateDirectory::open(&path).unwrap();
        let former = state.present().now();
        fs::rename(&path, &elsewhere).unwrap();
        let other = StateDirectory::open(&path).unwrap();

        let refused = state.restore().unwrap_err();

        assert!(matches!(refused, StateDirectoryError::InUse { .. }), "{refused}");
        assert!(Arc::ptr_eq(&state.present().now(), &former));
        let second = StateDirectory::open(&elsewhere).unwrap_err();
        assert!(matches!(second, StateDirectoryError::InUse { .. }), "{second}");
        drop(other);
        let share = state.present().share();
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while state.restore().is_err() {
            assert!(tokio::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(!Arc::ptr_eq(&state.present().now(), &former));
        // Whoever still writes there is not joined by another supervisor.
        let second = StateDirectory::open(&elsewhere).unwrap_err();
        assert!(matches!(second, StateDirectoryError::InUse { .. }), "{second}");
        drop(share);
        while StateDirectory::open(&elsewhere).is_err() {
            assert!(tokio::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_number_is_kept_unless_it_cannot_be_understood() {
        let directory = tempfile::tempdir().unwrap();
        let id = || identity_in(directory.path());
        let first = id().unwrap();
        assert!(first.is_new);
        assert_eq!(id(), Ok(Identity { is_new: false, ..first.clone() }));
        fs::write(directory.path().join("id"), "").unwrap();
        assert_ne!(id().unwrap().id, first.id);
        fs::remove_file(directory.path().join("id")).unwrap();
        symlink("/dev/zero", directory.path().join("id")).unwrap();
        assert_eq!(id(), Err(Errno::LOOP));
    }

    fn identity_in(path: &Path) -> Result<Identity, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Identity::of(&openat(CWD, path, flags, Mode::empty()).unwrap(), None)
    }

    #[test]
    fn a_directory_that_was_moved_keeps_its_number_and_a_copy_gets_its_own() {
        let parent = tempfile::tempdir().unwrap();
        let [first, moved, copy] = ["first", "moved", "copy"].map(|it| parent.path().join(it));
        fs::create_dir(&first).unwrap();
        let number = identity_in(&first).unwrap().id;
        fs::rename(&first, &moved).unwrap();
        let known = Identity { id: number.clone(), is_new: false, former: None };
        assert_eq!(identity_in(&moved), Ok(known.clone()));

        fs::create_dir(&copy).unwrap();
        fs::copy(moved.join("id"), copy.join("id")).unwrap();
        let own = identity_in(&copy).unwrap();
        assert!(own.is_new && own.id != number);
        assert_eq!(own.former, Some(number.clone()));
        assert_eq!(identity_in(&copy), Ok(Identity { id: own.id, is_new: false, former: None }));
        assert_eq!(identity_in(&moved), Ok(known.clone()));

        // As it was written before it was said where.
        fs::write(moved.join("id"), format!("{number}\n")).unwrap();
        assert_eq!(identity_in(&moved), Ok(known));
    }

    #[test]
    fn one_that_was_emptied_is_held_again() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path()).unwrap();
        fs::remove_file(directory.path().join("lock")).unwrap();
        state.restore().unwrap();
        let second = StateDirectory::open(directory.path()).unwrap_err();
        assert!(matches!(second, StateDirectoryError::InUse { .. }), "{second}");
    }
}
