//! Which shared memory a guardian unlinks, and which not.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use super::*;
use crate::adapters::ownership::SharedFile;

#[test]
fn the_shared_memory_of_members_is_unlinked_and_that_which_others_use_is_not() {
    let stage = Stage::set();
    let path = |name| PathBuf::from(format!("/dev/shm/{name}-{}", stage.marker));
    let [own, passed_on, opened] = ["psm_own", "psm_other", "psm_open"].map(path);
    let guardian = stage.guardian();
    for segment in [&own, &passed_on, &opened] {
        private_file(segment);
    }
    let _leave_nothing = [&own, &passed_on, &opened].map(|it| Removed(it.clone()));
    stage.map_in_member(&[&own, &passed_on, &opened]);
    let other = (Mapped::of(&passed_on), fs::File::open(&opened).unwrap());

    stage.kill_the_supervisor();

    until("the guardian has ended", || !is_alive(guardian.pid()));
    assert!(!own.exists());
    assert!(passed_on.exists() && opened.exists());
    drop(other);
}

#[test]
fn shared_memory_that_was_named_is_unlinked_though_nobody_has_it_any_more() {
    let stage = Stage::set();
    let guardian = stage.guardian();
    let path = PathBuf::from(format!("/dev/shm/psm_{}", stage.marker));
    let _leave_nothing = Removed(path.clone());
    private_file(&path);
    let id = SharedFile::at(rustix::fs::CWD, &path).unwrap().id;
    guardian.note_segments(&[id]);

    stage.kill_the_supervisor();

    until("the guardian has ended", || !is_alive(guardian.pid()));
    assert!(!path.exists());
}

#[test]
fn what_was_there_before_the_launch_stays_though_a_member_has_it_mapped() {
    let stage = Stage::set();
    let directory = PathBuf::from(format!("/dev/shm/model-{}", stage.marker));
    fs::create_dir(&directory).unwrap();
    let (old, nested) = (directory.with_extension("old"), directory.join("weights"));
    let _leave_nothing = (RemovedTree(directory), Removed(old.clone()));
    private_file(&old);
    // The guardian stands before anything of the launch runs.
    let guardian = stage.guardian();
    private_file(&nested);
    stage.map_in_member(&[&old, &nested]);

    stage.kill_the_supervisor();

    until("the guardian has ended", || !is_alive(guardian.pid()));
    assert!(old.exists() && nested.exists());
}

#[test]
fn of_an_adopted_launch_what_is_younger_than_it_is_unlinked_and_what_is_older_is_not() {
    let stage = Stage::set();
    let path = |name| PathBuf::from(format!("/dev/shm/{name}-{}", stage.marker));
    let [old, young] = ["psm_old", "psm_young"].map(path);
    let _leave_nothing = [&old, &young].map(|it| Removed(it.clone()));
    private_file(&old);
    let main = stage.start("exec sleep 600");
    let start = stat(main).unwrap().start_time;
    // Times of a start are told in hundredths of a second.
    let ticks = || stat(stage.spawn(&mut command("true"))).unwrap().start_time;
    until("it is later", || ticks() > start + 2);
    private_file(&young);
    let launch = Segments::of_another(Some((main, start)));
    let guardian = stage.guardian_of(launch.older().clone());
    stage.map_in_member(&[&old, &young]);

    stage.kill_the_supervisor();

    until("the guardian has ended", || !is_alive(guardian.pid()));
    assert!(old.exists() && !young.exists());
}

/// A file that is gone at the end.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// A directory that is gone at the end.
struct RemovedTree(PathBuf);

impl Drop for RemovedTree {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Makes a file as a segment is made.
fn private_file(path: &Path) {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(&[0; 4096]).unwrap();
}

/// A file that this process has mapped.
struct Mapped(*mut std::ffi::c_void);

impl Mapped {
    #[expect(unsafe_code, reason = "there is no safe way to map a file")]
    fn of(path: &Path) -> Self {
        let file = fs::File::open(path).unwrap();
        let (access, flags) = (ProtFlags::READ, MapFlags::SHARED);
        // SAFETY: the kernel chooses the place, and nobody reads it.
        Self(
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, access, flags, file, 0) }
                .unwrap(),
        )
    }
}

impl Drop for Mapped {
    #[expect(unsafe_code, reason = "there is no safe way to map a file")]
    fn drop(&mut self) {
        // SAFETY: mapped by `of`.
        unsafe { munmap(self.0, 4096) }.unwrap();
    }
}
