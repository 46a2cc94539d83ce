//! What the machine itself offers a launch.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::domain::preflight::{Disk, HostFacts};

/// A place that is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What is written there.
    pub purpose: &'static str,
    /// Where; it need not be there yet.
    pub path: PathBuf,
    /// Below this many free bytes there is a warning.
    pub enough: u64,
}

const SHARED_MEMORY: &str = "/dev/shm";

/// Looks at the machine; `path` is where vLLM's programs are looked for.
pub(super) fn look(places: &[Place], path: &[PathBuf], compiler: Option<&str>) -> HostFacts {
    let shared_memory = Path::new(SHARED_MEMORY);
    HostFacts {
        // Where there is none, vLLM does without.
        shared_memory: shared_memory.is_dir().then(|| free(shared_memory)),
        open_files: getrlimit(Resource::Nofile).maximum,
        disks: look_at_disks(places),
        compiler: find_compiler(path, compiler),
    }
}

/// Looks at the room in these places.
pub(super) fn look_at_disks(places: &[Place]) -> Vec<Disk> {
    let disk = |place: &Place| Disk {
        purpose: place.purpose,
        path: place.path.display().to_string(),
        free: free(&place.path),
        enough: place.enough,
    };
    places.iter().map(disk).collect()
}

fn free(path: &Path) -> Result<u64, String> {
    free_at(path).map_err(|error| error.to_string())
}

/// The bytes that are free where this is, or would be made.
fn free_at(path: &Path) -> Result<u64, Errno> {
    for place in path.ancestors() {
        match statvfs(place) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(error),
            Ok(found) => return Ok(found.f_bavail.saturating_mul(found.f_frsize)),
        }
    }
    Err(Errno::NOENT)
}

/// As Triton looks for it (3.4, `runtime/build.py`): what CC names, else gcc or clang.
fn find_compiler(path: &[PathBuf], named: Option<&str>) -> Option<String> {
    let names = named.map_or(vec!["gcc", "clang"], |name| vec![name]);
    let places = names.into_iter().flat_map(|name| {
        let whole = Path::new(name).is_absolute().then(|| PathBuf::from(name));
        whole.into_iter().chain(path.iter().map(move |directory| directory.join(name)))
    });
    let may_run = |place: &PathBuf| {
        place.is_file() && accessat(CWD, place, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
    };
    places.into_iter().find(may_run).map(|place| place.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_room_of_a_place_that_is_not_there_yet_is_that_of_where_it_would_be() {
        let root = tempfile::tempdir().unwrap();
        let here = free_at(root.path()).unwrap();
        let there = free_at(&root.path().join("a/b")).unwrap();
        // Others write meanwhile.
        assert!(here.abs_diff(there) < 1 << 30, "{here} {there}");
        fs::write(root.path().join("file"), "").unwrap();
        assert!(free_at(&root.path().join("file/below")).is_ok());
    }

    #[test]
    fn a_compiler_is_found_on_the_path_or_where_it_is_said_to_be() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: u32| {
            let path = root.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        let path = &[root.path().to_owned()];
        assert_eq!(find_compiler(path, None), None);
        make("gcc", 0o644);
        make("cc", 0o755);
        assert_eq!(find_compiler(path, None), None);
        let clang = make("clang", 0o755);
        assert_eq!(find_compiler(path, None), Some(clang));
        let own = make("own", 0o755);
        assert_eq!(find_compiler(path, Some("own")), Some(own.clone()));
        assert_eq!(find_compiler(path, Some(&own)), Some(own));
        assert_eq!(find_compiler(path, Some("/gone/gcc")), None, "the named one is taken alone");
    }
}
