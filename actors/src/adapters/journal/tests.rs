//! The journal's files, in a format of the test's own.

use std::fs;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::domain::cause::{Cause, Code};
use crate::domain::event::EventKind;
use crate::domain::incident::Recovery;
use crate::domain::spec::ModelId;
use crate::ports::{OrphanOutcome, Page};

mod failing;
mod following;
mod history;
mod reading;

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
        journal.event(event(sequence, incarnation));
    }
    drop(journal);

    let (_, resume) = open_in(&directory);

    assert_eq!(resume, numbers(3, 4));
}

#[test]
fn an_orderly_end_leaves_no_gap() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    tell(&journal, 3);
    drop(journal);
    let (journal, _) = open_in(&directory);
    tell(&journal, 1);
    drop(journal);

    assert_eq!(text(&directory), "event 1 1\nevent 2 1\nevent 3 1\nevent 4 1\n");
}

#[tokio::test]
async fn a_closed_journal_that_is_still_held_does_not_disturb_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let (first, _) = open_in(&directory);
    tell(&first, 3);
    first.closed().await;

    let (second, resume) = open_in(&directory);
    assert_eq!(resume, numbers(3, 1));
    tell(&second, 1);
    second.flushed().await;
    drop(first);

    let crashed = copy_of(&directory);
    let (_, resume) = open_in(&crashed);
    assert!(resume.sequence.get() > 4, "{resume:?}");
}

#[tokio::test]
async fn after_a_crash_numbering_goes_on_behind_what_may_have_been_given_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    tell(&journal, 3);
    journal.flushed().await;
    let crashed = copy_of(&directory);

    let (journal, resume) = open_in(&crashed);
    assert!(resume.sequence.get() >= 3 + numbers::BLOCK / 2, "{resume:?}");
    tell(&journal, 1);

    let given = resume.sequence.get();
    let found = all(&journal, 1).await;
    assert_eq!(sequences(&found), [1, 2, 3, given + 1]);
    assert!(text(&crashed).contains(&format!("gap {} {given}\n", given - 3)));
}

#[test]
fn a_number_that_was_given_and_lost_is_not_given_again() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    let last = tell(&journal, 5);
    drop(journal);
    // The last lines never reached the disk.
    fs::write(events_of(&directory), "event 1 1\n").unwrap();

    let (journal, resume) = open_in(&directory);

    assert_eq!(resume.sequence, last);
    tell(&journal, 1);
    drop(journal);
    assert_eq!(text(&directory), "event 1 1\ngap 4 5\nevent 6 1\n");
}

#[test]
fn a_torn_last_line_costs_that_line_only_wherever_it_is_torn() {
    let whole = "event 1 1\nevent 2 1\n";
    for end in 0..whole.len() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(events_of(&directory), &whole[..end]).unwrap();

        let (journal, resume) = open_in(&directory);
        let next = tell(&journal, 1);
        drop(journal);

        assert_eq!(next, resume.sequence.next());
        let text = text(&directory);
        assert!(text.starts_with(&whole[..end]), "{text}");
        assert!(text.ends_with(&format!("\nevent {next} 1\n")) || end == 0, "{text}");
        // A line that lacks its end alone is whole once it has one.
        let kept = text.lines().filter(|line| Words.read_event(line).is_some()).count();
        assert!(kept > whole[..end].matches('\n').count(), "{text}");
    }
}

#[test]
fn bytes_that_are_no_text_do_not_keep_the_journal_from_opening() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(events_of(&directory), b"event 1 1\n\xff\xfe\nevent 2 1\n\xff\xff\xff\n").unwrap();

    let (journal, resume) = open_in(&directory);
    tell(&journal, 1);
    drop(journal);

    assert_eq!(resume, numbers(2, 1));
    let bytes = fs::read(events_of(&directory)).unwrap();
    assert_eq!(bytes, b"event 1 1\n\xff\xfe\nevent 2 1\n\xff\xff\xff\nevent 3 1\n");
}

#[test]
fn a_number_that_no_journal_reaches_is_rubbish() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(events_of(&directory), format!("event 2 1\nevent {} 1\n", u64::MAX)).unwrap();
    let (_, resume) = open_in(&directory);
    assert_eq!(resume, numbers(2, 1));
}

#[test]
fn what_cannot_be_a_file_of_the_journal_is_named() {
    for name in ["events.jsonl", "restarts.jsonl", "numbers"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::create_dir(&path).unwrap();
        let error = FileJournal::open(&held(&directory), Box::new(Words)).unwrap_err();
        assert_eq!(error.path, path);

        fs::remove_dir(&path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let error = FileJournal::open(&held(&directory), Box::new(Words)).unwrap_err();
        assert_eq!(error.path, path);

        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), &path).unwrap();
        let error = FileJournal::open(&held(&directory), Box::new(Words)).unwrap_err();
        assert_eq!(error.path, path);
    }
}

#[tokio::test]
async fn what_was_given_is_written_once_it_is_flushed() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    journal.event(event(1, 1));
    journal.orphaned(&orphaned());

    journal.flushed().await;

    assert_eq!(text(&directory), "event 1 1\norphaned 2 1\n");
}

#[test]
fn dropping_the_journal_waits_until_everything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    tell(&journal, 2000);

    drop(journal);

    assert_eq!(text(&directory).lines().count(), 2000);
}

#[test]
fn nobody_else_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let (_journal, _) = open_in(&directory);
    for name in ["events.jsonl", "restarts.jsonl", "numbers"] {
        let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// One word for the kind, then the numbers.
#[derive(Debug)]
struct Words;

impl JournalCodec for Words {
    fn event(&self, event: &Event) -> String {
        let word = match event.kind {
            EventKind::Orphaned { .. } => "orphaned",
            EventKind::StateChanged { .. }
            | EventKind::LoadProgressed { .. }
            | EventKind::RestartScheduled { .. }
            | EventKind::IncidentRecorded { .. }
            | EventKind::LaunchTimed { .. }
            | EventKind::LaunchDistrusted { .. }
            | EventKind::StateExplained { .. }
            | EventKind::ServiceRecovered { .. }
            | EventKind::GpuFindingRaised { .. }
            | EventKind::GpuFindingCleared { .. }
            | EventKind::HealthChanged { .. }
            | EventKind::ModelWanted { .. }
            | EventKind::CleanupBlocked { .. }
            | EventKind::SupervisorEnded { .. }
            | EventKind::ModelSwitched { .. } => "event",
        };
        format!("{word} {} {}", event.sequence, event.incarnation)
    }

    fn record(&self, record: &Record) -> String {
        match record {
            Record::Incident(incident) => format!("restart {}", incident.incarnation),
            Record::Recovery(recovery) => format!("recovery {}", recovery.first),
        }
    }

    fn gap(&self, through: Option<Sequence>, _: SystemTime, missed: u64) -> String {
        format!("gap {missed} {}", through.map_or_else(String::new, |through| through.to_string()))
    }

    fn numbers(&self, line: &str) -> Option<(Sequence, Incarnation)> {
        let (sequence, incarnation) = line.strip_prefix("event ")?.split_once(' ')?;
        Some((Sequence::new(sequence.parse().ok()?), Incarnation::new(incarnation.parse().ok()?)))
    }

    fn read_event(&self, line: &str) -> Option<Event> {
        let (sequence, incarnation) = self.numbers(line)?;
        Some(event(sequence.get(), incarnation.get()))
    }

    fn read_record(&self, line: &str) -> Option<Record> {
        if let Some(first) = line.strip_prefix("recovery ") {
            return Some(Record::Recovery(recovery(first.parse().ok()?)));
        }
        Some(entry(line.strip_prefix("restart ")?.parse().ok()?))
    }
}

/// Gives the journal so many events; returns the number of the last.
fn tell(journal: &FileJournal, count: u64) -> Sequence {
    let told = (0..count).map(|_| journal.event(event(0, 1)).sequence);
    told.last().unwrap()
}

/// Everything from a number on.
async fn all(journal: &FileJournal, from: u64) -> Vec<Event> {
    let mut past = journal.events(Sequence::new(from));
    let mut events = Vec::new();
    loop {
        match past.next_page().await {
            Page::Events(more) => events.extend(more),
            Page::End { .. } => return events,
        }
    }
}

fn sequences(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.sequence.get()).collect()
}

/// The files as they are now, as after a crash.
fn copy_of(directory: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

fn open_in(directory: &TempDir) -> (FileJournal, Resume) {
    FileJournal::open(&held(directory), Box::new(Words)).unwrap()
}

fn held(directory: &TempDir) -> HeldDirectory {
    unlocked(directory.path())
}

/// A directory that nobody else opens.
fn unlocked(path: &std::path::Path) -> HeldDirectory {
    let lock = Arc::new(tempfile::tempfile().unwrap().into());
    HeldDirectory::new(Directory::open(path).unwrap(), &lock)
}

fn opened(directory: &TempDir) -> Directory {
    Directory::open(directory.path()).unwrap()
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

/// By the fourth launch, from ends of which this launch's was the first.
fn recovery(first: u64) -> Recovery {
    let [now, first] = [4, first].map(Incarnation::new);
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
    Recovery::new(at, now, first, Duration::from_secs(8), 2)
}

fn entry(incarnation: u64) -> Record {
    Record::Incident(Box::new(record(incarnation)))
}

fn record(incarnation: u64) -> Incident {
    Incident {
        at: SystemTime::UNIX_EPOCH,
        incarnation: Incarnation::new(incarnation),
        model: ModelId::new("m").unwrap(),
        cause: Cause::new(Code::EngineDied, "it died"),
        healthy_for: None,
        restart_after: Some(Duration::from_secs(2)),
        exits: Vec::new(),
        kernel: None,
        gpus: Vec::new(),
        recovered_after: None,
    }
}

fn orphaned() -> Orphaned {
    Orphaned {
        at: SystemTime::UNIX_EPOCH,
        incarnation: Incarnation::new(1),
        pid: Some(1),
        outcome: OrphanOutcome::Kept,
        left: None,
    }
}
