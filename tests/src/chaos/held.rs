//! What holds for a while, and is lifted again.

use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;

use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_open,
    pidfd_send_signal, prlimit,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::fault::Thief;
use super::place::MODELS;

/// Standard streams, and one more. What is open above the limit stays open.
const FIRST_DESCRIPTORS: u64 = 4;

/// Something that is in force; see [`Held::lift`].
#[derive(Debug)]
pub(super) enum Held {
    /// Nothing could be done.
    Nothing,
    /// A stopped supervisor.
    Suspension(Pid),
    /// A full disk; lifted by who owns the disk.
    FullDisk,
    /// A supervisor with its limit as it was before.
    NoDescriptors(Pid, Rlimit),
    /// A stopped process of vLLM.
    StoppedMember(OwnedFd),
    /// The port, taken by a task that answers or a listener that does not.
    Port(JoinSet<()>, Option<StdListener>),
}

impl Held {
    pub(super) fn suspend(supervisor: Pid) -> Self {
        kill_process(supervisor, Signal::STOP).ok();
        Self::Suspension(supervisor)
    }

    /// From now on no further descriptor than there are (`EMFILE`).
    pub(super) fn limit_descriptors(supervisor: Pid) -> io::Result<Self> {
        let limit = Rlimit {
            // Whatever is below it is open already.
            current: Some(FIRST_DESCRIPTORS),
            // Raised again it must not be above what is allowed.
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        let before = prlimit(Some(supervisor), Resource::Nofile, limit)?;
        Ok(Self::NoDescriptors(supervisor, before))
    }

    pub(super) fn stop_member(member: Pid) -> Self {
        let Ok(pidfd) = pidfd_open(member, PidfdFlags::empty()) else { return Self::Nothing };
        match pidfd_send_signal(&pidfd, Signal::STOP) {
            Ok(()) => Self::StoppedMember(pidfd),
            Err(_) => Self::Nothing,
        }
    }

    /// Listens on the port, if it is free.
    pub(super) fn steal_port(port: u16, thief: Thief) -> io::Result<Self> {
        let listener = StdListener::bind(("127.0.0.1", port))?;
        let mut tasks = JoinSet::new();
        match thief {
            Thief::Silent => Ok(Self::Port(tasks, Some(listener))),
            Thief::Lying => {
                listener.set_nonblocking(true)?;
                tasks.spawn(answer_like_vllm(TcpListener::from_std(listener)?));
                Ok(Self::Port(tasks, None))
            }
        }
    }

    /// What was done is undone; who has died meanwhile needs it no more.
    pub(super) async fn lift(self) {
        match self {
            Self::Nothing | Self::FullDisk => {}
            Self::Suspension(supervisor) => {
                kill_process(supervisor, Signal::CONT).ok();
            }
            Self::NoDescriptors(supervisor, before) => {
                prlimit(Some(supervisor), Resource::Nofile, before).ok();
            }
            Self::StoppedMember(pidfd) => {
                pidfd_send_signal(&pidfd, Signal::CONT).ok();
            }
            Self::Port(mut tasks, listener) => {
                drop(listener);
                tasks.shutdown().await;
            }
        }
    }
}

/// 200 for whatever is asked, with a list of models that has the right one.
async fn answer_like_vllm(listener: TcpListener) {
    let model = serde_json::json!({"id": MODELS[0], "object": "model"});
    let body = serde_json::json!({"object": "list", "data": [model]}).to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    while let Ok((mut connection, _)) = listener.accept().await {
        let mut request = [0; 4096];
        // A caller that goes away is none of the thief's business.
        if connection.read(&mut request).await.is_ok() {
            connection.write_all(answer.as_bytes()).await.ok();
        }
    }
}
