//! The directory that a supervisor holds, for those who work in it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::adapters::directory::Directory;

/// The directory that is held now, wherever its name leads: what its supervisor writes is written
/// there, and goes to another one only when that one is held.
///
/// It is not the hold: who reads a journal may outlive its supervisor, and is in nobody's way.
#[derive(Clone, Debug)]
pub struct HeldDirectory(Arc<Mutex<Present>>);

struct Present {
    directory: Arc<Directory>,
    lock: Weak<OwnedFd>,
    /// Told when another directory is held.
    listeners: Vec<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Present").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Keeps a directory from being anybody else's while something is done in it, though its supervisor
/// takes hold of another one meanwhile.
#[derive(Debug)]
pub(in crate::adapters) struct Share {
    pub(in crate::adapters) directory: Arc<Directory>,
    /// `None` once the supervisor has ended.
    _lock: Option<Arc<OwnedFd>>,
}

impl HeldDirectory {
    /// It is held as long as the lock is.
    pub(in crate::adapters) fn new(directory: Directory, lock: &Arc<OwnedFd>) -> Self {
        let lock = Arc::downgrade(lock);
        let directory = Arc::new(directory);
        Self(Arc::new(Mutex::new(Present { directory, lock, listeners: Vec::new() })))
    }

    /// The directory. The same one is the same `Arc`.
    pub(in crate::adapters) fn now(&self) -> Arc<Directory> {
        Arc::clone(&self.present().directory)
    }

    /// The directory, to write in.
    pub(in crate::adapters) fn share(&self) -> Share {
        let present = self.present();
        Share { directory: Arc::clone(&present.directory), _lock: present.lock.upgrade() }
    }

    pub(super) fn replace(&self, directory: Directory, lock: &Arc<OwnedFd>) {
        let mut present = self.present();
        (present.directory, present.lock) = (Arc::new(directory), Arc::downgrade(lock));
        present.listeners.iter().for_each(|tell| tell());
    }

    /// Calls this whenever another directory is held. It must not ask which one.
    pub(in crate::adapters) fn on_change(&self, tell: impl Fn() + Send + Sync + 'static) {
        self.present().listeners.push(Box::new(tell));
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
