//! What a program sees of all this: events in their order, and the present.

use super::*;
use crate::domain::id::Sequence;
use crate::ports::{Journal, Page};
use crate::process::ProcessMessage;

#[tokio::test(start_paused = true)]
async fn whoever_listens_hears_every_number() {
    let (mut harness, _) = running(ExitPolicy::Stop).await;
    let mut events = harness.subscribe();
    let known = harness.snapshot().sequence.get();
    harness.replace::<ProcessMessage>().await;
    harness.wait_for(Running).await;
    harness.kill();
    harness.wait_for_end().await;

    let mut numbers = Vec::new();
    while let Ok(event) = events.try_recv() {
        numbers.push(event.sequence.get());
    }

    let given = harness.snapshot().sequence.get();
    let expected: Vec<u64> = (known + 1..=given).collect();
    assert_eq!(numbers, expected);
    assert_eq!(harness.events().last().map(|event| event.sequence.get()), Some(given));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_numbered_after_the_last_event() {
    for on_exit in [ExitPolicy::Stop, ExitPolicy::Detach] {
        let (mut harness, process) = running(on_exit).await;
        process.get_stuck(&[7]);
        harness.kill();
        harness.wait_for_end().await;
        assert_eq!(harness.world.journal.orphaned().len(), 1);
        let last = harness.events().pop().expect("there are events");
        assert!(matches!(last.kind, EventKind::SupervisorEnded { .. }), "{last:?}");
        let mut past = Journal::events(&*harness.world.journal, last.sequence.next());
        let Page::End { through } = past.next_page().await else { panic!("there is more") };
        assert_eq!(through, last.sequence);
    }
}

/// Looks at the present with every event, from a thread of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_present_is_never_behind_the_events() {
    const LAUNCHES: u64 = 50;
    let harness = resting(ExitPolicy::Stop).await;
    let (mut events, present) = (harness.subscribe(), harness.follow());
    let (sender, behind) = std::sync::mpsc::channel::<(Sequence, Sequence)>();
    let watcher = std::thread::spawn(move || {
        loop {
            match events.try_recv() {
                Ok(event) => {
                    let known = present.borrow().sequence;
                    if known < event.sequence {
                        sender.send((known, event.sequence)).ok();
                    }
                    if event.incarnation.get() >= LAUNCHES {
                        return;
                    }
                }
                Err(tokio::sync::broadcast::error::TryRecvError::Closed) => return,
                Err(_) => std::thread::yield_now(),
            }
        }
    });
    harness.world.probe.serve();
    while !watcher.is_finished() {
        harness.ask(start).answer().await;
        harness.ask(stop_now).answer().await;
    }
    watcher.join().expect("it looks");
    assert_eq!(behind.try_iter().collect::<Vec<_>>(), []);
}
