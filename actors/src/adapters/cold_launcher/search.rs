//! Finds a launch of this state directory by what its processes carry, where no record tells of it.

use std::fs;
use std::path::Path;

use super::super::proc_fs;
use super::super::process_tree::MARKER;
use crate::domain::id::Incarnation;

/// Names the state directory of a launch to whoever searches for it.
pub(super) const STATE: &str = "VLLMD_STATE";

/// The launches of this state directory of which anything is alive: marker and number.
pub(super) fn launches_of(state_directory: &Path) -> Vec<(String, Incarnation)> {
    let state = format!("{STATE}={}", state_directory.display());
    let mut found = Vec::new();
    for process in proc_fs::processes().filter(|stat| !stat.is_zombie()) {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        let launch = launch_in(&environment, &state);
        found.extend(launch.filter(|launch| !found.contains(launch)));
    }
    found
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
