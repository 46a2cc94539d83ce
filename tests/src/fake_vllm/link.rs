//! The line between a process and the one that started it: a Unix socket, one JSON value a line.
//!
//! The helper has its end as stdin. When either side dies, the other reads the end of the stream;
//! what is sent to the dead is lost without an error, as the death is told by other means.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// What goes down the line.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// To a worker that has loaded its weights.
    WarmUp,
    /// To an engine that is ready: say what can be asked of it.
    Describe,
    /// One request for `tokens` tokens.
    Complete { number: u64, tokens: u32 },
}

/// What comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// From a worker: the weights are there, and this is its segment of shared memory.
    Loaded { segment: PathBuf },
    /// From a worker or the engine: requests can come.
    Ready,
    /// From the engine: what can be asked of it.
    Described,
    /// The text for a request.
    Completed { number: u64, text: String },
}

/// The end that hears.
#[derive(Debug)]
pub(super) struct Ear(Lines<BufReader<OwnedReadHalf>>);

/// The end that speaks.
#[derive(Debug)]
pub(super) struct Mouth(OwnedWriteHalf);

impl Ear {
    /// The next message, or `None` when the other side is gone. Can be abandoned without loss.
    pub(super) async fn hear<T: DeserializeOwned>(&mut self) -> Option<T> {
        let line = self.0.next_line().await.ok().flatten()?;
        serde_json::from_str(&line).ok()
    }
}

impl Mouth {
    /// Sends a message to whoever is still there.
    pub(super) async fn say(&mut self, message: &impl Serialize) {
        let mut line = serde_json::to_vec(message).expect("a message is plain data");
        line.push(b'\n');
        self.0.write_all(&line).await.ok();
    }
}

/// A new line: this side's ends, and the other side as a descriptor for a helper's stdin.
pub(super) fn open() -> io::Result<(Ear, Mouth, OwnedFd)> {
    let (ours, theirs) = StdStream::pair()?;
    let (ear, mouth) = split(ours)?;
    Ok((ear, mouth, theirs.into()))
}

/// The line to the process that started this one.
pub(super) fn to_starter() -> io::Result<(Ear, Mouth)> {
    split(StdStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn split(stream: StdStream) -> io::Result<(Ear, Mouth)> {
    stream.set_nonblocking(true)?;
    let (read, write) = UnixStream::from_std(stream)?.into_split();
    Ok((Ear(BufReader::new(read).lines()), Mouth(write)))
}
