//! Masks secrets in a log while vLLM writes it: in place, byte for byte.
//!
//! vLLM holds the file open and appends to it, so nothing stands between its words and the disk. What it
//! should not have written is there for a second at most.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use regex::bytes::{Regex, RegexBuilder};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::scanning::next_data;
use crate::adapters::directory::Directory;
use crate::domain::secret::Secret;

/// Read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// A shorter one is a word that stands in any text.
const SHORTEST: usize = 4;

/// A longer one is a file that somebody has put into a variable, and stands in no line.
const LONGEST: usize = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Masker {
    /// Any of the secrets; `None` if there is none.
    secrets: Option<Regex>,
    longest: usize,
    /// How far each log has been looked through.
    logs: HashMap<String, Seen>,
}

/// How far a file has been looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    until: u64,
}

impl Masker {
    /// For these texts.
    ///
    /// # Errors
    ///
    /// When they are too many, or too long, to be looked for.
    pub(super) fn of(secrets: &[Secret]) -> io::Result<Self> {
        let mut texts: Vec<&str> = secrets.iter().map(Secret::expose).collect();
        texts.retain(|text| (SHORTEST..=LONGEST).contains(&text.trim().len()));
        // Of two that begin alike the longer one, or its remainder would show.
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        let longest = texts.first().map_or(0, |text| text.len());
        let any: Vec<String> = texts.into_iter().map(regex::escape).collect();
        let secrets = (!any.is_empty()).then(|| RegexBuilder::new(&any.join("|")).build());
        let secrets = secrets.transpose().map_err(io::Error::other)?;
        Ok(Self { secrets, longest, logs: HashMap::new() })
    }

    /// Masks what has come to the log of this name since the last look; that of a launch whose supervisor
    /// was killed may never have been looked at.
    pub(super) fn mask(&mut self, logs: &Directory, name: &str) -> io::Result<()> {
        if self.secrets.is_none() {
            return Ok(());
        }
        let file = logs.open_file(name, OFlags::RDWR)?;
        let metadata = file.metadata()?;
        let is_same = |seen: &&Seen| seen.inode == metadata.ino() && seen.until <= metadata.len();
        let from = self.logs.get(name).filter(is_same).map_or(0, |seen| seen.until);
        if from < metadata.len() {
            self.mask_between(&file, from, metadata.len())?;
        }
        let seen = Seen { inode: metadata.ino(), until: metadata.len() };
        self.logs.insert(name.to_owned(), seen);
        Ok(())
    }

    /// These are the logs that there are.
    pub(super) fn forget_others(&mut self, names: &[String]) {
        self.logs.retain(|name, _| names.contains(name));
    }

    fn mask_between(&self, file: &File, from: u64, end: u64) -> io::Result<()> {
        let Some(secrets) = &self.secrets else { return Ok(()) };
        // One that was not whole at the last look.
        let overlap = self.longest.saturating_sub(1) as u64;
        let mut position = from.saturating_sub(overlap);
        let mut chunk = vec![0; CHUNK_BYTES.max(self.longest * 2)];
        while position < end {
            position = match next_data(file, position) {
                Ok(data) => data.max(position),
                Err(Errno::NXIO) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let length = file.read_at(&mut chunk, position)?;
            if length == 0 {
                return Ok(());
            }
            for found in secrets.find_iter(&chunk[..length]) {
                let stars = vec![b'*'; found.len()];
                file.write_all_at(&stars, position + found.start() as u64)?;
            }
            let is_last = position + length as u64 >= end;
            position += length as u64;
            if !is_last {
                position -= overlap.min(length as u64 - 1);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use super::*;

    const LOG: &str = "vllm-1.log";

    fn masker(secrets: &[&str]) -> Masker {
        let secrets: Vec<Secret> = secrets.iter().copied().map(Secret::new).collect();
        Masker::of(&secrets).unwrap()
    }

    #[test]
    fn what_vllm_writes_of_a_secret_is_masked_however_it_comes() {
        let place = tempfile::tempdir().unwrap();
        let logs = Directory::open(place.path()).unwrap();
        let path = place.path().join(LOG);
        let mut log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let mut masker = masker(&["hf_secret", "hf_secret-long", "abc", " "]);
        let mut shows = |written: &str| {
            log.write_all(written.as_bytes()).unwrap();
            masker.mask(&logs, LOG).unwrap();
            fs::read_to_string(&path).unwrap()
        };
        assert_eq!(shows("key hf_secret, abc\n"), "key *********, abc\n");
        assert_eq!(shows("hf_sec"), "key *********, abc\nhf_sec");
        assert_eq!(shows("ret-long hf_"), "key *********, abc\n************** hf_");
        let long = "x".repeat(CHUNK_BYTES - 20);
        let shown = shows(&format!("{long}hf_secret{long}hf_secret"));
        assert!(!shown.contains("secret"), "{}", &shown[shown.len() - 60..]);
        assert_eq!(shown.len(), 19 + 14 + 4 + 2 * (long.len() + 9));
    }

    #[test]
    fn a_log_that_is_begun_anew_is_looked_through_anew() {
        let place = tempfile::tempdir().unwrap();
        let logs = Directory::open(place.path()).unwrap();
        let path = place.path().join(LOG);
        let mut masker = masker(&["hf_secret"]);
        assert!(masker.mask(&logs, LOG).is_err(), "there is none");
        fs::write(&path, "a much longer beginning").unwrap();
        masker.mask(&logs, LOG).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "hf_secret").unwrap();
        masker.mask(&logs, LOG).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "*********");
        masker.forget_others(&[]);
        assert!(masker.logs.is_empty());
    }
}
