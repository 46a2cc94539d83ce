//! Reading back: across files, while they change, and whatever is in them.

use std::cell::Cell;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::reader::{Found, Reader};
use super::super::segments::{FULL_SEGMENTS_BYTES, SEGMENT_BYTES, full_segments};
use super::*;
use crate::testing::rounds;

/// Everything that a reader tells of the files of a directory.
fn read_all(directory: &TempDir, from: u64, through: u64) -> Vec<Event> {
    let mut reader = Reader::new(Arc::new(Words), from);
    let mut events = Vec::new();
    loop {
        match reader.next_page(&home(directory), || through).unwrap() {
            Found::Events(more) => events.extend(more),
            Found::End => return events,
        }
    }
}

fn home(directory: &TempDir) -> Home {
    Home { directory: Arc::new(opened(directory)), foreign: 0 }
}

fn segment(directory: &TempDir, last: u64, text: &[u8]) {
    fs::write(directory.path().join(format!("events-{last:020}.jsonl")), text).unwrap();
}

/// A journal that has filled many files.
fn long(directory: &TempDir) -> u64 {
    let line = |number: u64| format!("event {number} 1\n");
    let lines_a_segment = 1000;
    for index in 0..3 {
        let numbers = index * lines_a_segment + 1..=(index + 1) * lines_a_segment;
        let text: String = numbers.map(line).collect();
        segment(directory, (index + 1) * lines_a_segment, text.as_bytes());
    }
    let text: String = (3001..=3500).map(line).collect();
    fs::write(events_of(directory), text).unwrap();
    3500
}

#[test]
fn events_are_told_in_order_from_any_number_across_files() {
    let directory = tempfile::tempdir().unwrap();
    let last = long(&directory);
    for from in [0, 1, 2, 999, 1000, 1001, 2500, 3000, 3001, 3500, 3501] {
        let told = sequences(&read_all(&directory, from, last));
        assert_eq!(told, (from.max(1)..=last).collect::<Vec<_>>());
    }
}

#[test]
fn numbers_that_were_not_given_are_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(events_of(&directory), "event 1 1\nevent 999 1\nevent 2 1\n").unwrap();
    assert_eq!(sequences(&read_all(&directory, 1, 2)), [1, 2]);
}

#[test]
fn events_that_are_given_while_a_page_is_read_are_not_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(events_of(&directory), "event 1 1\nevent 2 1\nevent 3 1\n").unwrap();
    // Each line is there before it is looked at, and its number is given by then.
    let given = Cell::new(0);
    let mut reader = Reader::new(Arc::new(Words), 1);
    let found = reader.next_page(&home(&directory), || given.replace(given.get() + 1) + 1).unwrap();
    let Found::Events(events) = found else { panic!("nothing is told") };
    assert_eq!(sequences(&events), [1, 2, 3]);
}

#[test]
fn numbers_that_come_twice_or_late_are_told_once() {
    let directory = tempfile::tempdir().unwrap();
    segment(&directory, 4, b"event 1 1\nevent 2 1\nevent 2 1\nevent 4 1\nevent 3 1\n");
    segment(&directory, 5, b"event 4 1\nevent 5 1\n");
    fs::write(events_of(&directory), "event 5 1\nevent 6 1\n").unwrap();
    assert_eq!(sequences(&read_all(&directory, 1, 6)), [1, 2, 4, 5, 6]);
}

#[tokio::test]
async fn a_hole_shows_in_the_numbers_and_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    tell(&journal, 5);
    drop(journal);
    fs::write(events_of(&directory), "event 1 1\nevent 3 1\n").unwrap();

    let (journal, _) = open_in(&directory);
    let mut past = journal.events(Sequence::NONE);

    assert_eq!(past.next_page().await, Page::Events(vec![event(1, 1), event(3, 1)]));
    assert_eq!(past.next_page().await, Page::End { through: Sequence::new(5) });
}

#[tokio::test]
async fn what_is_kept_after_the_end_is_told_when_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    let mut past = journal.events(Sequence::NONE);
    assert_eq!(past.next_page().await, Page::End { through: Sequence::NONE });
    tell(&journal, 1);
    assert_eq!(past.next_page().await, Page::Events(vec![event(1, 1)]));
    assert_eq!(past.next_page().await, Page::End { through: Sequence::new(1) });
    tell(&journal, 1);
    assert_eq!(past.next_page().await, Page::Events(vec![event(2, 1)]));
}

#[tokio::test]
async fn a_page_that_nobody_waited_for_is_told_again() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    tell(&journal, 2);
    let mut past = journal.events(Sequence::NONE);
    tokio::select! {
        biased;
        _ = past.next_page() => {}
        () = std::future::ready(()) => {}
    }
    assert_eq!(sequences(&all(&journal, 1).await), [1, 2]);
    let Page::Events(events) = past.next_page().await else { panic!("nothing is told") };
    assert_eq!(sequences(&events), [1, 2]);
}

#[tokio::test]
async fn the_journal_stays_within_its_bound_and_a_reader_within_it_sees_no_hole() {
    let directory = tempfile::tempdir().unwrap();
    let codec = Padded(32 * 1024);
    let (journal, _) = FileJournal::open(&held(&directory), Box::new(codec)).unwrap();
    let total = (FULL_SEGMENTS_BYTES + 3 * SEGMENT_BYTES) / (32 * 1024);
    let mut past = journal.events(Sequence::NONE);
    let (mut told, mut holes, mut next) = (0, 0, 1);
    for given in 1..=total {
        tell(&journal, 1);
        if given % 16 == 0
            && let Page::Events(events) = past.next_page().await
        {
            for number in sequences(&events) {
                holes += number - next;
                next = number + 1;
                told += 1;
            }
        }
    }
    journal.flushed().await;

    assert_eq!(holes, 0, "after {told}");
    let size: u64 = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size <= FULL_SEGMENTS_BYTES + 2 * SEGMENT_BYTES, "{size} bytes");
    assert!(size >= FULL_SEGMENTS_BYTES / 2, "{size} bytes");
    let kept = sequences(&all(&journal, 1).await);
    assert!(kept[0] > 1, "nothing was removed");
    assert!(kept.iter().copied().eq(kept[0]..=total), "what is left has a hole");
}

#[tokio::test]
async fn a_journal_of_one_large_file_of_an_earlier_version_is_read_on() {
    let directory = tempfile::tempdir().unwrap();
    let lines: Vec<_> = (1..=400_000).map(|number| format!("event {number} 7\n")).collect();
    let text_before = lines.concat();
    assert!(text_before.len() as u64 > SEGMENT_BYTES);
    fs::write(events_of(&directory), text_before).unwrap();

    let (journal, resume) = open_in(&directory);
    assert_eq!(resume, numbers(400_000, 7));
    tell(&journal, 1);
    journal.flushed().await;

    assert_eq!(full_segments(&opened(&directory)).unwrap().len(), 1);
    assert_eq!(text(&directory), "event 400001 1\n");
    assert_eq!(sequences(&all(&journal, 399_999).await), [399_999, 400_000, 400_001]);
}

#[tokio::test]
async fn a_line_without_an_end_costs_no_memory_and_that_line_only() {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = b"event 1 1\n".to_vec();
    bytes.resize(bytes.len() + 16 * 1024 * 1024, b'x');
    bytes.extend(b"\nevent 2 1\n");
    fs::write(events_of(&directory), bytes).unwrap();
    let (journal, resume) = open_in(&directory);
    assert_eq!(resume, numbers(2, 1));
    assert_eq!(sequences(&all(&journal, 1).await), [1, 2]);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_a_hole_and_the_rest_is_told() {
    let directory = tempfile::tempdir().unwrap();
    segment(&directory, 2, b"event 1 1\nevent 2 1\n");
    // What is no file cannot be read, whoever asks.
    fs::create_dir(directory.path().join("events-00000000000000000004.jsonl")).unwrap();
    fs::write(events_of(&directory), "event 5 1\n").unwrap();
    let (journal, resume) = open_in(&directory);
    assert_eq!(resume.sequence, Sequence::new(5));
    assert_eq!(sequences(&all(&journal, 1).await), [1, 2, 5]);
}

/// As [`Words`], with lines of a certain length.
#[derive(Debug)]
struct Padded(usize);

impl JournalCodec for Padded {
    fn event(&self, event: &Event) -> String {
        let text = Words.event(event);
        format!("{text}\t{}", "x".repeat(self.0 - text.len() - 2))
    }

    fn record(&self, record: &Record) -> String {
        Words.record(record)
    }

    fn gap(&self, through: Option<Sequence>, at: SystemTime, missed: u64) -> String {
        Words.gap(through, at, missed)
    }

    fn numbers(&self, line: &str) -> Option<(Sequence, Incarnation)> {
        Words.numbers(line.split_once('\t')?.0)
    }

    fn read_event(&self, line: &str) -> Option<Event> {
        Words.read_event(line.split_once('\t')?.0)
    }

    fn read_record(&self, line: &str) -> Option<Record> {
        Words.read_record(line)
    }
}

/// Bytes, some of them lines of events.
fn rubbish() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        vec(any::<u8>(), 0..40),
        (0_u64..60, 0_u64..5).prop_map(|(number, of)| format!("event {number} {of}\n").into()),
        Just(b"\n".to_vec()),
        Just(b"event 18446744073709551615 1\n".to_vec()),
    ];
    vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

#[test]
fn whatever_the_files_hold_numbers_rise_are_never_given_twice_and_go_on() {
    let numbers = || prop_oneof![Just(None), rubbish().prop_map(Some)];
    for _ in rounds() {
        proptest!(ProptestConfig::with_cases(48), |(
            full in vec((60_u64..70, rubbish()), 0..4),
            active in rubbish(),
            numbers in numbers(),
        )| {
            goes_on_from(full, &active, numbers)?;
        });
    }
}

fn goes_on_from(
    full: Vec<(u64, Vec<u8>)>,
    active: &[u8],
    numbers: Option<Vec<u8>>,
) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    for (last, bytes) in full {
        segment(&directory, last, &bytes);
    }
    fs::write(events_of(&directory), active).unwrap();
    if let Some(bytes) = numbers {
        fs::write(directory.path().join("numbers"), bytes).unwrap();
    }
    let before = sequences(&read_all(&directory, 0, 1 << 40));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();

    let (journal, resume) = open_in(&directory);
    let first = tell(&journal, 2);
    prop_assert_eq!(first.get(), resume.sequence.get() + 2);
    let after = runtime.block_on(all(&journal, 0));
    drop(journal);

    let after = sequences(&after);
    prop_assert!(after.windows(2).all(|pair| pair[0] < pair[1]), "{after:?}");
    prop_assert!(after.ends_with(&[first.get() - 1, first.get()]), "{after:?}");
    prop_assert!(before.iter().all(|number| *number < first.get() - 1), "{before:?} {after:?}");
    Ok(())
}
