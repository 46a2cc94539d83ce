//! One end of a pair of sockets on which each datagram is a JSON object.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recvmsg, sendmsg, socketpair,
};
use serde_json::Value;
use tokio::time::Instant;

/// Bytes of the longest datagram that is read.
const LONGEST: usize = 64 * 1024;

/// Descriptors that one datagram carries at most.
const DESCRIPTORS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// What came.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// A word.
    Word(Value),
    /// Nothing, for as long as was waited.
    Silence,
    /// The other end is closed, or speaks no JSON.
    End,
}

impl Channel {
    /// Both ends. The second is for another process.
    pub(super) fn pair() -> Result<(Self, OwnedFd), Errno> {
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (ours, theirs) = socketpair(kind.0, kind.1, kind.2, None)?;
        Ok((Self(ours), theirs))
    }

    /// Sends a word, and descriptors for the other end to have as well. Never waits: who does not read
    /// is given up.
    pub(super) fn say(&self, word: &Value, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let text = word.to_string();
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::INVAL);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(text.as_bytes())], &mut control, flags).map(drop)
    }

    /// The next word, if it comes in time.
    pub(super) fn hear(&self, within: Duration) -> Heard {
        let until = Instant::now() + within;
        loop {
            // Without an answer somebody's signal was handled on this thread.
            if let Some(heard) = self.hear_until(until) {
                return heard;
            }
        }
    }

    fn hear_until(&self, until: Instant) -> Option<Heard> {
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], limit.as_ref()) {
            Ok(0) => return Some(Heard::Silence),
            Err(Errno::INTR) => return None,
            Ok(_) => {}
            Err(_) => return Some(Heard::End),
        }
        let mut buffer = vec![0; LONGEST];
        let mut control = rustix::net::RecvAncillaryBuffer::default();
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.0, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags);
        match received {
            Ok(received) => {
                let word = buffer.get(..received.bytes).unwrap_or_default();
                Some(serde_json::from_slice(word).map_or(Heard::End, Heard::Word))
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(_) => Some(Heard::End),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(unsafe_code, reason = "a host that handles a signal on any thread")]
    #[test]
    fn a_signal_is_no_silence() {
        use std::os::unix::thread::JoinHandleExt;
        extern "C" fn handle(_: i32) {}
        // SAFETY: the handler does nothing.
        unsafe {
            libc::signal(libc::SIGUSR2, handle as *const () as libc::sighandler_t);
        }
        let (ours, theirs) = Channel::pair().unwrap();
        let listener = std::thread::spawn(move || ours.hear(Duration::from_secs(30)));
        for _ in 0..1000 {
            // SAFETY: the thread is not joined yet.
            unsafe { libc::pthread_kill(listener.as_pthread_t(), libc::SIGUSR2) };
            std::thread::yield_now();
        }
        drop(theirs);
        assert_eq!(listener.join().unwrap(), Heard::End);
    }

    #[test]
    fn words_are_heard_one_by_one_until_the_other_end_is_closed() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel(theirs);
        assert_eq!(ours.hear(Duration::ZERO), Heard::Silence);
        let file = std::fs::File::open("/dev/null").unwrap();
        theirs.say(&json!({"say": "a"}), &[file.as_fd()]).unwrap();
        theirs.say(&json!({"say": "b"}), &[]).unwrap();
        assert_eq!(ours.hear(Duration::ZERO), Heard::Word(json!({"say": "a"})));
        assert_eq!(ours.hear(Duration::ZERO), Heard::Word(json!({"say": "b"})));
        drop(theirs);
        assert_eq!(ours.hear(Duration::ZERO), Heard::End);
        assert_eq!(ours.say(&json!({}), &[]), Err(Errno::PIPE));
    }
}
