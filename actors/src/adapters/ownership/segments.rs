//! The shared memory of a launch.
//!
//! A process that is killed leaves its segments in `/dev/shm`, and they hold memory until somebody
//! removes them. Whose they are can only be seen while somebody has them mapped or open. What else
//! lies there is somebody's data: only a file that lies in `/dev/shm` itself and was not there
//! before the launch can be one of its segments.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::sync::Arc;

use rustix::fs::CWD;
use rustix::io::Errno;
use tokio::time::{Duration, Instant};

use super::births::{Births, Change};
use super::older::{Entry, FileId, Listing, Older, SharedFile, Timestamp};
use crate::adapters::proc_fs;
use crate::domain::absence::{Leftover, ScanError};

mod users;

use users::{id_of, mapped_file, spare_what_others_use};

const PLACE: &str = "/dev/shm";

/// How often whose a new segment is is asked before that waits for the next reading of all maps:
/// whoever makes one has it open a few microseconds later, or never.
const QUESTIONS: u32 = 9;

/// The most names of others that are remembered.
const MOST_UNCLAIMED: usize = 1024;

/// To be woken takes a while, too.
const SHORTEST_REST: Duration = Duration::from_millis(1);

/// How many are remembered before it is looked which of them are gone, where nobody tells of that.
const MOST_SEEN: usize = 1024;

/// A segment that a member was seen to have mapped or open.
#[derive(Debug)]
struct Seen {
    id: FileId,
    /// When such a member began, if that matters: the first of them.
    holder: Option<Timestamp>,
}

/// The segments that members of one launch were seen to have mapped or open.
#[derive(Debug, Default)]
pub(in crate::adapters) struct Segments {
    older: Older,
    /// By their names.
    seen: BTreeMap<String, Seen>,
    births: Option<Arc<Births>>,
    /// What has appeared since, and was seen with nobody of the launch so far.
    unclaimed: BTreeSet<String>,
    /// How often whose they are was asked since the last one appeared.
    asked: u32,
    /// When that is to be asked again.
    due: Option<Instant>,
    /// Looking takes a tenth of the time at most, however much appears: it rests until then.
    not_before: Option<Instant>,
    /// Whether there is something that nobody has asked for since.
    news: News,
}

/// What is known of the launch's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum News {
    #[default]
    Told,
    Untold,
}

impl Segments {
    /// None yet; what is there now is not of the launch.
    pub(in crate::adapters) fn before_launch() -> Result<Self, ScanError> {
        // First, so that nothing appears between the two.
        let heard = Self::heard();
        Ok(Self { older: Older::Listed(Listing::of(all()?.into_iter())), ..heard })
    }

    /// Those of a launch that another supervisor has started, whose main process has this pid and
    /// start time.
    pub(in crate::adapters) fn of_another(main: Option<(u32, u64)>) -> Self {
        let start = main.map(|(_, start_time)| Timestamp::of_start(start_time));
        Self { older: start.map_or(Older::Unknown, Older::BornBefore), ..Self::heard() }
    }

    /// What is older than its claim is not of the launch, though its main process be older still.
    pub(super) fn claimed_at(&mut self, start_time: u64) {
        if let Older::BornBefore(start) = &mut self.older {
            *start = (*start).max(Timestamp::of_start(start_time));
        }
    }

    fn heard() -> Self {
        let births = Births::of(PLACE).inspect_err(|error| {
            tracing::debug!(%error, "shared memory is looked for, and not heard of");
        });
        Self { births: births.ok().map(Arc::new), ..Self::default() }
    }

    /// What was there before the launch.
    pub(in crate::adapters) fn older(&self) -> &Older {
        &self.older
    }

    /// What tells when something appears, and when it is to be asked whose the new ones are.
    pub(super) fn births(&self) -> (Option<Arc<Births>>, Option<Instant>) {
        match self.not_before.filter(|rest| *rest > Instant::now()) {
            // The kernel keeps what appears meanwhile.
            Some(rest) => (None, self.births.as_ref().map(|_| rest).or(self.due)),
            None => (self.births.clone(), self.due),
        }
    }

    fn rest_after(&mut self, began: Instant) {
        let rest = (began.elapsed() * 9).max(SHORTEST_REST);
        self.not_before = self.not_before.max(Some(Instant::now() + rest));
    }

    /// The files that are known to be of the launch, if that has changed since it was asked.
    pub(super) fn news(&mut self) -> Option<Vec<FileId>> {
        let news = std::mem::replace(&mut self.news, News::Told);
        (news == News::Untold).then(|| self.seen.values().map(|seen| seen.id).collect())
    }

    /// Whoever asks next knows nothing yet.
    pub(super) fn tell_anew(&mut self) {
        self.news = News::Untold;
    }

    /// Whether it is to be asked now whose the new ones are.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Notes what has appeared.
    pub(super) fn hear(&mut self) {
        let Some(births) = &self.births else { return };
        let began = Instant::now();
        let changes = births.changes();
        let is_news = !changes.is_empty();
        for change in changes {
            match change {
                Change::Appeared(name) => self.note(name),
                Change::Vanished(name) => {
                    self.unclaimed.remove(&name);
                    self.forget(|seen, _| seen == name);
                }
                Change::Missed => self.note_all(),
            }
        }
        if self.unclaimed.is_empty() {
            self.due = None;
        }
        if is_news {
            self.rest_after(began);
        }
    }

    fn forget(&mut self, is_gone: impl Fn(&str, FileId) -> bool) {
        let before = self.seen.len();
        self.seen.retain(|name, seen| !is_gone(name, seen.id));
        if self.seen.len() != before {
            self.news = News::Untold;
        }
    }

    fn note_all(&mut self) {
        match all() {
            Ok(all) => {
                let there: BTreeMap<_, _> = all.iter().map(|(name, id)| (&**name, *id)).collect();
                self.unclaimed.retain(|name| there.contains_key(&**name));
                // One that cannot be looked at now is there all the same.
                self.forget(|name, id| {
                    there.get(name).is_none_or(|now| now.is_ok_and(|now| now != id))
                });
                for (name, id) in all {
                    if let Ok(id) = id
                        && !self.older.lists(&name, id)
                        && self.seen.get(&name).is_none_or(|seen| seen.id != id)
                    {
                        self.note(name);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "vLLM's shared memory could not be looked at"),
        }
    }

    fn note(&mut self, name: String) {
        if self.unclaimed.len() < MOST_UNCLAIMED && self.unclaimed.insert(name) {
            (self.asked, self.due) = (0, self.not_before.max(Some(Instant::now())));
        }
    }

    /// Asks whose the new ones are: these are the members.
    pub(super) fn claim(&mut self, members: impl Iterator<Item = u32>) {
        let began = Instant::now();
        for pid in members {
            if let Err(error) = self.remember_all(pid) {
                tracing::debug!(%error, "vLLM's shared memory could not be looked at");
            }
            if self.unclaimed.is_empty() {
                break;
            }
        }
        self.rest_after(began);
        let pause = Duration::from_millis(1 << self.asked.min(QUESTIONS));
        self.asked += 1;
        let goes_on = self.asked < QUESTIONS && !self.unclaimed.is_empty();
        self.due = self.not_before.max(Some(Instant::now() + pause)).filter(|_| goes_on);
    }

    /// Remembers what this member has mapped or open.
    pub(super) fn remember_all(&mut self, pid: u32) -> Result<(), ScanError> {
        self.keep_open(pid).and_then(|()| self.remember(pid))
    }

    fn keep_open(&mut self, pid: u32) -> Result<(), ScanError> {
        let files = proc_fs::open_files(pid, |path| segment_at(path).is_some())?;
        let holder = self.older.start_of(pid);
        for file in files.unwrap_or_default() {
            if let Some(name) = segment_at(&file.path) {
                self.keep(name, id_of(&file.metadata), holder);
            }
        }
        Ok(())
    }

    /// Remembers what this member has mapped.
    pub(super) fn remember(&mut self, pid: u32) -> Result<(), ScanError> {
        let maps = proc_fs::maps(pid)?.unwrap_or_default();
        let holder = self.older.start_of(pid);
        for line in maps.lines() {
            if let Some((id, name)) = mapped(line) {
                self.keep(name, id, holder);
            }
        }
        Ok(())
    }

    /// Whether this one is known to be of the launch.
    #[cfg(test)]
    pub(in crate::adapters) fn holds(&self, path: &str) -> bool {
        segment_at(path).is_some_and(|name| self.seen.contains_key(name))
    }

    fn keep(&mut self, name: &str, id: FileId, holder: Option<Timestamp>) {
        if self.older.lists(name, id) {
            return;
        }
        self.unclaimed.remove(name);
        let before = self.seen.remove(name).filter(|before| before.id == id);
        if before.is_none() {
            self.news = News::Untold;
            if self.births.is_none() && self.seen.len() >= MOST_SEEN {
                // Nobody tells what is gone.
                self.note_all();
            }
        }
        // The first is the least that is known.
        let holder = before.and_then(|before| before.holder).into_iter().chain(holder).min();
        self.seen.insert(name.to_owned(), Seen { id, holder });
    }

    /// Removes those that nobody has mapped any more, and tells what could not be removed. For when
    /// no member lives.
    pub(in crate::adapters) fn remove(&mut self) -> Result<Vec<Leftover>, ScanError> {
        let mut there = BTreeMap::new();
        for (name, seen) in &self.seen {
            let file = present(name)?.filter(|file| file.id == seen.id && file.can_be_ours());
            let Some(file) = file else { continue };
            if self.older.includes(name.as_bytes(), &file, seen.holder) {
                tracing::info!(
                    name,
                    "vLLM has used shared memory that may be older than it: it stays"
                );
            } else {
                there.insert(file.id, (name.clone(), file));
            }
        }
        spare_what_others_use(&mut there)?;
        let mut left = Vec::new();
        for (name, _) in there.into_values() {
            let path = path_of(&name);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, path, "shared memory stays behind");
                    left.push(Leftover::Segment { name: path });
                }
            }
        }
        if let Err(error) = self.name_the_unclaimed() {
            tracing::debug!(%error, "whose shared memory is could not be looked at");
        }
        Ok(left)
    }

    /// Whoever made them may have been one of the launch that died before anybody looked: they are
    /// not known to be ours, so they stay, and are named.
    fn name_the_unclaimed(&mut self) -> Result<(), ScanError> {
        self.hear();
        let mut ownerless = BTreeMap::new();
        for name in std::mem::take(&mut self.unclaimed) {
            let file = present(&name)?.filter(SharedFile::can_be_ours);
            ownerless.extend(file.map(|file| (file.id, (name, file))));
        }
        spare_what_others_use(&mut ownerless)?;
        for (name, _) in ownerless.into_values() {
            tracing::warn!(
                path = path_of(&name),
                "shared memory appeared while vLLM ran, nobody has it mapped, and nobody saw whose \
                 it is: it stays; remove it if it is vLLM's"
            );
        }
        Ok(())
    }
}

fn path_of(name: &str) -> String {
    format!("{PLACE}/{name}")
}

/// The name of the segment at this path, if one can be there: not in a directory, where a model may
/// lie, and not without a name any more.
fn segment_at(path: &str) -> Option<&str> {
    let name = path.strip_prefix(PLACE)?.strip_prefix('/')?;
    let can_be = !name.is_empty() && !name.contains('/') && !name.ends_with(" (deleted)");
    can_be.then_some(name)
}

/// Everything that is there: its name, and what it is if that can be seen.
fn all() -> Result<Vec<Entry>, ScanError> {
    let failed = |error: io::Error| ScanError::new(PLACE, &error);
    let entries = match fs::read_dir(PLACE) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let id = SharedFile::at(CWD, entry.path()).map(|file| file.id);
        all.push((entry.file_name().to_string_lossy().into_owned(), id));
    }
    Ok(all)
}

fn present(name: &str) -> Result<Option<SharedFile>, ScanError> {
    let path = path_of(name);
    match SharedFile::at(CWD, &*path) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(ScanError::new(path, &io::Error::from(error))),
    }
}

/// The segment that a line of `/proc/<pid>/maps` speaks of (proc(5)), if it still has its name.
fn mapped(line: &str) -> Option<(FileId, &str)> {
    // No field before the path holds a slash.
    let name = segment_at(&line[line.find('/')?..])?;
    Some((mapped_file(line)?, name))
}

#[cfg(test)]
mod tests;
