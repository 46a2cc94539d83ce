//! A journal that forgets with the test.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::event::Event;
use crate::domain::input::RestartRecord;
use crate::ports::{CustodyEnded, Journal, Pending};

/// A [`Journal`] in memory.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    events: Vec<Event>,
    restarts: Vec<RestartRecord>,
    ends: Vec<CustodyEnded>,
    writing: Writing,
}

/// What comes of writing down an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Writing {
    #[default]
    Works,
    Panics,
}

impl MemoryJournal {
    /// A journal that earlier supervisors have written these restarts into, oldest first.
    pub fn with_history(restarts: Vec<RestartRecord>) -> Self {
        Self(Mutex::new(Pages { restarts, ..Pages::default() }))
    }

    /// Whoever hands it the next event panics.
    pub fn panic_next(&self) {
        self.pages().writing = Writing::Panics;
    }

    /// The events so far.
    pub fn events(&self) -> Vec<Event> {
        self.pages().events.clone()
    }

    /// The restarts so far, those of earlier supervisors first.
    pub fn restarts(&self) -> Vec<RestartRecord> {
        self.pages().restarts.clone()
    }

    /// The processes whose owner ended, so far.
    pub fn ends_of_custody(&self) -> Vec<CustodyEnded> {
        self.pages().ends.clone()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for MemoryJournal {
    fn event(&self, event: &Event) {
        let writing = std::mem::take(&mut self.pages().writing);
        assert_eq!(writing, Writing::Works, "the event was scripted to panic");
        self.pages().events.push(event.clone());
    }

    fn restart(&self, record: &RestartRecord) {
        self.pages().restarts.push(record.clone());
    }

    fn custody_ended(&self, ended: &CustodyEnded) {
        self.pages().ends.push(ended.clone());
    }

    fn history(&self) -> Pending<'_, Vec<RestartRecord>> {
        Box::pin(async { self.restarts() })
    }

    fn flushed(&self) -> Pending<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}
