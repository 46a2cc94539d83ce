//! Tells by what the processes of this state directory carry which launch they belong to, where no
//! record does.

use std::path::Path;

use crate::adapters::proc_fs;
use crate::adapters::process_tree::MARKER;
use crate::domain::absence::ScanError;
use crate::domain::id::Incarnation;

/// Names the state directory of a launch to whoever searches for it.
pub(super) const STATE: &str = "VLLMD_STATE";

/// What all launches of this state directory carry.
pub(super) fn variable(state_directory: &Path) -> String {
    format!("{STATE}={}", state_directory.display())
}

/// Marker and number of the latest launch that any of these processes carries with this variable.
///
/// # Errors
///
/// What could not be looked at, or that none of them carries it any more.
pub(super) fn launch_of_any(pids: &[u32], state: &str) -> Result<(String, Incarnation), ScanError> {
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

fn launch_in(environment: &[u8], state: &str) -> Option<(String, Incarnation)> {
    let mut variables = environment.split(|byte| *byte == 0);
    if !variables.clone().any(|variable| variable == state.as_bytes()) {
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
    fn a_launch_is_known_by_state_directory_and_marker_together() {
        let launch = |text: &str| launch_in(text.replace(' ', "\0").as_bytes(), "VLLMD_STATE=/s");
        let expected = Some(("a-b-7".to_owned(), Incarnation::new(7)));
        assert_eq!(launch("VLLMD_INSTANCE=a-b-7 VLLMD_STATE=/s"), expected);
        assert_eq!(launch("VLLMD_INSTANCE=a-b-7 VLLMD_STATE=/s/t"), None);
        assert_eq!(launch("VLLMD_STATE=/s"), None);
        assert_eq!(launch("VLLMD_INSTANCE=a-b VLLMD_STATE=/s"), None);
    }
}
