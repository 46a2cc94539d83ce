//! The journal's files, in a format of the test's own.

use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::domain::cause::{Cause, Code};
use crate::domain::event::EventKind;
use crate::domain::spec::ModelId;
use crate::ports::Fate;

#[test]
fn a_new_journal_begins_before_the_first_number() {
    let directory = tempfile::tempdir().unwrap();
    let (_, resume) = open_in(&directory);
    assert_eq!(resume, Resume::default());
}

#[test]
fn numbering_goes_on_from_the_highest_numbers_written() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    for (sequence, incarnation) in [(1, 1), (2, 4), (3, 2)] {
        journal.event(&event(sequence, incarnation));
    }
    drop(journal);

    let (_, resume) = open_in(&directory);

    assert_eq!(resume, numbers(3, 4));
}

#[test]
fn a_last_line_that_was_torn_is_cut_off_and_its_numbers_are_given_again() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(events_of(&directory), "event 1 1\nevent 2 1\nevent 33").unwrap();

    let (journal, resume) = open_in(&directory);
    journal.event(&event(3, 1));
    drop(journal);

    assert_eq!(resume, numbers(2, 1));
    assert_eq!(text(&directory), "event 1 1\nevent 2 1\nevent 3 1\n");
}

#[test]
fn a_file_that_is_one_torn_line_is_emptied() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(events_of(&directory), "eve").unwrap();
    let (_, resume) = open_in(&directory);
    assert_eq!(resume, Resume::default());
    assert_eq!(text(&directory), "");
}

#[test]
fn bytes_that_are_no_text_do_not_keep_the_journal_from_opening() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(events_of(&directory), b"event 1 1\n\xff\xfe\nevent 2 1\n\xff\xff\xff").unwrap();

    let (journal, resume) = open_in(&directory);
    journal.event(&event(3, 1));
    drop(journal);

    assert_eq!(resume, numbers(2, 1));
    let bytes = fs::read(events_of(&directory)).unwrap();
    assert_eq!(bytes, b"event 1 1\n\xff\xfe\nevent 2 1\nevent 3 1\n");
}

#[tokio::test]
async fn what_was_given_is_written_once_it_is_flushed() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    journal.event(&event(1, 1));
    journal.custody_ended(&custody_ended());

    journal.flushed().await;

    assert_eq!(text(&directory), "event 1 1\ncustody 1\n");
}

#[test]
fn dropping_the_journal_waits_until_everything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    for sequence in 1..=2000 {
        journal.event(&event(sequence, 1));
    }

    drop(journal);

    assert_eq!(text(&directory).lines().count(), 2000);
}

#[test]
fn the_thread_ends_with_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = open_in(&directory);
    let writer = journal.writer.take().unwrap();

    drop(journal);

    writer.join().unwrap();
}

#[tokio::test]
async fn the_history_spans_supervisors() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    journal.restart(&record(1));
    assert_eq!(journal.history().await, [record(1)]);
    drop(journal);

    let (journal, _) = open_in(&directory);
    journal.restart(&record(2));

    assert_eq!(journal.history().await, [record(1), record(2)]);
}

#[tokio::test]
async fn a_restart_after_a_torn_one_is_part_of_the_history() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("restarts.jsonl"), "restart 1\nresta").unwrap();

    let (journal, _) = open_in(&directory);
    journal.restart(&record(2));

    assert_eq!(journal.history().await, [record(1), record(2)]);
}

#[tokio::test]
async fn bytes_that_are_no_text_do_not_hide_the_rest_of_the_history() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("restarts.jsonl"), b"restart 1\n\xff\n").unwrap();
    let (journal, _) = open_in(&directory);
    assert_eq!(journal.history().await, [record(1)]);
}

#[test]
fn nobody_else_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let (_journal, _) = open_in(&directory);
    for name in ["events.jsonl", "restarts.jsonl"] {
        let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// One word for the kind, then the numbers.
#[derive(Debug)]
struct Words;

impl JournalCodec for Words {
    fn event(&self, event: &Event) -> String {
        format!("event {} {}", event.sequence, event.incarnation)
    }

    fn restart(&self, record: &RestartRecord) -> String {
        format!("restart {}", record.incarnation)
    }

    fn custody_ended(&self, ended: &CustodyEnded) -> String {
        format!("custody {}", ended.incarnation)
    }

    fn numbers(&self, line: &str) -> Option<(Sequence, Incarnation)> {
        let (sequence, incarnation) = line.strip_prefix("event ")?.split_once(' ')?;
        Some((Sequence::new(sequence.parse().ok()?), Incarnation::new(incarnation.parse().ok()?)))
    }

    fn read_restart(&self, line: &str) -> Option<RestartRecord> {
        Some(record(line.strip_prefix("restart ")?.parse().ok()?))
    }
}

fn open_in(directory: &TempDir) -> (FileJournal, Resume) {
    FileJournal::open(directory.path(), Box::new(Words)).unwrap()
}

fn events_of(directory: &TempDir) -> PathBuf {
    directory.path().join("events.jsonl")
}

fn text(directory: &TempDir) -> String {
    fs::read_to_string(events_of(directory)).unwrap()
}

fn numbers(sequence: u64, incarnation: u64) -> Resume {
    Resume { sequence: Sequence::new(sequence), incarnation: Incarnation::new(incarnation) }
}

fn event(sequence: u64, incarnation: u64) -> Event {
    Event {
        sequence: Sequence::new(sequence),
        at: SystemTime::UNIX_EPOCH,
        incarnation: Incarnation::new(incarnation),
        kind: EventKind::HealthChanged { healthy: true, consecutive_failures: 0, latency: None },
    }
}

fn record(incarnation: u64) -> RestartRecord {
    RestartRecord {
        at: SystemTime::UNIX_EPOCH,
        incarnation: Incarnation::new(incarnation),
        model: ModelId::new("m").unwrap(),
        cause: Cause::new(Code::EngineDied, "it died"),
        healthy_for: None,
        restart_after: Some(Duration::from_secs(2)),
    }
}

fn custody_ended() -> CustodyEnded {
    CustodyEnded {
        at: SystemTime::UNIX_EPOCH,
        incarnation: Incarnation::new(1),
        pid: Some(1),
        fate: Fate::Kept,
        left: None,
    }
}
