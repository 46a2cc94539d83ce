//! A journal that forgets with the test.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::event::Event;
use crate::domain::id::Sequence;
use crate::domain::incident::{History, Incident, Record};
use crate::ports::{Journal, OrphanLog, Orphaned, Page, PastEvents, Pending};

/// A [`Journal`] in memory. It numbers from 1.
#[derive(Debug, Default)]
pub struct MemoryJournal(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    events: Vec<Event>,
    records: Vec<Record>,
    ends: Vec<Orphaned>,
    /// The last number given.
    given: Sequence,
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
    /// A journal that earlier supervisors have written these incidents into, oldest first.
    pub fn with_history(incidents: Vec<Incident>) -> Self {
        let records = incidents.into_iter().map(|it| Record::Incident(Box::new(it))).collect();
        Self(Arc::new(Mutex::new(Pages { records, ..Pages::default() })))
    }

    /// Whoever hands it the next event panics.
    pub fn panic_next(&self) {
        self.pages().writing = Writing::Panics;
    }

    /// The events so far.
    pub fn events(&self) -> Vec<Event> {
        self.pages().events.clone()
    }

    /// The incidents so far, those of earlier supervisors first.
    pub fn incidents(&self) -> Vec<Incident> {
        let mut history = History::of_at_most(usize::MAX);
        self.pages().records.iter().cloned().for_each(|record| history.add(record));
        history.into_incidents()
    }

    /// The processes whose owner ended, so far.
    pub fn orphaned(&self) -> Vec<Orphaned> {
        self.pages().ends.clone()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        locked(&self.0)
    }
}

fn locked(pages: &Mutex<Pages>) -> MutexGuard<'_, Pages> {
    pages.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal for MemoryJournal {
    fn event(&self, event: Event) -> Arc<Event> {
        let writing = std::mem::take(&mut self.pages().writing);
        assert_eq!(writing, Writing::Works, "the event was scripted to panic");
        let mut pages = self.pages();
        pages.given = pages.given.next();
        let event = Event { sequence: pages.given, ..event };
        pages.events.push(event.clone());
        Arc::new(event)
    }

    fn record(&self, record: Record) {
        self.pages().records.push(record);
    }

    fn orphaned(&self, ended: &Orphaned) -> Arc<Event> {
        self.pages().ends.push(ended.clone());
        self.event(ended.event())
    }

    fn events(&self, from: Sequence) -> Box<dyn PastEvents> {
        Box::new(Reader { pages: Arc::clone(&self.0), from })
    }

    fn history(&self) -> Pending<'_, Vec<Incident>> {
        Box::pin(async { self.incidents() })
    }

    fn flushed(&self) -> Pending<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn closed(&self) -> Pending<'static, ()> {
        self.flushed()
    }
}

impl OrphanLog for MemoryJournal {
    fn orphaned(&self, ended: &Orphaned) {
        drop(Journal::orphaned(self, ended));
    }
}

struct Reader {
    pages: Arc<Mutex<Pages>>,
    /// The next number wanted.
    from: Sequence,
}

impl PastEvents for Reader {
    fn next_page(&mut self) -> Pending<'_, Page> {
        let pages = locked(&self.pages);
        let wanted = pages.events.iter().filter(|event| event.sequence >= self.from);
        let events: Vec<Event> = wanted.cloned().collect();
        let page = match events.last() {
            Some(last) => {
                self.from = last.sequence.next();
                Page::Events(events)
            }
            None => Page::End { through: pages.given },
        };
        Box::pin(std::future::ready(page))
    }
}
