//! Tells by what the processes of this state directory carry which launch they belong to, where no
//! record does; and whether another supervisor lives that owns them.
//!
//! A supervisor holds the lock of its state directory for as long as it lives, and its launches carry
//! the name of that lock, however they came to be found: by a copy of the directory, or by its path
//! after it was removed. While somebody holds it they are left alone.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Command;

use crate::adapters::marks::{MARKER, STATE, STATE_LOCK, STATE_PLACE};
use crate::adapters::ownership::Marked;
use crate::adapters::proc_fs::{self, Stat};
use crate::adapters::state_directory::StateDirectory;
use crate::domain::absence::ScanError;
use crate::domain::id::Incarnation;

/// Why it is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// There is no record of a launch that may live.
    NoRecord,
    /// There is one that cannot be read.
    UnreadableRecord,
}

/// Has a launch carry the name of its state directory.
pub(super) fn mark(command: &mut Command, state: &StateDirectory) {
    command.env(STATE, state.identity().id);
    match place_of(state.path()) {
        Ok(place) => command.env(STATE_PLACE, OsString::from_vec(place)),
        // It has a number.
        Err(_) => command.env_remove(STATE_PLACE),
    };
    match state.lock_name() {
        Ok(lock) => command.env(STATE_LOCK, lock),
        Err(error) => {
            tracing::warn!(%error, "a copy of the state directory must not be used while vLLM runs");
            command.env_remove(STATE_LOCK)
        }
    };
}

/// What is sought.
#[derive(Debug)]
pub(super) struct Sought {
    /// `NAME=value` each, one of which each of them carries.
    variables: Vec<Vec<u8>>,
    /// `NAME=value` each: whoever carries one has an owner who lives.
    owned: Vec<Vec<u8>>,
}

impl Sought {
    /// All launches of this state directory.
    ///
    /// # Errors
    ///
    /// That it cannot be told where the directory is, or who holds a lock.
    pub(super) fn of_state(state: &StateDirectory, reason: Reason) -> Result<Self, ScanError> {
        Ok(Self { variables: variables(state, reason)?, owned: owned(state)? })
    }

    /// The launch with this marker.
    ///
    /// # Errors
    ///
    /// That it cannot be told who holds a lock.
    pub(super) fn of_launch(state: &StateDirectory, marker: &str) -> Result<Self, ScanError> {
        let variables = vec![variable(MARKER, marker.as_bytes())];
        Ok(Self { variables, owned: owned(state)? })
    }

    /// Those without an owner.
    pub(super) fn marked(&self) -> Marked {
        Marked::by_any(self.variables.clone()).but_none_of(self.owned.clone())
    }

    /// Those whom another supervisor owns, who is alive.
    ///
    /// # Errors
    ///
    /// What could not be looked at.
    pub(super) fn owned_by_another(&self) -> Result<Vec<u32>, ScanError> {
        let (mut pids, mut flaw) = (Vec::new(), None);
        if self.owned.is_empty() {
            return Ok(pids);
        }
        proc_fs::each_pid(|pid| match proc_fs::environment(pid) {
            Ok(environment) => {
                let environment = environment.unwrap_or_default();
                let carries = |one_of: &[Vec<u8>]| {
                    proc_fs::has_variable(&environment, |it| one_of.iter().any(|one| one == it))
                };
                if carries(&self.variables) && carries(&self.owned) {
                    pids.push(pid);
                }
            }
            Err(error) if proc_fs::is_refusal(&error) => {}
            Err(error) => flaw = Some(error),
        })?;
        flaw.map_or(Ok(pids), Err)
    }

    /// Marker and number of the latest launch that any of these processes carries.
    ///
    /// # Errors
    ///
    /// What could not be looked at, that they have gone, or who of them says of no launch.
    pub(super) fn launch_of_any(&self, pids: &[u32]) -> Result<(String, Incarnation), ScanError> {
        let mut latest: Option<(String, Incarnation)> = None;
        for pid in pids {
            let environment = match proc_fs::environment(*pid) {
                // Of the launch all the same, by descent; another one of it will tell.
                Err(error) if proc_fs::is_refusal(&error) => continue,
                environment => environment?.unwrap_or_default(),
            };
            let launch = launch_in(&environment, &self.variables);
            latest = latest.into_iter().chain(launch).max_by_key(|(_, number)| *number);
        }
        latest.map_or_else(|| Err(of_no_launch(pids)), Ok)
    }
}

fn of_no_launch(pids: &[u32]) -> ScanError {
    let living = pids.iter().find_map(|pid| Stat::of(*pid).ok()?.filter(|it| !it.is_zombie()));
    let Some(stat) = living else { return ScanError::new("/proc", &"who was there has gone") };
    let who = format!("process {} ({})", stat.pid, stat.name);
    let said = format!("it is of this state directory and shows no {MARKER}; end it by hand");
    ScanError::undecided(who, &said)
}

fn owned(state: &StateDirectory) -> Result<Vec<Vec<u8>>, ScanError> {
    let locks = state.other_locks().map_err(|error| ScanError::new("/proc/locks", &error))?;
    Ok(locks.iter().map(|lock| variable(STATE_LOCK, lock.as_bytes())).collect())
}

fn variables(state: &StateDirectory, reason: Reason) -> Result<Vec<Vec<u8>>, ScanError> {
    let identity = state.identity();
    let numbers = [Some(identity.id), identity.former].into_iter().flatten();
    let mut values: Vec<_> = numbers.map(|it| variable(STATE, it.as_bytes())).collect();
    if identity.is_new {
        let place = place_of(state.path());
        let place =
            place.map_err(|error| ScanError::new(state.path().to_string_lossy(), &error))?;
        values.push(variable(STATE_PLACE, &place));
    }
    // A relative one may be anybody's; so may any where there was never a record.
    if reason == Reason::UnreadableRecord && state.path().is_absolute() {
        values.push(variable(STATE, state.path().as_os_str().as_bytes()));
    }
    Ok(values)
}

fn variable(name: &str, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b"=", value].concat()
}

/// The same path is another place in another mount namespace.
fn place_of(path: &Path) -> io::Result<Vec<u8>> {
    let namespace = fs::read_link("/proc/self/ns/mnt")?.into_os_string().into_vec();
    let path = fs::canonicalize(path)?.into_os_string().into_vec();
    Ok([namespace, path].join(&b':'))
}

fn launch_in(environment: &[u8], state: &[Vec<u8>]) -> Option<(String, Incarnation)> {
    let mut variables = environment.split(|byte| *byte == 0);
    if !variables.clone().any(|variable| state.iter().any(|it| it == variable)) {
        return None;
    }
    let marker = variables.find_map(|it| it.strip_prefix(MARKER.as_bytes())?.strip_prefix(b"="))?;
    let marker = String::from_utf8(marker.to_vec()).ok()?;
    let number = marker.rsplit_once('-')?.1.parse().ok()?;
    Some((marker, Incarnation::new(number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::absence::ScanErrorKind;

    #[test]
    fn a_path_alone_names_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path()).unwrap();
        let own = format!("VLLMD_STATE={}", state.identity().id).into_bytes();
        let place = variables(&state, Reason::NoRecord).unwrap();
        assert_eq!(place.len(), 2);
        assert!(place[1].ends_with(directory.path().as_os_str().as_encoded_bytes()));
        state.restore().unwrap();
        drop(state);
        let path = format!("VLLMD_STATE={}", directory.path().display()).into_bytes();

        let state = reopened(directory.path());

        assert_eq!(variables(&state, Reason::NoRecord).unwrap(), std::slice::from_ref(&own));
        assert_eq!(variables(&state, Reason::UnreadableRecord).unwrap(), [own, path]);
    }

    /// Another test's child may hold the lock's descriptor between its fork and its exec.
    fn reopened(path: &Path) -> StateDirectory {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            match StateDirectory::open(path) {
                Ok(state) => return state,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_says_of_no_launch_is_named() {
        let (me, gone) = (std::process::id(), 5_000_000);
        let sought = Sought { variables: vec![b"VLLMD_STATE=none".to_vec()], owned: Vec::new() };
        let error = sought.launch_of_any(&[gone, me]).unwrap_err();
        assert_eq!(error.kind, ScanErrorKind::Undecided);
        assert!(error.looked_at.starts_with(&format!("process {me} (")), "{error}");
        assert_eq!(sought.launch_of_any(&[gone]).unwrap_err().kind, ScanErrorKind::Failed);
    }

    #[test]
    fn a_launch_is_known_by_state_directory_and_marker_together() {
        let launch = |text: &str| {
            launch_in(text.replace(' ', "\0").as_bytes(), &[b"VLLMD_STATE=/s".to_vec()])
        };
        let expected = Some(("a-b-7".to_owned(), Incarnation::new(7)));
        assert_eq!(launch("VLLMD_INSTANCE=a-b-7 VLLMD_STATE=/s"), expected);
        assert_eq!(launch("VLLMD_INSTANCE=a-b-7 VLLMD_STATE=/s/t"), None);
        assert_eq!(launch("VLLMD_STATE=/s"), None);
        assert_eq!(launch("VLLMD_INSTANCE=a-b VLLMD_STATE=/s"), None);
    }
}
