//! Whatever stands in a journal.

use proptest::collection::vec;
use proptest::prelude::*;
use vllm_supervisor_actors::testing::rounds;

use super::*;

/// What becomes of a line, at a place in it.
#[derive(Clone, Debug)]
enum Change {
    Insert(usize, String),
    Remove(usize, usize),
    Repeat(usize, usize),
}

impl Change {
    fn of(self, line: &str) -> String {
        let chars: Vec<char> = line.chars().collect();
        let span = |from: usize, length: usize| {
            let from = from % (chars.len() + 1);
            (from, (from + length).min(chars.len()))
        };
        let changed: Vec<char> = match self {
            Self::Insert(at, text) => {
                let (at, _) = span(at, 0);
                [&chars[..at], &text.chars().collect::<Vec<_>>(), &chars[at..]].concat()
            }
            Self::Remove(from, length) => {
                let (from, to) = span(from, length);
                [&chars[..from], &chars[to..]].concat()
            }
            Self::Repeat(from, length) => {
                let (from, to) = span(from, length);
                [&chars[..to], &chars[from..]].concat()
            }
        };
        changed.into_iter().collect()
    }
}

fn change() -> impl Strategy<Value = Change> {
    let pieces =
        ["null", "-1", "1e999", "18446744073709551616", "\"\"", "[]", "{}", ",", "\\u0000"];
    let piece = prop_oneof![
        prop::sample::select(pieces.to_vec()).prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
        (0..300_usize).prop_map(|depth| "[".repeat(depth)),
    ];
    prop_oneof![
        (any::<usize>(), piece).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (any::<usize>(), 0..40_usize).prop_map(|(from, length)| Change::Remove(from, length)),
        (any::<usize>(), 0..40_usize).prop_map(|(from, length)| Change::Repeat(from, length)),
    ]
}

/// What is read of it is read alike once it is written anew.
fn assert_stable(line: &str) -> Result<(), TestCaseError> {
    JsonLines.numbers(line);
    let again = |line: &str| JsonLines.read_event(line).map(|it| JsonLines.event(&it));
    if let Some(written) = again(line) {
        prop_assert_eq!(again(&written), Some(written), "{}", line);
    }
    let again = |line: &str| JsonLines.read_record(line).map(|it| JsonLines.record(&it));
    if let Some(written) = again(line) {
        prop_assert_eq!(again(&written), Some(written), "{}", line);
    }
    Ok(())
}

#[test]
fn whatever_has_become_of_a_line_is_read_as_something_that_can_be_written_or_not_at_all() {
    let lines = every_line();
    for _ in rounds() {
        proptest!(|(
            line in prop::sample::select(lines.clone()),
            changes in vec(change(), 0..4),
            rubbish in ".*",
        )| {
            let changed = changes.into_iter().fold(line, |line, change| change.of(&line));
            assert_stable(&changed)?;
            assert_stable(&rubbish)?;
        });
    }
}
