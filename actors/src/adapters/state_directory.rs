//! The directory where a supervisor keeps what outlives it: one supervisor at a time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::domain::id::Incarnation;

/// A state directory, held for as long as this lives.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    /// Locked; the kernel unlocks it when we end, however we end.
    _lock: File,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirectoryError {
    /// Another supervisor uses it.
    #[error("the state directory {} is used by another supervisor", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
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
    /// [`StateDirectoryError`] if another supervisor holds it or it cannot be used.
    pub fn open(path: &Path) -> Result<Self, StateDirectoryError> {
        let unusable = |source| StateDirectoryError::Unusable { path: path.to_owned(), source };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path.join("logs")).map_err(unusable)?;
        let lock = File::create(path.join("lock")).map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(StateDirectoryError::InUse { path: path.to_owned() })
            }
            Err(error) => Err(unusable(error.into())),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where vLLM's output of a launch is.
    pub fn log_of(&self, incarnation: Incarnation) -> PathBuf {
        log_file(&self.path, incarnation)
    }
}

/// Where vLLM's output of a launch is, below a state directory.
pub fn log_file(state_directory: &Path, incarnation: Incarnation) -> PathBuf {
    state_directory.join(format!("logs/vllm-{incarnation}.log"))
}

#[cfg(test)]
mod tests {
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
    fn a_path_that_cannot_be_a_directory_is_named() {
        let error = StateDirectory::open(Path::new("/dev/null/state")).unwrap_err();
        assert!(error.to_string().contains("/dev/null/state"), "{error}");
    }
}
