//! The history of ends that nobody asked for, over several supervisors.

use super::*;

#[tokio::test]
async fn the_history_spans_supervisors() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    journal.record(entry(1));
    assert_eq!(journal.history().await, [record(1)]);
    drop(journal);

    let (journal, _) = open_in(&directory);
    journal.record(entry(2));

    assert_eq!(journal.history().await, [record(1), record(2)]);
}

#[tokio::test]
async fn the_history_says_which_restarts_have_helped() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_in(&directory);
    // What became of the third has not been kept.
    for incarnation in [1, 2] {
        journal.record(entry(incarnation));
    }
    journal.record(Record::Recovery(recovery(2)));
    journal.record(entry(4));
    drop(journal);

    let (journal, _) = open_in(&directory);
    journal.record(entry(5));

    let recovered = |it: &Incident| it.recovered_after.map(|after| after.as_secs());
    let told: Vec<_> = journal.history().await.iter().map(recovered).collect();
    assert_eq!(told, [None, Some(8), None, None]);
}

#[tokio::test]
async fn of_a_long_history_the_latest_thousand_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let lines = |numbers: std::ops::RangeInclusive<u64>| {
        let lines: Vec<String> = numbers.map(|number| format!("restart {number}")).collect();
        lines.join("\n") + "\n"
    };
    fs::write(directory.path().join("restarts-old.jsonl"), lines(1..=900)).unwrap();
    fs::write(directory.path().join("restarts.jsonl"), lines(901..=1500)).unwrap();
    let (journal, _) = open_in(&directory);
    journal.record(entry(1501));
    let told: Vec<u64> = journal.history().await.iter().map(|it| it.incarnation.get()).collect();
    assert_eq!(told, (502..=1501).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_restart_after_a_torn_one_is_part_of_the_history() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("restarts.jsonl"), "restart 1\nresta").unwrap();

    let (journal, _) = open_in(&directory);
    journal.record(entry(2));

    assert_eq!(journal.history().await, [record(1), record(2)]);
}

#[tokio::test]
async fn bytes_that_are_no_text_do_not_hide_the_rest_of_the_history() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("restarts.jsonl"), b"restart 1\n\xff\n").unwrap();
    let (journal, _) = open_in(&directory);
    assert_eq!(journal.history().await, [record(1)]);
}
