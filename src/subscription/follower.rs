//! Joins the past to the present: the journal's events, then the live ones, by their numbers.
//!
//! Whatever is out of order is put right here. A number below the next one has been told; a number
//! above it is a hole, which the journal fills as far as it can, and a gap tells the rest of.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use vllm_supervisor_actors::domain::event::Event;
use vllm_supervisor_actors::domain::id::Sequence;
use vllm_supervisor_actors::ports::{Page, PastEvents};

use super::Notice;

/// See the module.
pub(super) struct Follower {
    /// `None` after the supervisor has ended.
    live: Option<Receiver<Arc<Event>>>,
    /// `None` for a subscriber who wants no past.
    past: Option<Box<dyn PastEvents>>,
    /// Whether the past is to be read on.
    reading: Reading,
    /// The next number; `None` before the first of a subscriber who wants no past.
    expected: Option<u64>,
    /// Read and not told yet.
    told_next: VecDeque<Arc<Event>>,
    /// A live event that waits for the past before it.
    held: Option<Arc<Event>>,
}

/// Whether the past is to be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// There may be something that has not been told.
    Past,
    /// The present is enough.
    Live,
}

impl Follower {
    pub(super) fn live(live: Option<Receiver<Arc<Event>>>) -> Self {
        let (told_next, held) = (VecDeque::new(), None);
        Self { live, past: None, reading: Reading::Live, expected: None, told_next, held }
    }

    pub(super) fn from(
        from: Sequence,
        past: Box<dyn PastEvents>,
        live: Option<Receiver<Arc<Event>>>,
    ) -> Self {
        let expected = Some(from.get().max(1));
        Self { past: Some(past), reading: Reading::Past, expected, ..Self::live(live) }
    }

    /// The next notice, and the follower back; no notice is the end.
    pub(super) async fn next(mut self) -> (Option<Notice>, Self) {
        loop {
            if let Some(notice) = self.tell() {
                return (Some(notice), self);
            }
            let notice = match (self.reading, &mut self.past) {
                (Reading::Past, Some(past)) => match past.next_page().await {
                    Page::Events(events) => {
                        self.told_next.extend(events.into_iter().map(Arc::new));
                        None
                    }
                    Page::End { through } => self.join(through.get()),
                },
                (Reading::Live | Reading::Past, _) => match &mut self.live {
                    Some(live) => {
                        let received = live.recv().await;
                        self.receive(received)
                    }
                    None => return (None, self),
                },
            };
            if notice.is_some() {
                return (notice, self);
            }
        }
    }

    /// What is next of what has been read.
    fn tell(&mut self) -> Option<Notice> {
        while let Some(event) = self.told_next.pop_front() {
            let number = event.sequence.get();
            let expected = self.expected.unwrap_or(number);
            if number > expected {
                self.expected = Some(number);
                self.told_next.push_front(event);
                return Some(Notice::Gap { missed: number - expected });
            }
            if number == expected {
                self.expected = Some(number + 1);
                return Some(Notice::Event(event));
            }
        }
        None
    }

    /// The past has no more, up to a number: goes over to what is live.
    fn join(&mut self, through: u64) -> Option<Notice> {
        self.reading = Reading::Live;
        // A number that was not given yet, as by a reader of another journal, would wait for ever.
        self.expected = self.expected.map(|expected| expected.min(through + 1));
        if let Some(held) = self.held.take() {
            self.told_next.push_back(held);
            return None;
        }
        match self.live.as_mut().map(Receiver::try_recv) {
            Some(Ok(event)) => self.receive(Ok(event)),
            Some(Err(TryRecvError::Lagged(missed))) => self.receive(Err(RecvError::Lagged(missed))),
            // Nothing will come that could tell of a hole at the end.
            Some(Err(TryRecvError::Empty)) => self.close_up(through),
            Some(Err(TryRecvError::Closed)) | None => {
                self.live = None;
                self.close_up(through)
            }
        }
    }

    fn close_up(&mut self, through: u64) -> Option<Notice> {
        let missed = (through + 1).checked_sub(self.expected?)?;
        self.expected = Some(through + 1);
        (missed > 0).then_some(Notice::Gap { missed })
    }

    fn receive(&mut self, received: Result<Arc<Event>, RecvError>) -> Option<Notice> {
        match received {
            Ok(event) => {
                let ahead = self.expected.is_some_and(|expected| event.sequence.get() > expected);
                if ahead && self.past.is_some() {
                    self.held = Some(event);
                    self.reading = Reading::Past;
                } else {
                    self.told_next.push_back(event);
                }
            }
            Err(RecvError::Lagged(_)) if self.past.is_some() => self.reading = Reading::Past,
            // Before the first event no number tells how many.
            Err(RecvError::Lagged(missed)) if self.expected.is_none() => {
                return Some(Notice::Gap { missed });
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => {
                self.live = None;
                // What was kept on the way down.
                self.reading = Reading::Past;
            }
        }
        None
    }
}
