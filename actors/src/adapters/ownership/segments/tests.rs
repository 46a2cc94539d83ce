//! Segments of real processes.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::users::spare_what_is_open_to_others;
use super::*;
use crate::adapters::proc_fs::random_uuid;

/// A file among shared memory that a process has open.
struct Segment {
    path: PathBuf,
    owner: Child,
}

impl Segment {
    #[expect(clippy::disallowed_methods, reason = "a segment needs somebody who has it open")]
    fn new() -> Self {
        let name = format!("vllmd-test-{}", random_uuid().unwrap());
        let path = PathBuf::from(PLACE).join(name);
        let mut private = fs::OpenOptions::new();
        let file = private.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        let owner = Command::new("cat").stdout(file).stdin(Stdio::piped()).spawn().unwrap();
        Self { path, owner }
    }

    #[expect(clippy::disallowed_methods, reason = "a segment needs somebody who has it open")]
    fn held_by_one_who_began_before_it() -> Self {
        let path = PathBuf::from(PLACE).join(format!("vllmd-test-{}", random_uuid().unwrap()));
        // Ticks of a start are a hundredth of a second.
        let script = "sleep 0.1; umask 077; exec > $0; exec cat";
        let mut command = Command::new("sh");
        let owner = command.args(["-c", script]).arg(&path).stdin(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !path.exists() {
            assert!(Instant::now() < deadline, "it makes no file");
            std::thread::yield_now();
        }
        Self { path, owner }
    }

    fn name(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }

    fn is_strange_to(&self, segments: &Segments) -> bool {
        segments.unclaimed.contains(self.name())
    }

    fn lose_owner(&mut self) {
        self.owner.kill().unwrap();
        self.owner.wait().unwrap();
    }
}

impl Segments {
    /// Which of these are removed once nobody has them.
    fn after_the_end_of<const N: usize>(&mut self, segments: [Segment; N]) -> [bool; N] {
        let segments = segments.map(|mut segment| {
            assert!(self.seen.contains_key(segment.name()));
            segment.lose_owner();
            segment
        });
        assert_eq!(self.remove(), Ok(Vec::new()));
        segments.map(|segment| !segment.path.exists())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.lose_owner();
        fs::remove_file(&self.path).ok();
    }
}

#[test]
fn what_appears_belongs_to_the_member_that_has_it_open() {
    let mut segments = Segments::before_launch().unwrap();
    let mut segment = Segment::new();
    segments.hear();
    assert!(segment.is_strange_to(&segments) && segments.due.is_some());
    segments.claim([segment.owner.id()].into_iter());
    assert!(!segment.is_strange_to(&segments));
    assert_eq!(segments.remove(), Ok(Vec::new()));
    assert!(segment.path.exists(), "somebody has it open");
    segment.lose_owner();
    assert_eq!(segments.remove(), Ok(Vec::new()));
    assert!(!segment.path.exists());
}

#[test]
fn what_appears_and_is_seen_with_no_member_stays() {
    let mut segments = Segments::before_launch().unwrap();
    let mut segment = Segment::new();
    segments.hear();
    let mut questions = 0;
    while segments.due.is_some() && questions < 100 {
        segments.claim(std::iter::empty());
        questions += 1;
    }
    assert_eq!(questions, QUESTIONS);
    assert!(segment.is_strange_to(&segments));
    segment.lose_owner();
    assert_eq!(segments.remove(), Ok(Vec::new()));
    assert!(segment.path.exists());
}

#[test]
fn what_was_there_before_the_launch_stays_though_a_member_has_it_open() {
    let mut segment = Segment::new();
    let mut segments = Segments::before_launch().unwrap();
    segments.hear();
    assert!(!segment.is_strange_to(&segments));
    segments.claim([segment.owner.id()].into_iter());
    segment.lose_owner();
    assert_eq!(segments.remove(), Ok(Vec::new()));
    assert!(segment.path.exists());
}

#[test]
fn a_segment_is_read_from_a_map() {
    let line = "7f1c-7f2c rw-s 00000000 00:1b 4242                   /dev/shm/psm_1";
    let id = FileId { device: (0, 0x1b), inode: 4242 };
    assert_eq!(mapped(line), Some((id, "psm_1")));
    assert_eq!(mapped(&format!("{line} (deleted)")), None);
    assert_eq!(mapped("7f1c-7f2c r-xp 00000000 fe:00 11 /usr/lib/libc.so.6"), None);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a file needs somebody who has it open")]
fn the_file_of_a_model_that_was_there_before_the_launch_stays() {
    let model = PathBuf::from(PLACE).join(format!("model-{}", random_uuid().unwrap()));
    fs::create_dir(&model).unwrap();
    let weights = model.join("model.safetensors");
    let mut private = fs::OpenOptions::new();
    private.write(true).create_new(true).mode(0o600).open(&weights).unwrap();
    let mut segments = Segments::before_launch().unwrap();
    let file = fs::File::open(&weights).unwrap();
    let mut reader = Command::new("sleep").arg("600").stdin(file).spawn().unwrap();

    segments.claim([reader.id()].into_iter());
    reader.kill().unwrap();
    reader.wait().unwrap();
    let removed = segments.remove();

    let is_there = weights.exists();
    fs::remove_dir_all(&model).unwrap();
    assert_eq!(removed, Ok(Vec::new()));
    assert!(is_there, "the user's weights are gone");
}

#[test]
fn what_is_older_than_an_adopted_launch_stays_though_a_member_has_it_open() {
    let (early, late) = (Segment::new(), Segment::new());
    let start = proc_fs::Stat::of(late.owner.id()).unwrap().unwrap().start_time;
    let mut segments = Segments::of_another(Some((0, start)));
    segments.keep_open(early.owner.id()).unwrap();
    let removed = segments.after_the_end_of([early]);
    assert_eq!(removed, [false]);
}

/// Of a launch that was made ahead the main process is older than the launch.
#[test]
fn what_is_older_than_the_claim_of_an_adopted_launch_stays_though_its_main_process_is_older() {
    let main = Segment::new();
    let start = proc_fs::Stat::of(main.owner.id()).unwrap().unwrap().start_time;
    let young = Segment::held_by_one_who_began_before_it();
    let mut segments = Segments::of_another(Some((0, start)));
    segments.claimed_at(proc_fs::start_time_now() + 1);
    segments.keep_open(young.owner.id()).unwrap();
    assert_eq!(segments.after_the_end_of([young]), [false]);
}

#[test]
fn what_is_younger_than_an_adopted_launch_is_removed() {
    let main = Segment::new();
    let start = proc_fs::Stat::of(main.owner.id()).unwrap().unwrap().start_time;
    for mut segments in [Segments::of_another(Some((0, start))), Segments::default()] {
        let young = Segment::held_by_one_who_began_before_it();
        segments.keep_open(young.owner.id()).unwrap();
        assert_eq!(segments.after_the_end_of([young]), [true]);
    }
}

#[test]
fn where_nobody_knows_when_a_launch_began_what_is_older_than_its_holder_stays() {
    let segment = Segment::new();
    let mut segments = Segments::default();
    segments.keep_open(segment.owner.id()).unwrap();
    assert_eq!(segments.after_the_end_of([segment]), [false]);
}

#[test]
fn what_is_moved_out_of_a_directory_of_before_the_launch_stays() {
    let segment = Segment::new();
    let Older::Listed(listing) = Segments::before_launch().unwrap().older else { unreachable!() };
    let file = present(segment.name()).unwrap().unwrap();
    let elsewhere = Listing::of(std::iter::empty());
    assert!(Older::Listed(listing).includes(b"moved", &file, None));
    // Not listed, and a second ahead of the files that are made now.
    assert!(!Older::Listed(elsewhere.clone()).includes(b"moved", &file, None));
    assert!(Older::Listed(elsewhere.taken_later()).includes(b"moved", &file, None));
}

#[test]
fn a_file_that_cannot_be_looked_at_before_the_launch_is_not_of_it() {
    let segment = Segment::new();
    let file = present(segment.name()).unwrap().unwrap();
    let entries = [("gone", Errno::NOENT), ("shut", Errno::ACCESS)];
    let listing = Listing::of(entries.into_iter().map(|(name, no)| (name.to_owned(), Err(no))));
    let older = Older::Listed(listing);
    assert!(older.includes(b"shut", &file, None) && older.lists("shut", file.id));
    assert!(!older.includes(b"gone", &file, None));
}

#[test]
fn what_others_may_use_stays_where_they_cannot_be_seen() {
    let segment = Segment::new();
    let file = |mode| {
        fs::set_permissions(&segment.path, fs::Permissions::from_mode(mode)).unwrap();
        let file = present(segment.name()).unwrap().unwrap();
        BTreeMap::from([(file.id, (segment.name().to_owned(), file))])
    };
    let (mut private, mut open) = (file(0o600), file(0o640));
    spare_what_is_open_to_others(&mut private);
    spare_what_is_open_to_others(&mut open);
    assert_eq!((private.len(), open.len()), (1, 0));
}

#[test]
fn what_has_gone_again_is_not_remembered_for_ever() {
    let mut segments = Segments::before_launch().unwrap();
    for _ in 0..3 {
        let segment = Segment::new();
        segments.hear();
        segments.claim([segment.owner.id()].into_iter());
        assert_eq!(segments.news().unwrap().len(), 1);
        drop(segment);
        segments.hear();
        assert_eq!((segments.seen.len(), segments.news()), (0, Some(Vec::new())));
    }
    assert_eq!(segments.news(), None);
}

#[test]
fn what_has_gone_unheard_is_forgotten_by_a_look() {
    let mut segments = Segments::before_launch().unwrap();
    let (gone, stays) = (Segment::new(), Segment::new());
    for segment in [&gone, &stays] {
        segments.keep_open(segment.owner.id()).unwrap();
    }
    drop(gone);
    segments.note_all();
    assert_eq!(segments.seen.keys().collect::<Vec<_>>(), [stays.name()]);
}

#[test]
fn newcomers_do_not_cut_short_the_rest_after_a_look() {
    let mut segments = Segments::before_launch().unwrap();
    segments.rest_after(Instant::now() - Duration::from_secs(60));
    let rest = Instant::now() + Duration::from_secs(500);
    segments.note("another".to_owned());
    assert!(segments.due.is_some_and(|due| due > rest) && !segments.is_due());
    segments.claim(std::iter::empty());
    assert!(segments.due.is_some_and(|due| due > rest));
    let (births, due) = segments.births();
    assert!(births.is_none() && due.is_some_and(|due| due > rest));
}

#[test]
fn where_nothing_appears_nobody_is_woken() {
    let directory = tempfile::tempdir().unwrap();
    let births = Births::of(directory.path().to_str().unwrap()).unwrap();
    let mut segments = Segments { births: Some(Arc::new(births)), ..Segments::default() };
    segments.hear();
    let (births, due) = segments.births();
    assert!(births.is_some() && due.is_none());
    fs::write(directory.path().join("one"), "").unwrap();
    segments.hear();
    let (births, due) = segments.births();
    assert!(births.is_none() && due.is_some(), "it rests after it has looked");
}
