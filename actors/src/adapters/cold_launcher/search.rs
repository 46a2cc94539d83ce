//! Tells by what the processes of this state directory carry which launch they belong to, where no
//! record does.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Command;

use crate::adapters::proc_fs;
use crate::adapters::process_tree::MARKER;
use crate::adapters::state_directory::StateDirectory;
use crate::domain::absence::ScanError;
use crate::domain::id::Incarnation;

/// Names the state directory of a launch to whoever searches for it: its number, or of a launch
/// before 2026-11-26 its path.
const STATE: &str = "VLLMD_STATE";

/// Where that directory is, and for whom, in case that its number is lost with it.
const PLACE: &str = "VLLMD_STATE_PLACE";

/// Why it is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// There is no record.
    Missing,
    /// There is one that cannot be read.
    Unreadable,
}

/// Has a launch carry the name of its state directory.
pub(super) fn mark(command: &mut Command, state: &StateDirectory) {
    command.env(STATE, state.id());
    match place_of(state.path()) {
        Ok(place) => command.env(PLACE, OsString::from_vec(place)),
        // It has a number.
        Err(_) => command.env_remove(PLACE),
    };
}

/// What launches of this state directory carry, each of them one of these.
///
/// # Errors
///
/// That it cannot be told where the directory is.
pub(super) fn variables(state: &StateDirectory, lack: Lack) -> Result<Vec<Vec<u8>>, ScanError> {
    let mut values = vec![variable(STATE, state.id().as_bytes())];
    if state.is_new() {
        let place = place_of(state.path());
        let place =
            place.map_err(|error| ScanError::new(state.path().to_string_lossy(), &error))?;
        values.push(variable(PLACE, &place));
    }
    // A relative one may be anybody's; so may any where there was never a record.
    if lack == Lack::Unreadable && state.path().is_absolute() {
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

/// Marker and number of the latest launch that any of these processes carries with one of these variables.
///
/// # Errors
///
/// What could not be looked at, or that none of them carries it any more.
pub(super) fn launch_of_any(
    pids: &[u32],
    state: &[Vec<u8>],
) -> Result<(String, Incarnation), ScanError> {
    let mut latest = Err(ScanError::new("/proc", &"who was there has gone"));
    for pid in pids {
        let environment = match proc_fs::environment(*pid) {
            // Of the launch all the same, by descent; another one of it will tell.
            Err(error) if proc_fs::is_refusal(&error) => continue,
            environment => environment?.unwrap_or_default(),
        };
        let Some(launch) = launch_in(&environment, state) else { continue };
        if latest.as_ref().is_ok_and(|(_, number)| *number >= launch.1) {
            continue;
        }
        latest = Ok(launch);
    }
    latest
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

    #[test]
    fn a_path_alone_names_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path()).unwrap();
        let own = format!("VLLMD_STATE={}", state.id()).into_bytes();
        let place = variables(&state, Lack::Missing).unwrap();
        assert_eq!(place.len(), 2);
        assert!(place[1].ends_with(directory.path().as_os_str().as_encoded_bytes()));
        state.restore().unwrap();
        drop(state);
        let path = format!("VLLMD_STATE={}", directory.path().display()).into_bytes();

        let state = reopened(directory.path());

        assert_eq!(variables(&state, Lack::Missing).unwrap(), std::slice::from_ref(&own));
        assert_eq!(variables(&state, Lack::Unreadable).unwrap(), [own, path]);
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
