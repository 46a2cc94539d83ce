//! Disks that are full, or take a part of what they are given.

use std::collections::VecDeque;

use super::super::lane::{Holds, Lane, LastLine, Sink};
use super::super::segments::{SEGMENT_BYTES, Segment};
use super::*;

/// A disk that takes as many bytes as it is told to, then is full.
#[derive(Default)]
struct Disk {
    bytes: Vec<u8>,
    room: usize,
    /// What single writes take, before they take everything.
    pieces: VecDeque<usize>,
}

impl Sink for &mut Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = self.pieces.pop_front().unwrap_or(usize::MAX);
        let length = bytes.len().min(self.room).min(piece);
        if length == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room -= length;
        self.bytes.extend(&bytes[..length]);
        Ok(length)
    }

    fn make_ready(&mut self, _: u64) -> io::Result<Option<LastLine>> {
        Ok(None)
    }
}

impl Disk {
    fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).unwrap()
    }
}

fn lane(disk: &mut Disk) -> Lane<&mut Disk> {
    Lane::new(disk, Arc::new(Words), Holds::Events, 0, LastLine::Whole)
}

fn push(lane: &mut Lane<&mut Disk>, number: u64) {
    lane.push(number, Words.event(&event(number, 1)));
}

#[test]
fn what_a_full_disk_does_not_take_is_written_when_there_is_room_whole_and_once() {
    // Full at every byte of three lines, in turn.
    for room in 0..30 {
        let mut disk = Disk { room, ..Disk::default() };
        let mut lane_to = lane(&mut disk);
        for number in 1..=3 {
            push(&mut lane_to, number);
            drop(lane_to.drain());
        }
        assert_eq!(lane_to.waiting() == 0, room == 30);
        let (waiting, written) = (lane_to.waiting(), 3 - lane_to.waiting());
        disk.room = usize::MAX;
        let mut lane_to =
            Lane::new(&mut disk, Arc::new(Words), Holds::Events, written as u64, LastLine::Torn);
        for number in written + 1..=3 {
            push(&mut lane_to, number as u64);
        }
        lane_to.drain().unwrap();

        let text = disk.text();
        let kept = text.lines().filter_map(|line| Words.read_event(line));
        let mut numbers: Vec<_> = kept.map(|event| event.sequence.get()).collect();
        numbers.dedup();
        assert_eq!(numbers, [1, 2, 3], "{waiting} waited in {text}");
    }
}

#[test]
fn a_line_torn_by_a_full_disk_is_followed_by_a_fresh_one() {
    let mut disk = Disk { room: 13, pieces: [4, 100].into(), ..Disk::default() };
    let mut lane = lane(&mut disk);
    push(&mut lane, 1);
    push(&mut lane, 2);
    assert!(lane.drain().is_err());
    assert!(lane.drain().is_err());
    assert_eq!(lane.waiting(), 1);
    assert_eq!(disk.text(), "event 1 1\neve");
}

#[test]
fn what_a_disk_that_stays_full_loses_is_counted_and_marked_when_there_is_room() {
    let mut disk = Disk::default();
    let mut lane_to = lane(&mut disk);
    let long = "x".repeat(1024 * 1024);
    for number in 1..=10 {
        lane_to.push(number, format!("event {number} 1 {long}"));
        assert!(lane_to.drain().is_err());
    }
    let waiting = lane_to.waiting();
    assert!(waiting < 5, "{waiting} MiB wait");

    let mut disk = Disk { room: usize::MAX, ..Disk::default() };
    let mut lane = lane(&mut disk);
    let lost = 10 - waiting as u64;
    for number in lost + 1..=10 {
        push(&mut lane, number);
    }
    lane.drain().unwrap();

    assert!(disk.text().starts_with(&format!("gap {lost} {lost}\nevent {} 1\n", lost + 1)));
}

#[test]
fn an_interrupted_or_partial_write_is_gone_on_with() {
    let mut disk = Disk { room: usize::MAX, pieces: [1, 2, 3, 1].into(), ..Disk::default() };
    let mut lane = lane(&mut disk);
    push(&mut lane, 1);
    push(&mut lane, 2);
    lane.drain().unwrap();
    assert_eq!(disk.text(), "event 1 1\nevent 2 1\n");
}

#[test]
fn restarts_that_are_lost_are_counted_without_a_public_number() {
    let mut disk = Disk { room: usize::MAX, ..Disk::default() };
    let mut lane = Lane::new(&mut disk, Arc::new(Words), Holds::Restarts, 0, LastLine::Whole);
    lane.push(3, "restart 9".to_owned());
    lane.drain().unwrap();
    assert_eq!(disk.text(), "gap 2 \nrestart 9\n");
}

#[test]
fn a_file_that_cannot_give_way_to_a_new_one_grows_to_twice_its_size_and_no_further() {
    let directory = tempfile::tempdir().unwrap();
    let mut segment = Segment::of_events(&Arc::new(opened(&directory))).unwrap();
    let in_the_way = directory.path().join("events.new");
    fs::create_dir(&in_the_way).unwrap();
    let piece = vec![b'x'; 1024 * 1024];
    let mut written = 0;
    while segment.make_ready(1).is_ok() {
        written += segment.write(&piece).unwrap() as u64;
        assert!(written <= 2 * SEGMENT_BYTES + piece.len() as u64);
    }
    assert!(written >= 2 * SEGMENT_BYTES);

    fs::remove_dir(in_the_way).unwrap();

    segment.make_ready(1).unwrap();
    assert_eq!(fs::metadata(directory.path().join("events.jsonl")).unwrap().len(), 0);
}
