//! Tells by what the processes of this state directory carry which launches they belong to, where no
//! record does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::adapters::marks::{MARKER, SCRATCH, STATE, STATE_PLACE};
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

/// What every process of a launch carries.
pub(super) fn marks(
    marker: &str,
    state: &StateDirectory,
    scratch: &Path,
) -> BTreeMap<&'static str, OsString> {
    let mut marks = BTreeMap::from([
        (MARKER, OsString::from(marker)),
        (SCRATCH, scratch.into()),
        (STATE, state.identity().id.into()),
    ]);
    // Without it there is still the number.
    marks.extend(place_of(state.path()).map(|place| (STATE_PLACE, OsString::from_vec(place))));
    marks
}

/// What all launches of a state directory carry: `NAME=value` each, one of which is in each of them.
#[derive(Debug)]
pub(super) struct Sought(Vec<Vec<u8>>);

/// A launch, as its processes show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) marker: String,
    pub(super) incarnation: Incarnation,
    /// `None` for one of before 2026-11-26.
    pub(super) scratch: Option<PathBuf>,
    /// Those who carry its marker.
    pub(super) pids: Vec<u32>,
}

impl Seen {
    /// What is in the environment of each of its processes, and in no other's.
    pub(super) fn variables(&self) -> impl Iterator<Item = Vec<u8>> {
        let scratch = self.scratch.as_ref().map(|it| variable(SCRATCH, it.as_os_str().as_bytes()));
        [variable(MARKER, self.marker.as_bytes())].into_iter().chain(scratch)
    }
}

impl Sought {
    /// All launches of this state directory.
    ///
    /// # Errors
    ///
    /// That it cannot be told where the directory is.
    pub(super) fn of_state(state: &StateDirectory, reason: Reason) -> Result<Self, ScanError> {
        Ok(Self(variables(state, reason)?))
    }

    pub(super) fn marked(&self) -> Marked {
        Marked::by_any(self.0.clone())
    }

    /// The launches that these processes carry, the latest last.
    ///
    /// # Errors
    ///
    /// What could not be looked at, that they have gone, or who of them says of no launch.
    pub(super) fn launches_of(&self, pids: &[u32]) -> Result<Vec<Seen>, ScanError> {
        let mut launches: BTreeMap<String, Seen> = BTreeMap::new();
        let mut unnamed = Vec::new();
        for pid in pids {
            let environment = match proc_fs::environment(*pid) {
                // Of the launch all the same, by descent; another one of it will tell.
                Err(error) if proc_fs::is_refusal(&error) => continue,
                environment => environment?.unwrap_or_default(),
            };
            let is_sought = |variable: &[u8]| self.0.iter().any(|it| it == variable);
            if !proc_fs::has_variable(&environment, is_sought) {
                continue;
            }
            match launch_in(&environment) {
                Some(seen) => {
                    launches.entry(seen.marker.clone()).or_insert(seen).pids.push(*pid);
                }
                None => unnamed.push((*pid, scratch_in(&environment))),
            }
        }
        // Whoever has lost the marker may have kept the other one.
        unnamed.retain(|(_, scratch)| {
            scratch.is_none() || launches.values().all(|seen| seen.scratch != *scratch)
        });
        let unnamed: Vec<u32> = unnamed.into_iter().map(|(pid, _)| pid).collect();
        if launches.is_empty() || unnamed.iter().any(|pid| living(*pid).is_some()) {
            return Err(of_no_launch(if unnamed.is_empty() { pids } else { &unnamed }));
        }
        let mut launches: Vec<_> = launches.into_values().collect();
        launches.sort_by_key(|seen| seen.incarnation);
        Ok(launches)
    }
}

fn living(pid: u32) -> Option<Stat> {
    Stat::of(pid).ok()?.filter(|it| !it.is_zombie())
}

fn of_no_launch(pids: &[u32]) -> ScanError {
    let Some(stat) = pids.iter().find_map(|pid| living(*pid)) else {
        return ScanError::new("/proc", &"who was there has gone");
    };
    let who = format!("process {} ({})", stat.pid, stat.name);
    let said = format!("it is of this state directory and shows no {MARKER}; end it by hand");
    ScanError::undecided(who, &said)
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

fn launch_in(environment: &[u8]) -> Option<Seen> {
    let marker = String::from_utf8(value_in(environment, MARKER)?.to_vec()).ok()?;
    let incarnation = Incarnation::new(marker.rsplit_once('-')?.1.parse().ok()?);
    Some(Seen { marker, incarnation, scratch: scratch_in(environment), pids: Vec::new() })
}

fn scratch_in(environment: &[u8]) -> Option<PathBuf> {
    value_in(environment, SCRATCH).map(|path| OsString::from_vec(path.to_vec()).into())
}

fn value_in<'a>(environment: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find_map(|it| it.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
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
        let sought = Sought(vec![b"VLLMD_STATE=none".to_vec()]);
        let error = sought.launches_of(&[gone, me]).unwrap_err();
        assert_eq!(error.kind, ScanErrorKind::Undecided);
        assert!(error.looked_at.starts_with(&format!("process {me} (")), "{error}");
        assert_eq!(sought.launches_of(&[gone]).unwrap_err().kind, ScanErrorKind::Failed);
    }

    #[test]
    fn a_launch_is_known_by_its_marker_and_has_a_private_directory() {
        let launch = |text: &str| {
            let seen = launch_in(text.replace(' ', "\0").as_bytes());
            seen.map(|it| (it.marker, it.incarnation.get(), it.scratch))
        };
        let scratch = Some(PathBuf::from("/tmp/vllmd-1"));
        assert_eq!(launch("VLLMD_INSTANCE=a-b-7 A=b"), Some(("a-b-7".to_owned(), 7, None)));
        let both = "VLLMD_SCRATCH=/tmp/vllmd-1 VLLMD_INSTANCE=a-b-7";
        assert_eq!(launch(both), Some(("a-b-7".to_owned(), 7, scratch)));
        assert_eq!(launch("VLLMD_STATE=/s"), None);
        assert_eq!(launch("VLLMD_INSTANCE=a-b VLLMD_STATE=/s"), None);
    }
}
