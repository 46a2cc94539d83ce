//! Directories that are removed, moved, and taken by others, while the journal is written.

use super::*;
use crate::adapters::state_directory::{StateDirectory, StateDirectoryError};

/// A place for state directories, with one that is held, and its journal.
struct Place {
    parent: TempDir,
    state: StateDirectory,
    journal: FileJournal,
}

impl Place {
    async fn with_events(count: u64) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&parent.path().join("state")).unwrap();
        let (journal, _) = FileJournal::open(state.present(), Box::new(Words)).unwrap();
        let place = Self { parent, state, journal };
        place.tell(count).await;
        place
    }

    async fn tell(&self, count: u64) {
        tell(&self.journal, count);
        self.journal.flushed().await;
    }

    fn at(&self, name: &str) -> PathBuf {
        self.parent.path().join(name)
    }

    fn move_away(&self) {
        fs::rename(self.at("state"), self.at("elsewhere")).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name).join("events.jsonl")).unwrap()
    }

    /// Another supervisor at the same name, as far as it has come, and what it has written.
    fn other(&self, count: u64) -> (StateDirectory, FileJournal) {
        let state = StateDirectory::open(&self.at("state")).unwrap();
        let (journal, _) = FileJournal::open(state.present(), Box::new(Words)).unwrap();
        for _ in 0..count {
            journal.event(event(0, 9));
        }
        (state, journal)
    }

    /// Takes hold of what is there as soon as nobody else holds it: another test's child may have
    /// the lock's descriptor between its fork and its exec.
    fn restore(&self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while let Err(error) = self.state.restore() {
            assert!(matches!(error, StateDirectoryError::InUse { .. }), "{error}");
            assert!(tokio::time::Instant::now() < deadline, "{error}");
            std::thread::yield_now();
        }
    }
}

#[tokio::test]
async fn a_directory_that_was_removed_and_made_anew_is_written_into_once_it_is_held() {
    let place = Place::with_events(1).await;
    fs::remove_dir_all(place.at("state")).unwrap();
    place.tell(1).await;
    assert!(!place.at("state").exists(), "it is made by whoever knows how");

    place.restore();
    place.tell(1).await;

    assert_eq!(place.text("state"), "gap 1 1\nevent 2 1\nevent 3 1\n");
    // No number is given twice, though it ends without a word.
    fs::remove_file(place.at("state/events.jsonl")).unwrap();
    let copy = tempfile::tempdir().unwrap();
    fs::copy(place.at("state/numbers"), copy.path().join("numbers")).unwrap();
    let (_, resume) = open_in(&copy);
    assert!(resume.sequence.get() >= 3, "{resume:?}");
}

#[tokio::test]
async fn what_another_supervisor_has_made_at_the_same_name_is_never_written_into() {
    let place = Place::with_events(2).await;
    fs::remove_dir_all(place.at("state")).unwrap();
    let (_other, journal) = place.other(3);
    journal.flushed().await;
    let before: Vec<_> = contents(&place.at("state"));

    place.journal.record(entry(1));
    place.tell(2).await;
    let refused = place.state.restore().unwrap_err();
    place.tell(2).await;

    assert!(matches!(refused, StateDirectoryError::InUse { .. }), "{refused}");
    assert_eq!(contents(&place.at("state")), before);
    let found = sequences(&all(&place.journal, 1).await);
    assert!(found.is_empty(), "{found:?} are another's");
}

#[tokio::test]
async fn a_directory_that_was_moved_away_is_written_into_until_another_one_is_held() {
    let place = Place::with_events(1).await;
    place.move_away();
    place.tell(1).await;
    assert_eq!(place.text("elsewhere"), "event 1 1\nevent 2 1\n");
    assert_eq!(sequences(&all(&place.journal, 1).await), [1, 2]);

    place.restore();
    place.journal.record(entry(7));
    place.tell(1).await;

    assert_eq!(place.text("elsewhere"), "event 1 1\nevent 2 1\n");
    assert_eq!(place.text("state"), "gap 2 2\nevent 3 1\n");
    assert_eq!(sequences(&all(&place.journal, 1).await), [3]);
    assert_eq!(place.journal.history().await, [record(7)]);
}

#[tokio::test]
async fn in_the_directory_of_another_that_has_ended_no_number_is_given_again() {
    let place = Place::with_events(2).await;
    place.move_away();
    let (other, journal) = place.other(5);
    drop((journal, other));
    let mut past = place.journal.events(Sequence::new(3));
    place.restore();
    place.journal.flushed().await;

    place.tell(1).await;

    let text = place.text("state");
    assert!(text.starts_with("event 1 9\nevent 2 9\nevent 3 9\nevent 4 9\nevent 5 9\n"), "{text}");
    let numbers = sequences(&all(&place.journal, 1).await);
    assert_eq!(numbers, [6], "the other's are told for ours in {text}");
    // It is the event of ours that is found, not the other's with the number of one of ours.
    assert_eq!(past.next_page().await, Page::Events(vec![event(6, 1)]));
    assert_eq!(past.next_page().await, Page::End { through: Sequence::new(6) });

    // Whoever comes next goes on behind both.
    let Place { parent, state, journal } = place;
    drop((journal, state));
    let next = unlocked(&parent.path().join("state"));
    let (_, resume) = FileJournal::open(&next, Box::new(Words)).unwrap();
    assert_eq!(resume, super::numbers(6, 9));
}

#[tokio::test]
async fn in_the_directory_of_another_that_was_killed_numbering_goes_on_behind_its_block() {
    let place = Place::with_events(2).await;
    place.move_away();
    let (other, journal) = place.other(5);
    journal.flushed().await;
    let kept = fs::read(place.at("state/numbers")).unwrap();
    drop((journal, other));
    fs::write(place.at("state/numbers"), kept).unwrap();
    place.restore();
    place.journal.flushed().await;

    place.tell(1).await;

    let found = sequences(&all(&place.journal, 1).await);
    assert_eq!(found, [super::super::numbers::BLOCK + 1]);
    let given = found[0] - 1;
    assert!(place.text("state").ends_with(&format!(
        "gap {} {given}\nevent {} 1\n",
        given - 5,
        found[0]
    )));
}

#[tokio::test]
async fn what_waits_is_written_behind_a_shorter_journal_of_another() {
    let place = Place::with_events(7).await;
    place.move_away();
    let (other, journal) = place.other(2);
    drop((journal, other));
    place.restore();

    place.tell(1).await;

    assert_eq!(place.text("state"), "event 1 9\nevent 2 9\ngap 5 7\nevent 8 1\n");
    assert_eq!(sequences(&all(&place.journal, 1).await), [8]);
}

#[tokio::test]
async fn a_line_torn_by_another_is_followed_by_a_fresh_one() {
    let place = Place::with_events(1).await;
    place.move_away();
    fs::create_dir(place.at("state")).unwrap();
    fs::write(place.at("state/events.jsonl"), "event 1 9\neve").unwrap();
    fs::write(place.at("state/restarts.jsonl"), "resta").unwrap();
    place.restore();

    place.journal.record(entry(3));
    place.tell(1).await;
    place.tell(1).await;

    let text = place.text("state");
    assert!(text.starts_with("event 1 9\neve\n"), "{text}");
    assert_eq!(sequences(&all(&place.journal, 1).await).len(), 1, "{text}");
    assert_eq!(place.journal.history().await, [record(3)]);
}

#[tokio::test]
async fn an_end_in_a_directory_that_is_held_only_since_leaves_no_number_to_be_given_again() {
    let place = Place::with_events(3).await;
    place.journal.closed().await;
    place.move_away();
    place.restore();
    let Place { parent, state, journal } = place;
    drop((journal, state));
    let next = unlocked(&parent.path().join("state"));
    let (_, resume) = FileJournal::open(&next, Box::new(Words)).unwrap();
    assert_eq!(resume, super::numbers(3, 1));
}

#[tokio::test]
async fn a_file_that_was_renamed_by_somebody_is_made_anew_under_its_name() {
    let place = Place::with_events(1).await;
    for name in ["events.jsonl", "restarts.jsonl", "numbers"] {
        fs::rename(place.at("state").join(name), place.at(name)).unwrap();
    }

    place.journal.record(entry(1));
    place.tell(1).await;

    assert_eq!(place.text("state"), "event 2 1\n");
    assert_eq!(place.journal.history().await, [record(1)]);
    assert!(place.at("state/numbers").exists());
}

/// The journal's files, by name.
fn contents(directory: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let mut contents: Vec<_> = files
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    contents.sort();
    contents
}

/// Until something happens a launch may load for minutes, and who is killed then has kept nothing.
#[tokio::test]
async fn numbers_are_kept_in_a_directory_as_soon_as_it_is_held() {
    let place = Place::with_events(3).await;
    fs::remove_dir_all(place.at("state")).unwrap();

    place.restore();
    place.journal.flushed().await;

    let copy = tempfile::tempdir().unwrap();
    for (name, bytes) in contents(&place.at("state")) {
        fs::write(copy.path().join(name), bytes).unwrap();
    }
    let (_, resume) = open_in(&copy);
    assert!(resume.sequence.get() >= 3, "they are given again: {resume:?}");
}
