//! A scenario, as a test writes it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use crate::state::{State, XidState};

/// The name by which NVML is looked for.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// A driver that says what it is told to say. Its directory is removed when it is dropped.
#[derive(Debug)]
pub struct FakeNvml {
    directory: TempDir,
    state: Mutex<State>,
}

impl FakeNvml {
    /// A driver with these GPUs.
    ///
    /// # Panics
    ///
    /// When the library was not built beside the program that runs, or there is no room for a copy.
    pub fn new(state: State) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::copy(built(), directory.path().join(LIBRARY)).expect("a copy of the library");
        let fake = Self { directory, state: Mutex::new(state) };
        fake.change(|_| {});
        fake
    }

    /// Changes what it says from now on.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let json = serde_json::to_vec(&*state).expect("plain data");
        let file = self.directory.path().join("state.json");
        let part = file.with_extension("part");
        fs::write(&part, json).expect("room for a small file");
        fs::rename(part, file).expect("the directory is ours");
    }

    /// The driver tells of a fault.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn xid(&self, gpu: u32, xid: u32) {
        self.change(|state| state.xids.push(XidState::new(gpu, xid)));
    }

    /// The library, to be loaded by this path.
    pub fn library(&self) -> PathBuf {
        self.directory.path().join(LIBRARY)
    }

    /// The directory: for `LD_LIBRARY_PATH` of a program that loads the library by its name, and for
    /// [`hold_memory`](crate::hold_memory).
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// Where cargo has put the library: beside tests, and in `deps` beside programs.
fn built() -> PathBuf {
    const NAME: &str = "libfake_nvml.so";
    let program = env::current_exe().expect("the program that runs");
    let beside = program.parent().expect("a directory");
    let places = [beside.join(NAME), beside.join("deps").join(NAME)];
    let found = places.into_iter().find(|place| place.exists());
    found.unwrap_or_else(|| panic!("{NAME} was not built beside {}", program.display()))
}
