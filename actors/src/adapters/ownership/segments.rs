//! The shared memory of a launch.
//!
//! A process that is killed leaves its segments in `/dev/shm`, and they hold memory until somebody
//! removes them. Whose they are can only be seen while somebody has them mapped or open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use tokio::time::{Duration, Instant};

use super::births::{Births, Change};

use crate::adapters::proc_fs::{self, OpenFile};
use crate::domain::absence::{Leftover, ScanError};

/// What those may who are not the owner.
const OTHERS: u32 = 0o077;

const PLACE: &str = "/dev/shm";

/// A file, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileId {
    device: (u32, u32),
    inode: u64,
}

impl FileId {
    fn of(metadata: &fs::Metadata) -> Self {
        let device = metadata.dev();
        Self {
            device: (rustix::fs::major(device), rustix::fs::minor(device)),
            inode: metadata.ino(),
        }
    }
}

/// How often whose a new segment is is asked before that waits for the next reading of all maps:
/// whoever makes one has it open a few microseconds later, or never.
const QUESTIONS: u32 = 9;

/// The most names of others that are remembered.
const MOST_STRANGE: usize = 1024;

/// The segments that members of one launch were seen to have mapped or open.
#[derive(Debug, Default)]
pub(in crate::adapters) struct Segments {
    /// Those that were there before the launch are not of it.
    older: BTreeSet<FileId>,
    seen: BTreeMap<FileId, String>,
    births: Option<Arc<Births>>,
    /// What has appeared since, and was seen with nobody of the launch so far.
    strange: BTreeSet<String>,
    /// How often whose they are was asked since the last one appeared.
    asked: u32,
    /// When that is to be asked again.
    due: Option<Instant>,
}

impl Segments {
    /// None yet; what is there now is not of the launch.
    pub(in crate::adapters) fn before_launch() -> Result<Self, ScanError> {
        // First, so that nothing appears between the two.
        let heard = Self::of_another();
        Ok(Self { older: all()?.into_values().collect(), ..heard })
    }

    /// Those of a launch that another supervisor has started.
    pub(in crate::adapters) fn of_another() -> Self {
        let births = Births::of(PLACE).inspect_err(|error| {
            tracing::debug!(%error, "shared memory is looked for, and not heard of");
        });
        Self { births: births.ok().map(Arc::new), ..Self::default() }
    }

    /// What tells when something appears, and when it is to be asked whose the new ones are.
    pub(super) fn births(&self) -> (Option<Arc<Births>>, Option<Instant>) {
        (self.births.clone(), self.due)
    }

    /// Whether it is to be asked now whose the new ones are.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Notes what has appeared.
    pub(super) fn hear(&mut self) {
        let Some(births) = &self.births else { return };
        for change in births.changes() {
            match change {
                Change::Appeared(name) => self.note(name),
                Change::Vanished(name) => {
                    self.strange.remove(&name);
                }
                Change::Missed => self.note_all(),
            }
        }
        if self.strange.is_empty() {
            self.due = None;
        }
    }

    fn note_all(&mut self) {
        match all() {
            Ok(all) => {
                for (name, id) in all {
                    if !self.older.contains(&id) && !self.seen.contains_key(&id) {
                        self.note(name);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "vLLM's shared memory could not be looked at"),
        }
    }

    fn note(&mut self, name: String) {
        if self.strange.len() < MOST_STRANGE && self.strange.insert(name) {
            (self.asked, self.due) = (0, Some(Instant::now()));
        }
    }

    /// Asks whose the new ones are: these are the members.
    pub(super) fn claim(&mut self, members: impl Iterator<Item = u32>) {
        let began = Instant::now();
        for pid in members {
            let files = proc_fs::open_files(pid, &format!("{PLACE}/"));
            let kept =
                files.map(|files| self.keep(files.unwrap_or_default().into_iter().map(open)));
            if let Err(error) = kept.and_then(|()| self.remember(pid)) {
                tracing::debug!(%error, "vLLM's shared memory could not be looked at");
            }
            if self.strange.is_empty() {
                break;
            }
        }
        // Looking takes a tenth of the time at most, however many appear.
        let pause = Duration::from_millis(1 << self.asked.min(QUESTIONS)).max(began.elapsed() * 9);
        self.asked += 1;
        let goes_on = self.asked < QUESTIONS && !self.strange.is_empty();
        self.due = goes_on.then(|| Instant::now() + pause);
    }

    /// Remembers what this member has mapped.
    pub(super) fn remember(&mut self, pid: u32) -> Result<(), ScanError> {
        let maps = proc_fs::maps(pid)?.unwrap_or_default();
        self.keep(maps.lines().filter_map(mapped));
        Ok(())
    }

    /// Whether this one is known to be of the launch.
    #[cfg(test)]
    pub(in crate::adapters) fn holds(&self, path: &str) -> bool {
        self.seen.values().any(|seen| seen == path)
    }

    fn keep(&mut self, found: impl Iterator<Item = (FileId, String)>) {
        for (id, path) in found {
            if !self.older.contains(&id) {
                if let Some(name) = path.strip_prefix(PLACE) {
                    self.strange.remove(name.trim_start_matches('/'));
                }
                self.seen.insert(id, path);
            }
        }
    }

    /// Removes those that nobody has mapped any more, and tells what could not be removed. For when
    /// no member lives.
    pub(in crate::adapters) fn remove(&mut self) -> Result<Vec<Leftover>, ScanError> {
        let mut there = BTreeMap::new();
        for (id, path) in &self.seen {
            if let Some(metadata) = present(path)?
                && FileId::of(&metadata) == *id
                && metadata.uid() == rustix::process::geteuid().as_raw()
            {
                there.insert(*id, (path.clone(), metadata.mode()));
            }
        }
        if !there.is_empty() {
            spare_what_others_use(&mut there)?;
        }
        let mut left = Vec::new();
        for (path, _) in there.into_values() {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, path, "shared memory stays behind");
                    left.push(Leftover::Segment { name: path });
                }
            }
        }
        self.name_the_strange()?;
        Ok(left)
    }

    /// Whoever made them may have been one of the launch that died before anybody looked: they are
    /// not known to be ours, so they stay, and are named.
    fn name_the_strange(&mut self) -> Result<(), ScanError> {
        self.hear();
        let mut ownerless = BTreeMap::new();
        for name in std::mem::take(&mut self.strange) {
            let path = format!("{PLACE}/{name}");
            let metadata = present(&path)?;
            let metadata = metadata.filter(|it| it.uid() == rustix::process::geteuid().as_raw());
            ownerless.extend(metadata.map(|it| (FileId::of(&it), (path, it.mode()))));
        }
        if !ownerless.is_empty() {
            spare_what_others_use(&mut ownerless)?;
        }
        for (path, _) in ownerless.into_values() {
            tracing::warn!(
                path,
                "shared memory appeared while vLLM ran, nobody has it mapped, and nobody saw whose \
                 it is: it stays; remove it if it is vLLM's"
            );
        }
        Ok(())
    }
}

/// Everything that is there, by its name.
fn all() -> Result<BTreeMap<String, FileId>, ScanError> {
    let failed = |error: io::Error| ScanError::new(PLACE, &error);
    let entries = match fs::read_dir(PLACE) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut all = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        match entry.metadata() {
            Ok(metadata) => {
                let name = entry.file_name().to_string_lossy().into_owned();
                all.insert(name, FileId::of(&metadata));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(all)
}

fn open(file: OpenFile) -> (FileId, String) {
    (FileId::of(&file.metadata), file.path)
}

fn spare_what_others_use(there: &mut BTreeMap<FileId, (String, u32)>) -> Result<(), ScanError> {
    for pid in proc_fs::pids()? {
        match used_by(pid) {
            Ok(used) => {
                for (id, _) in used {
                    there.remove(&id);
                }
            }
            // A process of somebody else can only have what is open to others.
            Err(error) if proc_fs::is_refusal(&error) => {
                there.retain(|_, (_, mode)| *mode & OTHERS == 0);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a process has mapped or open.
fn used_by(pid: u32) -> Result<Vec<(FileId, String)>, ScanError> {
    let maps = proc_fs::maps(pid)?.unwrap_or_default();
    let files = proc_fs::open_files(pid, &format!("{PLACE}/"))?.unwrap_or_default();
    Ok(maps.lines().filter_map(mapped).chain(files.into_iter().map(open)).collect())
}

fn present(path: &str) -> Result<Option<fs::Metadata>, ScanError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ScanError::new(path, &error)),
    }
}

/// The segment that a line of `/proc/<pid>/maps` speaks of (proc(5)), if it still has its name.
fn mapped(line: &str) -> Option<(FileId, String)> {
    let path = &line[line.find(&format!("{PLACE}/"))?..];
    if path.ends_with(" (deleted)") {
        return None;
    }
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (major, minor) = fields.next()?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let id =
        FileId { device: (number(major)?, number(minor)?), inode: fields.next()?.parse().ok()? };
    Some((id, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::PathBuf;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A file among shared memory that a process has open.
    struct Segment {
        path: PathBuf,
        owner: Child,
    }

    impl Segment {
        #[expect(clippy::disallowed_methods, reason = "a segment needs somebody who has it open")]
        fn new() -> Self {
            let name = format!("vllmd-test-{}", proc_fs::random_uuid().unwrap());
            let path = PathBuf::from(PLACE).join(name);
            let mut private = fs::OpenOptions::new();
            let file = private.write(true).create_new(true).mode(0o600).open(&path).unwrap();
            let owner = Command::new("cat").stdout(file).stdin(Stdio::piped()).spawn().unwrap();
            Self { path, owner }
        }

        fn is_strange_to(&self, segments: &Segments) -> bool {
            let name = self.path.file_name().unwrap().to_str().unwrap();
            segments.strange.contains(name)
        }

        fn lose_owner(&mut self) {
            self.owner.kill().unwrap();
            self.owner.wait().unwrap();
        }
    }

    impl Drop for Segment {
        fn drop(&mut self) {
            self.lose_owner();
            fs::remove_file(&self.path).ok();
        }
    }

    #[test]
    fn what_appears_belongs_to_the_member_that_has_it_open() {
        let mut segments = Segments::before_launch().unwrap();
        let mut segment = Segment::new();
        segments.hear();
        assert!(segment.is_strange_to(&segments) && segments.due.is_some());
        segments.claim([segment.owner.id()].into_iter());
        assert!(!segment.is_strange_to(&segments));
        assert_eq!(segments.remove(), Ok(Vec::new()));
        assert!(segment.path.exists(), "somebody has it open");
        segment.lose_owner();
        assert_eq!(segments.remove(), Ok(Vec::new()));
        assert!(!segment.path.exists());
    }

    #[test]
    fn what_appears_and_is_seen_with_no_member_stays() {
        let mut segments = Segments::before_launch().unwrap();
        let mut segment = Segment::new();
        segments.hear();
        let mut questions = 0;
        while segments.due.is_some() && questions < 100 {
            segments.claim(std::iter::empty());
            questions += 1;
        }
        assert_eq!(questions, QUESTIONS);
        assert!(segment.is_strange_to(&segments));
        segment.lose_owner();
        assert_eq!(segments.remove(), Ok(Vec::new()));
        assert!(segment.path.exists());
    }

    #[test]
    fn what_was_there_before_the_launch_stays_though_a_member_has_it_open() {
        let mut segment = Segment::new();
        let mut segments = Segments::before_launch().unwrap();
        segments.hear();
        assert!(!segment.is_strange_to(&segments));
        segments.claim([segment.owner.id()].into_iter());
        segment.lose_owner();
        assert_eq!(segments.remove(), Ok(Vec::new()));
        assert!(segment.path.exists());
    }

    #[test]
    fn a_segment_is_read_from_a_map() {
        let line = "7f1c-7f2c rw-s 00000000 00:1b 4242                   /dev/shm/psm_1";
        let id = FileId { device: (0, 0x1b), inode: 4242 };
        assert_eq!(mapped(line), Some((id, "/dev/shm/psm_1".to_owned())));
        assert_eq!(mapped(&format!("{line} (deleted)")), None);
        assert_eq!(mapped("7f1c-7f2c r-xp 00000000 fe:00 11 /usr/lib/libc.so.6"), None);
    }
}
