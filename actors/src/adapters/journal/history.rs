//! Reads the latest incidents.

use std::io::{self, ErrorKind, Seek, SeekFrom};

use super::JournalCodec;
use super::files::open_to_read;
use super::lines::Lines;
use super::segments::{OLDER_RESTARTS, RESTARTS, SEGMENT_BYTES};
use crate::adapters::directory::Directory;
use crate::domain::incident::{History, Incident};

/// Most incidents that are told.
pub(super) const RECORDS: usize = 1000;

/// The latest incidents, oldest first. A file that cannot be read is an error in the log.
pub(super) fn read(directory: &Directory, codec: &dyn JournalCodec) -> Vec<Incident> {
    let mut history = History::of_at_most(RECORDS);
    for name in [OLDER_RESTARTS, RESTARTS] {
        match read_file(directory, name, codec, &mut history) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let path = directory.path().join(name);
                tracing::error!(%error, path = %path.display(), "restarts cannot be read");
            }
        }
    }
    history.into_incidents()
}

/// The end of the file: one of an earlier version has no bound.
fn read_file(
    directory: &Directory,
    name: &str,
    codec: &dyn JournalCodec,
    history: &mut History,
) -> io::Result<()> {
    let mut file = open_to_read(directory, name)?;
    let start = file.metadata()?.len().saturating_sub(2 * SEGMENT_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut lines = Lines::of(file);
    while let Some(line) = lines.next_line()? {
        if let Some(record) = codec.read_record(&line) {
            history.add(record);
        }
    }
    Ok(())
}
