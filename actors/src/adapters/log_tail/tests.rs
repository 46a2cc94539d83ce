//! Following logs, and keeping them within bounds, with real files.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::*;

/// Keeps the logs where nothing is to be masked.
fn keep(logs: &Directory, bounds: LogBounds, present: u64) -> io::Result<()> {
    keeper::keep(logs, bounds, present, &mut Masker::of(&[])?)
}

const MIB: u64 = 1024 * 1024;

fn open(path: &Path) -> Directory {
    Directory::open(path).unwrap()
}

fn log_at(path: &Path) -> LaunchLog {
    let name = file_name_of(path);
    LaunchLog { directory: Arc::new(open(path.parent().unwrap())), name }
}

fn followed(path: &Path) -> Followed {
    let lock = Arc::new(File::open("/dev/null").unwrap().into());
    let state = HeldDirectory::new(open(path.parent().unwrap()), &lock);
    Followed { state, name: file_name_of(path) }
}

fn file_name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn last_lines_of(path: &Path, count: usize) -> io::Result<Vec<String>> {
    log_at(path).last_lines(count)
}

fn cut(path: &Path, most: u64) -> io::Result<()> {
    cutting::cut(&open(path.parent().unwrap()), &file_name_of(path), most)
}

fn cut_without_holes(path: &Path, most: u64) -> io::Result<()> {
    cutting::cut_without_holes(&open(path.parent().unwrap()), &file_name_of(path), most)
}

fn appending(path: &Path) -> File {
    fs::OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn room(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// Numbered lines of 64 bytes.
fn flood(file: &mut File, lines: std::ops::Range<u64>) {
    let text: Vec<_> = lines.map(|number| format!("{number:<63}\n")).collect();
    file.write_all(text.concat().as_bytes()).unwrap();
}

fn has_line(path: &Path, number: u64) -> bool {
    lines_of(path).contains(&number)
}

fn lines_of(path: &Path) -> BTreeSet<u64> {
    let bytes = fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let whole = text.split('\n').filter(|line| line.len() == 63);
    whole.filter_map(|line| line.trim_end().parse().ok()).collect()
}

#[tokio::test]
async fn a_file_is_followed_from_before_it_exists() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut lines = FileLines::new(followed(&path));
    let mut file = fs::File::create(&path).unwrap();
    writeln!(file, "first").unwrap();
    assert_eq!(lines.next_lines().await, ["first"]);
    writeln!(file, "second").unwrap();
    assert_eq!(lines.next_lines().await, ["second"]);
}

#[tokio::test]
async fn a_long_log_is_read_from_a_bounded_distance_before_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut file = appending(&path);
    // Most of it was never written: a log of a gigabyte costs no more.
    file.set_len(1024 * MIB).unwrap();
    flood(&mut file, 0..10_000);

    let mut lines = FileLines::new(followed(&path));
    let first = lines.next_lines().await;

    let number: u64 = first[0].trim().parse().unwrap();
    assert!(number > 10_000 - LEAD_BYTES / 64 - 2, "{number}");
    let mut last = first;
    while last.last().unwrap().trim() != "9999" {
        last = lines.next_lines().await;
    }
}

#[tokio::test]
async fn nothing_is_read_on_while_lines_are_not_taken_and_a_flood_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut file = appending(&path);
    flood(&mut file, 0..1);
    let mut lines = FileLines::new(followed(&path));
    assert_eq!(lines.next_lines().await.len(), 1);
    flood(&mut file, 1..500_000);
    let mut batches = 0;
    loop {
        batches += 1;
        let batch = lines.next_lines().await;
        assert!(batch.len() <= CHUNK_BYTES / 64);
        if batch.last().unwrap().trim() == "499999" {
            break;
        }
    }
    assert!(batches < 100, "{batches} batches");
}

#[tokio::test]
async fn a_file_that_was_shortened_is_read_from_its_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut file = appending(&path);
    flood(&mut file, 0..3);
    let mut lines = FileLines::new(followed(&path));
    assert_eq!(lines.next_lines().await.len(), 3);
    file.set_len(0).unwrap();
    writeln!(file, "anew").unwrap();
    assert_eq!(lines.next_lines().await, ["anew"]);
}

#[tokio::test]
async fn a_line_of_a_hundred_megabytes_is_one_short_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut file = appending(&path);
    writeln!(file, "before").unwrap();
    let mut lines = FileLines::new(followed(&path));
    assert_eq!(lines.next_lines().await, ["before"]);
    for _ in 0..100 {
        file.write_all(&vec![b'x'; 1024 * 1024]).unwrap();
    }
    writeln!(file, "\nafter").unwrap();
    loop {
        let batch = lines.next_lines().await;
        assert!(batch.iter().all(|line| line.len() <= 16 * 1024));
        if batch.last().is_some_and(|line| line == "after") {
            break;
        }
    }
}

#[test]
fn a_reader_that_is_dropped_ends_its_thread() {
    let directory = tempfile::tempdir().unwrap();
    let reader = Reader::start(followed(&directory.path().join("log"))).unwrap();
    let Reader { lines: mut batches, _alive: alive } = reader;
    drop(alive);
    assert_eq!(batches.blocking_recv(), None);
}

#[test]
fn the_last_lines_are_those_before_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    fs::write(&path, "a\nb\n\nc\nd").unwrap();
    assert_eq!(last_lines_of(&path, 2).unwrap(), ["c", "d"]);
}

#[test]
fn a_log_within_its_bound_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    flood(&mut appending(&path), 0..10_000);
    let before = fs::read(&path).unwrap();
    cut(&path, MIB).unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_log_that_is_cut_keeps_its_beginning_and_its_end_and_says_what_is_missing() {
    for cut in [cut, cut_without_holes] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = appending(&path);
        flood(&mut file, 0..40_000);
        cut(&path, MIB).unwrap();
        flood(&mut file, 40_000..40_001);

        assert!(room(&path) <= MIB, "{} bytes", room(&path));
        assert!(has_line(&path, 1));
        assert!(!has_line(&path, 20_000));
        let kept = lines_of(&path);
        assert!((39_000..=40_000).all(|number| kept.contains(&number)));
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("bytes of this log were dropped here]").count(), 1);
        assert_eq!(last_lines_of(&path, 1).unwrap()[0].trim(), "40000");
    }
}

#[test]
fn a_flood_stays_within_the_bound_and_loses_nothing_of_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vllm-1.log");
    let mut file = appending(&path);
    let bounds = LogBounds { max_bytes: MIB, keep: 10 };
    for round in 0..20 {
        flood(&mut file, round * 10_000..(round + 1) * 10_000);
        keep(&open(directory.path()), bounds, 0).unwrap();
        assert!(room(&path) <= MIB, "{} bytes in round {round}", room(&path));
        assert!(has_line(&path, (round + 1) * 10_000 - 5000), "round {round}");
    }
    assert!(has_line(&path, 1));
}

#[test]
fn the_logs_of_the_latest_launches_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let log = |launch: u64| directory.path().join(format!("vllm-{launch}.log"));
    for launch in [1, 2, 9, 10, 11, 100] {
        fs::write(log(launch), "").unwrap();
    }
    fs::write(directory.path().join("notes"), "").unwrap();
    keep(&open(directory.path()), LogBounds { max_bytes: MIB, keep: 3 }, 100).unwrap();
    let kept: Vec<_> = [1, 2, 9, 10, 11, 100].into_iter().filter(|of| log(*of).exists()).collect();
    assert_eq!(kept, [10, 11, 100]);
    assert!(directory.path().join("notes").exists());
}

#[test]
fn the_log_of_the_present_launch_is_kept_though_numbers_have_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let log = |launch: u64| directory.path().join(format!("vllm-{launch}.log"));
    let kept = || [1, 2, 8, 9].into_iter().filter(|of| log(*of).exists()).collect::<Vec<u64>>();
    let bounds = LogBounds { max_bytes: MIB, keep: 2 };
    for launch in [1, 2, 8, 9] {
        fs::write(log(launch), "").unwrap();
    }
    keep(&open(directory.path()), bounds, 0).unwrap();
    assert_eq!(kept(), [1, 2, 8, 9], "nobody knows yet which is the present one");
    // The log of the next launch may be there before anybody asks for it.
    keep(&open(directory.path()), bounds, 1).unwrap();
    assert_eq!(kept(), [1, 2]);
}

#[test]
fn a_log_that_a_launch_writes_is_kept_whatever_numbers_others_have() {
    let directory = tempfile::tempdir().unwrap();
    let log = |launch: u64| directory.path().join(format!("vllm-{launch}.log"));
    let bounds = LogBounds { max_bytes: MIB, keep: 1 };
    // The first was adopted; the second has a number that was given before.
    for (written, present) in [(5, 5), (7, 5)] {
        for launch in [4, 5, 6, 7, 8] {
            fs::write(log(launch), "old").unwrap();
        }
        let output = log_at(&log(written)).begin().unwrap();
        // As a process of the launch has it.
        let inherited = output.try_clone().unwrap();
        drop(output);
        keep(&open(directory.path()), bounds, present).unwrap();
        assert!(log(written).exists(), "{written} is written");
        assert!(log(present).exists(), "{present} is the present one");

        drop(inherited);

        fs::write(log(9), "").unwrap();
        until("it goes when nobody writes it any more and another is present", || {
            keep(&open(directory.path()), bounds, 9).unwrap();
            !log(written).exists()
        });
    }
}

/// Another test's child may hold a descriptor between its fork and its exec.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_log_that_is_begun_while_an_old_one_with_its_name_goes_is_the_one_that_has_the_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vllm-2.log");
    fs::write(&path, "old").unwrap();
    let old = fs::File::open(&path).unwrap();
    assert!(writing::take(&old).unwrap());
    let log = log_at(&path);
    let begun = std::thread::spawn(move || log.begin().unwrap());

    fs::remove_file(&path).unwrap();
    drop(old);

    let begun = begun.join().unwrap();
    assert!(open(directory.path()).is_named("vllm-2.log", &begun).unwrap());
    assert_eq!(begun.metadata().unwrap().len(), 0);
}

#[test]
fn a_log_that_had_to_be_opened_again_is_read_on_from_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut file = appending(&path);
    writeln!(file, "first").unwrap();
    let mut log = Log::new(followed(&path));
    assert_eq!(log.read().unwrap(), ["first"]);
    // As a read that fails leaves it.
    log.file = None;
    writeln!(file, "second").unwrap();
    assert_eq!(log.read().unwrap(), ["second"]);
}

#[test]
fn a_link_among_the_logs_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = directory.path().join("elsewhere");
    flood(&mut appending(&elsewhere), 0..40_000);
    std::os::unix::fs::symlink(&elsewhere, directory.path().join("vllm-1.log")).unwrap();
    assert!(keep(&open(directory.path()), LogBounds { max_bytes: MIB, keep: 10 }, 0).is_err());
    assert!(has_line(&elsewhere, 20_000));
}

/// Whoever follows asks before the launch is claimed, and with the claim the directory is restored.
#[tokio::test]
async fn a_log_is_followed_though_its_directory_is_replaced_before_it_is_begun() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let state = Arc::new(StateDirectory::open(&path).unwrap());
    let bounds = LogBounds { max_bytes: 64 * MIB, keep: 2 };
    let files = LogFiles::new(Arc::clone(&state), bounds, &[]).unwrap();
    fs::remove_dir_all(&path).unwrap();
    let mut lines = files.lines(Incarnation::new(2));

    state.restore().unwrap();
    let mut log = LaunchLog::of(&state, Incarnation::new(2)).begin().unwrap();
    writeln!(log, "loading").unwrap();

    let read = tokio::time::timeout(Duration::from_secs(5), lines.next_lines()).await;
    assert_eq!(read.expect("nobody reads it"), ["loading"]);
}

/// A lock that somebody else has taken must not hold up a launch.
#[test]
fn a_log_that_somebody_has_locked_holds_up_no_launch() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let somebody = appending(&path);
    rustix::fs::flock(&somebody, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (begun, has_begun) = channel();
    let log = log_at(&path);
    let thread = std::thread::spawn(move || {
        let log = log.begin();
        begun.send(()).unwrap();
        drop(log);
    });
    let in_time = has_begun.recv_timeout(Duration::from_secs(5));
    drop(somebody);
    thread.join().unwrap();
    assert!(in_time.is_ok(), "it waits for as long as the lock is held");
}
