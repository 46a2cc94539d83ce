//! Past and present joined, with a past that the test writes.

use std::collections::VecDeque;

use tokio::sync::broadcast;
use vllm_supervisor_actors::domain::id::Incarnation;
use vllm_supervisor_actors::ports::{Page, Pending};

use super::*;

/// Pages, then the same end for ever.
struct Pages {
    pages: VecDeque<Page>,
    through: u64,
}

impl PastEvents for Pages {
    fn next_page(&mut self) -> Pending<'_, Page> {
        let end = Page::End { through: Sequence::new(self.through) };
        Box::pin(std::future::ready(self.pages.pop_front().unwrap_or(end)))
    }
}

fn pages(pages: impl IntoIterator<Item = Page>, through: u64) -> Box<dyn PastEvents> {
    Box::new(Pages { pages: pages.into_iter().collect(), through })
}

fn page(numbers: &[u64]) -> Page {
    Page::Events(numbers.iter().map(|number| event(*number)).collect())
}

fn end(through: u64) -> Page {
    Page::End { through: Sequence::new(through) }
}

fn event(number: u64) -> Event {
    let kind = EventKind::HealthChanged { healthy: true, consecutive_failures: 0, latency: None };
    Event::new(Sequence::new(number), SystemTime::UNIX_EPOCH, Incarnation::NONE, kind)
}

fn live(backlog: usize) -> (broadcast::Sender<Arc<Event>>, Receiver<Arc<Event>>) {
    let sender = broadcast::Sender::new(backlog);
    let receiver = sender.subscribe();
    (sender, receiver)
}

fn send(sender: &broadcast::Sender<Arc<Event>>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        sender.send(Arc::new(event(number))).unwrap();
    }
}

/// Numbers of events; a gap is how many, negative.
async fn told(stream: &mut EventStream, count: usize) -> Vec<i64> {
    let mut told = Vec::new();
    while told.len() < count {
        told.push(match stream.next().await {
            Some(Notice::Event(event)) => event.sequence.get().cast_signed(),
            Some(Notice::Gap { missed }) => -missed.cast_signed(),
            None => break,
        });
    }
    told
}

#[tokio::test]
async fn past_and_present_are_joined_without_a_gap_or_a_double() {
    let (sender, receiver) = live(16);
    let past = pages([page(&[1, 2]), page(&[]), page(&[3, 4])], 4);
    // Published while the past was read, and partly in it.
    send(&sender, 3..=6);
    let mut stream = EventStream::from(Sequence::NONE, past, Some(receiver));
    assert_eq!(told(&mut stream, 6).await, [1, 2, 3, 4, 5, 6]);
    send(&sender, [7]);
    assert_eq!(told(&mut stream, 1).await, [7]);
    drop(sender);
    assert_eq!(stream.next().await, None);
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn it_begins_at_the_number_that_was_asked_for() {
    let (sender, receiver) = live(16);
    let mut stream = EventStream::from(Sequence::new(3), pages([page(&[3, 4])], 4), Some(receiver));
    send(&sender, [5]);
    assert_eq!(told(&mut stream, 3).await, [3, 4, 5]);
}

#[tokio::test]
async fn what_the_journal_does_not_have_is_a_gap_wherever_it_is_missing() {
    let (_sender, receiver) = live(16);
    let past = pages([page(&[4, 5]), page(&[8])], 10);
    let mut stream = EventStream::from(Sequence::NONE, past, Some(receiver));
    assert_eq!(told(&mut stream, 6).await, [-3, 4, 5, -2, 8, -2]);
}

#[tokio::test]
async fn a_hole_between_journal_and_present_is_a_gap() {
    let (sender, receiver) = live(16);
    send(&sender, [5]);
    let past = pages([page(&[1, 2])], 4);
    let mut stream = EventStream::from(Sequence::NONE, past, Some(receiver));
    assert_eq!(told(&mut stream, 4).await, [1, 2, -2, 5]);
}

#[tokio::test]
async fn a_subscriber_that_fell_behind_is_caught_up_from_the_journal() {
    let (sender, receiver) = live(2);
    let past = pages([page(&[1]), end(1), page(&[2, 3, 4, 5, 6, 7])], 7);
    let mut stream = EventStream::from(Sequence::NONE, past, Some(receiver));
    assert_eq!(told(&mut stream, 1).await, [1]);
    send(&sender, 2..=7);
    assert_eq!(told(&mut stream, 6).await, [2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn what_was_never_live_is_told_when_the_numbers_show_it() {
    let (sender, receiver) = live(16);
    let past = pages([end(0), page(&[1, 2])], 2);
    let mut stream = EventStream::from(Sequence::NONE, past, Some(receiver));
    send(&sender, [2]);
    assert_eq!(told(&mut stream, 2).await, [1, 2]);
}

#[tokio::test]
async fn what_is_kept_on_the_way_down_is_told_before_the_end() {
    let (sender, receiver) = live(16);
    let past = pages([end(0), page(&[1, 2])], 2);
    let mut stream = EventStream::from(Sequence::NONE, past, Some(receiver));
    send(&sender, [1]);
    drop(sender);
    assert_eq!(told(&mut stream, 9).await, [1, 2]);
}

#[tokio::test]
async fn a_number_of_another_journal_does_not_wait_for_ever() {
    let (sender, receiver) = live(16);
    let mut stream = EventStream::from(Sequence::new(900), pages([], 2), Some(receiver));
    send(&sender, [3]);
    assert_eq!(told(&mut stream, 1).await, [3]);
}

#[tokio::test]
async fn an_ended_supervisor_still_has_a_past() {
    let mut stream = EventStream::from(Sequence::NONE, pages([page(&[1, 2])], 2), None);
    assert_eq!(told(&mut stream, 9).await, [1, 2]);
}

#[tokio::test]
async fn without_a_past_a_subscriber_that_fell_behind_is_told_how_far() {
    let (sender, receiver) = live(2);
    let mut stream = EventStream::live(Some(receiver));
    send(&sender, [11]);
    assert_eq!(told(&mut stream, 1).await, [11]);
    send(&sender, 12..=20);
    assert_eq!(told(&mut stream, 3).await, [-7, 19, 20]);
}

#[tokio::test]
async fn a_subscriber_that_fell_behind_before_its_first_event_is_told_how_far() {
    let (sender, receiver) = live(2);
    let mut stream = EventStream::live(Some(receiver));
    send(&sender, 1..=5);
    assert_eq!(told(&mut stream, 3).await, [-3, 4, 5]);
}
