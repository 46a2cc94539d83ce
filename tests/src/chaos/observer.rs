//! Looks at a run from outside: at processes, sockets and shared memory, never by asking the
//! supervisor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, getpid};
use tokio::time::Instant;

use super::fault::Role;
use super::place::Place;
use crate::census::Census;
use crate::process_table::{Process, processes};

/// What is there at one moment.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    /// vLLM's processes that are alive.
    pub(super) members: Vec<Member>,
    /// What launches are forked from.
    pub(super) warm: Vec<Member>,
    pub(super) listener: Listener,
    /// What they have mapped of `/dev/shm`.
    pub(super) segments: BTreeSet<PathBuf>,
}

/// One of vLLM's processes.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) process: Process,
    pub(super) role: Role,
    /// Which launch it belongs to, by the marker in its environment.
    pub(super) incarnation: String,
}

/// Who listens on the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listener {
    Nobody,
    /// vLLM's process of the supervisor that is looked at.
    Ours,
    /// The second supervisor's.
    TheSeconds,
    /// This process, playing the thief.
    Thief,
    /// Who has ended since, or cannot be looked at.
    Unclear,
}

impl Look {
    pub(super) fn at(place: &Place) -> Self {
        let at = Instant::now();
        let table = processes();
        let (warm, members): (Vec<_>, Vec<_>) = find(&table, &place.images(), &place.census)
            .into_iter()
            .partition(|member| matches!(member.role, Role::Warm | Role::Ahead));
        let listener = match listening_socket(place.port) {
            None => Listener::Nobody,
            Some(socket) if members.iter().any(|it| holds(it.process.pid, &socket)) => {
                Listener::Ours
            }
            Some(socket) if holds(getpid(), &socket) => Listener::Thief,
            Some(socket) => {
                let seconds = find(&table, &place.images(), &place.second);
                let is_theirs = seconds.iter().any(|it| holds(it.process.pid, &socket));
                if is_theirs { Listener::TheSeconds } else { Listener::Unclear }
            }
        };
        let segments = members.iter().flat_map(|it| it.process.shared_memory()).collect();
        Self { at, members, warm, listener, segments }
    }

    /// vLLM's processes, and what they are forked from.
    pub(super) fn all(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().chain(&self.warm)
    }

    pub(super) fn has(&self, role: Role) -> bool {
        self.members.iter().any(|member| member.role == role)
    }

    /// Whether vLLM is there as a whole and listens.
    pub(super) fn serves(&self) -> bool {
        let needed = [Role::ApiServer, Role::EngineCore, Role::Worker];
        self.listener == Listener::Ours && needed.iter().all(|role| self.has(*role))
    }

    /// Whether vLLM is on its way.
    pub(super) fn loads(&self) -> bool {
        self.has(Role::ApiServer) && self.listener == Listener::Nobody
    }

    /// The launches that have a living process.
    pub(super) fn incarnations(&self) -> BTreeSet<&str> {
        self.members.iter().map(|member| member.incarnation.as_str()).collect()
    }

    /// In one line.
    pub(super) fn summary(&self) -> String {
        let mut counts: BTreeMap<Role, usize> = BTreeMap::new();
        for member in self.all() {
            *counts.entry(member.role).or_default() += 1;
        }
        let stopped = self.all().filter(|it| it.process.state == 'T').count();
        format!("{counts:?}, {stopped} stopped, listener {:?}", self.listener)
    }
}

/// The processes of this census that run the stand-in, or the Python before it; the supervisor, and
/// what it has forked and not executed yet, run something else.
fn find(table: &[Process], programs: &[&Path], census: &Census) -> Vec<Member> {
    let (name, value) = census.variable();
    let marker = format!("{name}={value}");
    let runs = |process: &&Process| {
        process.state != 'Z'
            && fs::read_link(format!("/proc/{}/exe", process.pid.as_raw_pid()))
                .is_ok_and(|exe| programs.contains(&exe.as_path()))
    };
    let found = table.iter().filter(runs).filter_map(|process| {
        let environment = fs::read(format!("/proc/{}/environ", process.pid.as_raw_pid())).ok()?;
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let mut variables = environment.split('\0');
        variables.clone().find(|variable| *variable == marker)?;
        let incarnation = variables.find_map(|it| it.strip_prefix("VLLMD_INSTANCE="));
        let role = match incarnation {
            // What it has forked shows no launch either, for a moment.
            None if process.is_warm() => Role::Warm,
            None if process.is_ahead() => Role::Ahead,
            _ => role(&process.title),
        };
        let incarnation = incarnation.unwrap_or_default().to_owned();
        Some(Member { process: process.clone(), role, incarnation })
    });
    found.collect()
}

fn role(title: &str) -> Role {
    match title {
        _ if title.starts_with("VLLM::EngineCore") => Role::EngineCore,
        _ if title.starts_with("VLLM::Worker") => Role::Worker,
        _ if title.contains("resource_tracker") => Role::ResourceTracker,
        _ if title.starts_with("fake_vllm-grandchild") => Role::Grandchild,
        _ if title.contains("multiprocessing") => Role::Importing,
        _ => Role::ApiServer,
    }
}

/// The inode of the socket that listens on a port of the loopback, as `/proc/PID/fd` names it.
fn listening_socket(port: u16) -> Option<String> {
    // proc_net_tcp: local address and port in hexadecimal, then the state, 0A being LISTEN.
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let address = format!(":{port:04X}");
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut listening = row.filter(|row| row.len() > 9 && row[3] == "0A");
    let found = listening.find(|row| row[1].ends_with(&address))?;
    Some(format!("socket:[{}]", found[9]))
}

fn holds(pid: Pid, socket: &str) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid()));
    let mut targets = descriptors.into_iter().flatten().flatten();
    targets.any(|entry| fs::read_link(entry.path()).is_ok_and(|it| it.as_os_str() == socket))
}
