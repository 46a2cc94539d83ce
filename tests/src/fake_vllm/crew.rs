//! The helpers that one process has started: it speaks to all of them, and hears of each answer
//! and each death in the order they come.

use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::child::Orders;
use super::link::{self, Answer, Mouth, Order};
use crate::process_table::{Process, descendants};

/// What a helper did.
#[derive(Debug)]
pub(super) enum Report {
    /// It answered.
    Answered(Answer),
    /// It is gone.
    Exited { rank: usize, status: ExitStatus },
}

/// The helpers, by rank.
#[derive(Debug)]
pub(super) struct Crew {
    members: Vec<Member>,
    reports: mpsc::UnboundedReceiver<Report>,
    reporter: mpsc::UnboundedSender<Report>,
    watchers: JoinSet<()>,
}

#[derive(Debug)]
struct Member {
    pid: Pid,
    pidfd: OwnedFd,
    mouth: Mouth,
    presence: Presence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Alive,
    Gone,
}

impl Crew {
    pub(super) fn new() -> Self {
        let (reporter, reports) = mpsc::unbounded_channel();
        Self { members: Vec::new(), reports, reporter, watchers: JoinSet::new() }
    }

    /// Starts one more helper.
    pub(super) fn hire(&mut self, orders: &Orders) {
        let (mut ear, mouth, their_end) = link::open().expect("a socket pair can be made");
        let mut child = orders.start(their_end);
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.expect("a child that was just started has a pid");
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("the child is not reaped yet");
        let (rank, reporter) = (self.members.len(), self.reporter.clone());
        self.members.push(Member { pid, pidfd, mouth, presence: Presence::Alive });
        self.watchers.spawn(async move {
            while let Some(answer) = ear.hear().await {
                reporter.send(Report::Answered(answer)).ok();
            }
            if let Ok(status) = child.wait().await {
                reporter.send(Report::Exited { rank, status }).ok();
            }
        });
    }

    /// How many have been started.
    pub(super) fn size(&self) -> usize {
        self.members.len()
    }

    /// The pid of the helper with this rank, dead or alive.
    pub(super) fn pid(&self, rank: usize) -> Pid {
        self.members[rank].pid
    }

    /// Sends an order to every helper.
    pub(super) async fn tell_all(&mut self, order: Order) {
        for member in &mut self.members {
            member.mouth.say(&order).await;
        }
    }

    /// What comes next from any helper. Can be abandoned without loss.
    pub(super) async fn next(&mut self) -> Report {
        let report = self.reports.recv().await.expect("the crew holds a sender itself");
        if let Report::Exited { rank, .. } = report {
            self.members[rank].presence = Presence::Gone;
        }
        report
    }

    /// Sends a signal to every helper that is alive.
    pub(super) fn signal_all(&self, signal: Signal) {
        for member in self.members.iter().filter(|member| member.presence == Presence::Alive) {
            pidfd_send_signal(&member.pidfd, signal).ok();
        }
    }

    /// SIGTERM for all, SIGKILL for who is still there after `patience`; returns when all are gone.
    pub(super) async fn dismiss(&mut self, patience: Duration) {
        self.signal_all(Signal::TERM);
        if tokio::time::timeout(patience, self.all_gone()).await.is_err() {
            self.signal_all(Signal::KILL);
            self.all_gone().await;
        }
    }

    /// SIGKILL for the helpers and all that descends from them; returns the descendants.
    pub(super) async fn destroy(&mut self) -> Vec<Process> {
        let alive = self.members.iter().filter(|member| member.presence == Presence::Alive);
        let descendants: Vec<Process> =
            alive.flat_map(|member| descendants(member.pid)).filter(|it| it.state != 'Z').collect();
        self.signal_all(Signal::KILL);
        for process in &descendants {
            kill_process(process.pid, Signal::KILL).ok();
        }
        self.all_gone().await;
        descendants
    }

    async fn all_gone(&mut self) {
        while self.members.iter().any(|member| member.presence == Presence::Alive) {
            self.next().await;
        }
    }
}
