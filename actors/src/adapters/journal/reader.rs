//! Reads the journal back, a page at a time, while it is written.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::files::open_to_read;
use super::lines::Lines;
use super::segments::{EVENTS, full_segments};
use super::{Home, JournalCodec, plausible};
use crate::adapters::directory::Directory;
use crate::domain::event::Event;

/// Most events of a page.
const PAGE_EVENTS: usize = 256;

/// Most bytes read for a page: one that finds nothing for long comes to an end too.
const PAGE_BYTES: u64 = 1024 * 1024;

/// How often a file that was renamed or removed under our hands is looked for again.
const ATTEMPTS: usize = 8;

/// What a page holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// These events, perhaps none; there may be more.
    Events(Vec<Event>),
    /// The end of what is written.
    End,
}

/// A place in the journal.
#[derive(Debug)]
pub(super) struct Reader {
    codec: Arc<dyn JournalCodec>,
    /// The next number wanted: what is below was told, or is not there.
    wanted: u64,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    lines: Lines,
    /// The last number by its name; `None` for the file that is written.
    last: Option<u64>,
    /// Numbers up to here stand for events of another history.
    foreign: u64,
}

impl Reader {
    pub(super) fn new(codec: Arc<dyn JournalCodec>, from: u64) -> Self {
        Self { codec, wanted: from.max(1), place: None }
    }

    /// The next number wanted.
    pub(super) fn wanted(&self) -> u64 {
        self.wanted
    }

    /// The next few events of the journal that is written `home`. Lines with a number above the last
    /// that is `given` are not ours. It is asked anew for each that is higher: more may be given, and
    /// written, while a page is read, and what is read is not read again.
    pub(super) fn next_page(&mut self, home: &Home, given: impl Fn() -> u64) -> io::Result<Found> {
        let place = match &mut self.place {
            Some(place) => place,
            empty @ None => match find(home, self.wanted)? {
                Some(place) => empty.insert(place),
                None => return Ok(Found::End),
            },
        };
        let mut events = Vec::new();
        let enough = place.lines.read() + PAGE_BYTES;
        while events.len() < PAGE_EVENTS && place.lines.read() < enough {
            let Some(line) = place.lines.next_line()? else {
                let at_the_end = events.is_empty() && self.is_written(&home.directory)?;
                return Ok(if at_the_end { Found::End } else { self.turn(events) });
            };
            let number = self.codec.numbers(&line).map(|(sequence, _)| sequence.get());
            let is_wanted =
                |number: u64| number >= self.wanted && number > place.foreign && number <= given();
            if let Some(number) = number.and_then(plausible).filter(|number| is_wanted(*number))
                && let Some(event) = self.codec.read_event(&line)
            {
                self.wanted = number + 1;
                events.push(event);
            }
        }
        Ok(Found::Events(events))
    }

    /// Whether the present file is the one that is written.
    fn is_written(&self, directory: &Directory) -> io::Result<bool> {
        let Some(Place { lines, last: None, .. }) = &self.place else { return Ok(false) };
        directory.is_named(EVENTS, lines.file())
    }

    /// Leaves a file that has no more, if it is not the one that is written.
    fn turn(&mut self, events: Vec<Event>) -> Found {
        match &self.place {
            Some(Place { last: Some(last), .. }) => {
                self.wanted = self.wanted.max(last + 1);
                self.place = None;
            }
            // It was renamed meanwhile, and is found by its new name if it is still wanted.
            Some(_) if events.is_empty() => self.place = None,
            Some(_) | None => {}
        }
        Found::Events(events)
    }

    /// Goes on behind a file that cannot be read; readers see what it held as missing.
    pub(super) fn skip(&mut self, home: &Home) {
        let next = full_segments(&home.directory).ok().and_then(|segments| {
            segments.into_iter().map(|(last, _)| last).find(|last| *last >= self.wanted)
        });
        self.wanted = next.map_or(self.wanted, |last| last + 1);
        self.place = None;
    }
}

/// The file with this number: the first full one that goes so far, else the one being written.
fn find(home: &Home, wanted: u64) -> io::Result<Option<Place>> {
    let (directory, foreign) = (&home.directory, home.foreign);
    for _ in 0..ATTEMPTS {
        let (name, last) = match full_with(directory, wanted)? {
            Some((last, name)) => (name, Some(last)),
            None => (EVENTS.to_owned(), None),
        };
        match open_to_read(directory, &name) {
            // A file that became full since holds what we want, and not the new one.
            Ok(_) if last.is_none() && full_with(directory, wanted)?.is_some() => {}
            Ok(file) => return Ok(Some(Place { lines: Lines::of(file), last, foreign })),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn full_with(directory: &Directory, wanted: u64) -> io::Result<Option<(u64, String)>> {
    Ok(full_segments(directory)?.into_iter().find(|(last, _)| *last >= wanted))
}
