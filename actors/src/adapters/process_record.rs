//! What a supervisor leaves in writing about the vLLM it runs, so that the next one finds it.
//!
//! That there is no record is an answer; that it cannot be read is another one. Whoever holds it to
//! be the first would start a second vLLM beside the one that nobody could read of.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::directory::{self, Directory};
use super::ownership::Held;
use super::proc_fs;
use crate::domain::absence::ScanError;
use crate::domain::diagnosis::Phase;
use crate::domain::id::Incarnation;
use crate::domain::spec::ModelId;
use crate::domain::target::{Arguments, Target};

const NAME: &str = "process.json";
const DRAFT: &str = "process.draft";

/// Far more than the longest command line that the system takes (execve(2): a quarter of the
/// stack, which is 8 MiB).
const LARGEST: u64 = 4 << 20;

/// What is written. No secret is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProcessRecord {
    /// The boot that pid and start time belong to.
    pub(super) boot_id: String,
    /// Which launch.
    pub(super) incarnation: Incarnation,
    /// The marker in its environment.
    pub(super) marker: String,
    /// The start time that nobody of it is older than; `None` if that was not written.
    pub(super) claimed: Option<u64>,
    /// The main process and its start time; `None` before it exists.
    pub(super) main: Option<(u32, u64)>,
    /// The settings it was launched with, to be compared as a whole.
    pub(super) settings: Vec<String>,
    /// What it serves, if that is not what is configured.
    pub(super) switched: Option<Switched>,
    /// Its private directory, which goes with it.
    pub(super) scratch: Option<PathBuf>,
}

/// What somebody has switched to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Switched {
    /// The settings of what was configured then.
    pub(super) configured: Vec<String>,
    /// What was switched to.
    pub(super) target: Target,
    /// How far it has come.
    pub(super) phase: Phase,
}

impl Switched {
    fn to_json(&self) -> Value {
        let Target { model, arguments } = &self.target;
        json!({
            "has_served": self.phase == Phase::Serving,
            "configured": self.configured,
            "model": model.as_str(),
            "extra_args": arguments.words(),
            "served_name": arguments.served_name(),
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let served_name = value["served_name"].as_str().map(str::to_owned);
        let arguments = Arguments::new(words(&value["extra_args"])?, served_name);
        let model = ModelId::new(value["model"].as_str()?).ok()?;
        let configured = words(&value["configured"])?;
        let has_served = value["has_served"].as_bool()?;
        let phase = if has_served { Phase::Serving } else { Phase::Loading };
        Some(Self { configured, target: Target { model, arguments }, phase })
    }
}

fn words(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
}

impl ProcessRecord {
    /// The main process, if it lives.
    ///
    /// # Errors
    ///
    /// What could not be looked at.
    pub(super) fn living_main(&self) -> Result<Option<u32>, ScanError> {
        let boot_id = proc_fs::boot_id()?;
        let Some((pid, start_time)) = self.main.filter(|_| self.boot_id == boot_id) else {
            return Ok(None);
        };
        let main = Held::open(pid, start_time)?;
        Ok(main.filter(|main| !main.has_ended()).map(|_| pid))
    }

    fn to_json(&self) -> Value {
        json!({
            "boot_id": self.boot_id,
            "incarnation": self.incarnation.get(),
            "marker": self.marker,
            "claimed": self.claimed,
            "pid": self.main.map(|main| main.0),
            "start_time": self.main.map(|main| main.1),
            "settings": self.settings,
            "switched": self.switched.as_ref().map(Switched::to_json),
            "scratch": self.scratch.as_ref().map(|path| path.to_string_lossy()),
        })
    }

    /// What was written by this version or one that knew nothing of scratch directory, claim and switch.
    fn from_json(value: &Value) -> Result<Self, &'static str> {
        let text = |key: &'static str| value[key].as_str().map(str::to_owned).ok_or(key);
        let main = match (&value["pid"], &value["start_time"]) {
            (Value::Null, Value::Null) => None,
            (pid, start_time) => {
                let pid = pid.as_u64().and_then(|pid| u32::try_from(pid).ok()).ok_or("pid")?;
                Some((pid, start_time.as_u64().ok_or("start_time")?))
            }
        };
        let claimed = match &value["claimed"] {
            Value::Null => None,
            claimed => Some(claimed.as_u64().ok_or("claimed")?),
        };
        let switched = match &value["switched"] {
            Value::Null => None,
            switched => Some(Switched::from_json(switched).ok_or("switched")?),
        };
        let scratch = match &value["scratch"] {
            Value::Null => None,
            path => Some(PathBuf::from(path.as_str().ok_or("scratch")?)),
        };
        Ok(Self {
            boot_id: text("boot_id")?,
            incarnation: Incarnation::new(value["incarnation"].as_u64().ok_or("incarnation")?),
            marker: text("marker")
                .and_then(|it| if it.is_empty() { Err("marker") } else { Ok(it) })?,
            claimed,
            main,
            settings: words(&value["settings"]).ok_or("settings")?,
            switched,
            scratch,
        })
    }
}

/// Why it is not known what an earlier supervisor has written.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// The system refused: a symbolic link is refused as well.
    #[error("it cannot be read")]
    Unreadable(#[from] io::Error),
    /// A directory, a FIFO or the like.
    #[error("it is no regular file")]
    NotAFile,
    /// It is not ours, and others may have written it.
    #[error("it belongs to user {0}")]
    Foreign(u32),
    /// Larger than any record.
    #[error("it has {0} bytes")]
    TooLarge(u64),
    /// Cut short, or not what we write.
    #[error("it is no record")]
    NotJson(#[from] serde_json::Error),
    /// JSON that lacks a part.
    #[error("its `{0}` is missing or of another kind")]
    Malformed(&'static str),
}

impl From<Errno> for RecordError {
    fn from(error: Errno) -> Self {
        Self::Unreadable(error.into())
    }
}

/// Where it is written.
#[derive(Clone, Debug)]
pub(super) struct RecordFile {
    directory: PathBuf,
}

impl RecordFile {
    pub(super) fn in_directory(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Where it is, for those who read of it.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// Replaces what is written, as a whole, and returns when it would survive a power failure.
    pub(super) fn write(&self, record: &ProcessRecord) -> io::Result<()> {
        let directory = self.open_directory()?;
        let text = record.to_json().to_string();
        directory::replace(&directory, NAME, DRAFT, text.as_bytes())
    }

    /// What is written; `None` if nothing is, and only then.
    pub(super) fn read(&self) -> Result<Option<ProcessRecord>, RecordError> {
        let directory = match self.open_directory() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            directory => directory?,
        };
        // Neither a FIFO nor a device holds us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&directory, NAME, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            file => file?,
        };
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(RecordError::NotAFile);
        }
        if stat.st_uid != rustix::process::geteuid().as_raw() && stat.st_uid != 0 {
            return Err(RecordError::Foreign(stat.st_uid));
        }
        let mut bytes = Vec::new();
        let length = File::from(file).take(LARGEST + 1).read_to_end(&mut bytes)?;
        if u64::try_from(length).unwrap_or(u64::MAX) > LARGEST {
            return Err(RecordError::TooLarge(u64::try_from(stat.st_size).unwrap_or(u64::MAX)));
        }
        let value = serde_json::from_slice(&bytes)?;
        ProcessRecord::from_json(&value).map(Some).map_err(RecordError::Malformed)
    }

    /// Forgets a launch that is gone, if it is the one that is written. What cannot be read goes
    /// aside: it stands in the way of the next.
    pub(super) fn remove(&self, marker: &str) {
        let removed = match self.read() {
            Ok(Some(record)) if record.marker == marker => self.unlink(),
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "the record of a process that is gone is set aside");
                self.set_aside().map(drop)
            }
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "the record of a process that is gone cannot be removed");
        }
    }

    /// Puts what cannot be read out of the way, under a name of its own, for whoever wants to know.
    pub(super) fn set_aside(&self) -> io::Result<PathBuf> {
        let directory = self.open_directory()?;
        let name = format!("process.unreadable-{}", proc_fs::random_uuid()?);
        renameat(&directory, NAME, &directory, &name)?;
        Ok(self.directory.join(name))
    }

    fn unlink(&self) -> io::Result<()> {
        let directory = self.open_directory()?;
        unlinkat(&directory, NAME, AtFlags::empty())?;
        Ok(fsync(&directory)?)
    }

    fn open_directory(&self) -> io::Result<Directory> {
        Directory::open(&self.directory)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, mknodat};

    use super::*;

    fn record() -> ProcessRecord {
        ProcessRecord {
            boot_id: "b".into(),
            incarnation: Incarnation::new(3),
            marker: "m-3".into(),
            claimed: Some(40),
            main: Some((41, 42)),
            settings: vec!["vllm".into(), "--port".into()],
            switched: Some(Switched {
                configured: vec!["vllm".into()],
                target: Target {
                    model: ModelId::new("org/b").unwrap(),
                    arguments: Arguments::new(vec!["--seed=1".into()], Some("b".into())),
                },
                phase: Phase::Serving,
            }),
            scratch: Some("/tmp/vllmd-x".into()),
        }
    }

    #[test]
    fn what_is_written_is_read_and_only_its_own_launch_removes_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = RecordFile::in_directory(directory.path());
        let read = || file.read().unwrap();
        assert_eq!(read(), None);
        file.write(&record()).unwrap();
        assert_eq!(read(), Some(record()));
        file.remove("m-2");
        assert_eq!(read(), Some(record()));
        file.remove("m-3");
        assert_eq!(read(), None);
    }

    #[test]
    fn whatever_cannot_be_understood_is_never_taken_for_nothing() {
        let whole = record().to_json().to_string();
        let mut texts: Vec<Vec<u8>> =
            (0..whole.len()).map(|length| whole.as_bytes()[..length].to_vec()).collect();
        texts.extend([vec![0xff; 64], b"null".to_vec(), b"[]".to_vec(), b"{}".to_vec()]);
        let keys = ["boot_id", "incarnation", "marker", "claimed", "pid", "start_time"];
        for key in keys.into_iter().chain(["settings", "scratch"]) {
            let mut other = record().to_json();
            other[key] = json!({});
            texts.push(other.to_string().into_bytes());
        }
        for text in texts {
            let directory = tempfile::tempdir().unwrap();
            let file = RecordFile::in_directory(directory.path());
            fs::write(file.path(), &text).unwrap();
            file.read().expect_err(&String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn what_is_no_regular_file_of_ours_is_an_error_and_holds_nobody_up() {
        let in_its_place: [fn(&Path); 5] = [
            |path| fs::create_dir(path).unwrap(),
            |path| mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
            |path| symlink("/dev/zero", path).unwrap(),
            |path| symlink("nowhere", path).unwrap(),
            |path| fs::File::create(path).unwrap().set_len(1 << 30).unwrap(),
        ];
        for put in in_its_place {
            let directory = tempfile::tempdir().unwrap();
            let file = RecordFile::in_directory(directory.path());
            put(&file.path());
            file.read().unwrap_err();
        }
    }

    #[test]
    fn a_draft_that_somebody_prepared_is_not_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let file = RecordFile::in_directory(directory.path());
        let target = directory.path().join("target");
        symlink(&target, directory.path().join(DRAFT)).unwrap();
        file.write(&record()).unwrap();
        assert_eq!(file.read().unwrap(), Some(record()));
        assert!(!target.exists());
    }

    #[test]
    fn what_is_unreadable_is_kept_out_of_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let file = RecordFile::in_directory(directory.path());
        fs::write(file.path(), "{").unwrap();
        let aside = file.set_aside().unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), "{");
        assert_eq!(file.read().unwrap(), None);
    }
}
