//! Reads a whole log once its launch has ended.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use rustix::fs::{SeekFrom as DataSeek, seek};
use rustix::io::Errno;

use crate::domain::diagnosis::Scanner;

/// Read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// How much is read of the beginning, and how much of the end, of a log that is longer than both: what
/// takes less than a second. Only one whose bound was raised by far can be that long.
const HEAD_BYTES: u64 = 64 << 20;
const TAIL_BYTES: u64 = 256 << 20;

/// Has `scanner` read what the file holds now. The hole that a cut has left is passed over: it may be
/// larger than any disk.
pub(super) fn scan(file: &mut File, scanner: &mut Scanner) -> io::Result<()> {
    let end = file.metadata()?.len();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut position = 0;
    while position < end {
        if position >= HEAD_BYTES && end - position > TAIL_BYTES {
            position = end - TAIL_BYTES;
        }
        position = match next_data(file, position) {
            Ok(data) => data.max(position),
            Err(error) => return if error == Errno::NXIO { Ok(()) } else { Err(error.into()) },
        };
        file.seek(SeekFrom::Start(position))?;
        let length = file.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        scanner.feed(&chunk[..length]);
        position += length as u64;
    }
    Ok(())
}

/// Where data begins from here on (lseek(2), `SEEK_DATA`); here, where the file system does not know of
/// holes.
pub(super) fn next_data(file: &File, position: u64) -> Result<u64, Errno> {
    match seek(file, DataSeek::Data(position)) {
        Err(Errno::INVAL) => Ok(position),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;
    use crate::domain::cause::Code;
    use crate::domain::diagnosis::Rulebook;

    #[test]
    fn what_stands_before_and_behind_a_hole_of_a_terabyte_is_read() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"INFO vLLM API server version 0.32.0\n").unwrap();
        file.seek(SeekFrom::Start(1 << 40)).unwrap();
        file.write_all(b"\ntorch.OutOfMemoryError: CUDA out of memory.\n").unwrap();
        let mut scanner = Scanner::new(&Arc::new(Rulebook::new().unwrap()));
        scan(&mut file, &mut scanner).unwrap();
        let found = scanner.finish().unwrap();
        assert_eq!((found.code, found.line_number), (Code::InsufficientGpuMemory, 3));
    }
}
