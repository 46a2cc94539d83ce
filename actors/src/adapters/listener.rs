//! Finds out who listens at an address: whose descriptors hold the socket (proc(5)).
//!
//! Anybody on the machine can listen where vLLM will, between its launch and its bind. He would be
//! sent the API key and taken for vLLM; so nothing is asked before the socket was found in the
//! hands of a process of the launch.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::ownership::on_own_thread;
use super::proc_fs::{self, Stat};
use crate::domain::absence::ScanError;
use crate::domain::listener::{Listener, ResourceHolder};
use crate::ports::{Listeners, Pending};

/// The pids of a launch, or what could not be looked at.
pub type Members = Arc<dyn Fn() -> Result<Vec<u32>, ScanError> + Send + Sync>;

/// What is shown of a command line.
const COMMAND_LENGTH: usize = 80;

/// How long a connection on this machine may take.
const CONNECT_LIMIT: Duration = Duration::from_millis(200);

/// See the module.
pub struct ProcListeners {
    address: SocketAddr,
    members: Members,
    /// The socket that was last found to be ours: to look at it again is cheap.
    last: Arc<Mutex<Option<Seen>>>,
}

impl fmt::Debug for ProcListeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcListeners").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ProcListeners {
    /// Looks for who listens at this address, and whether it is one of these.
    pub fn new(address: SocketAddr, members: Members) -> Self {
        Self { address, members, last: Arc::default() }
    }
}

impl Listeners for ProcListeners {
    fn look(&self) -> Pending<'static, Listener> {
        let (address, members) = (self.address, Arc::clone(&self.members));
        let last = Arc::clone(&self.last);
        Box::pin(async move {
            let look = on_own_thread("vllm-listener", move || look(address, &*members, &last));
            look.await.unwrap_or_else(|error| Listener::Unknown(error.to_string()))
        })
    }

    fn clients(&self) -> Pending<'static, Option<u64>> {
        let port = self.address.port();
        Box::pin(async move {
            // Who cannot look does not know of any.
            on_own_thread("vllm-clients", move || connected_to(port)).await.ok()?.ok()
        })
    }
}

/// Who holds the address, for an error message; `None` if nobody was found.
pub(super) fn holder_of(address: SocketAddr) -> Option<ResourceHolder> {
    let sockets = listening_at(address).ok()?;
    Some(holder(sockets.first()?))
}

/// A socket of a process.
#[derive(Clone, Copy, Debug)]
struct Seen {
    pid: u32,
    start_time: u64,
    descriptor: u32,
    inode: u64,
}

impl Seen {
    /// Whether it is still the same socket of the same process.
    fn is_there(&self) -> bool {
        let path = format!("/proc/{}/fd/{}", self.pid, self.descriptor);
        fs::read_link(path)
            .is_ok_and(|target| inode_of(&target.to_string_lossy()) == Some(self.inode))
            && Stat::of(self.pid)
                .is_ok_and(|stat| stat.is_some_and(|it| it.start_time == self.start_time))
    }
}

fn look(
    address: SocketAddr,
    members: &(dyn Fn() -> Result<Vec<u32>, ScanError> + Send + Sync),
    last: &Mutex<Option<Seen>>,
) -> Listener {
    let mut verdict = Listener::Nobody;
    // A socket may be closed, and a process may come, between two of our looks: who is to be called
    // a stranger is looked at again.
    for _ in 0..2 {
        let sockets = match listening_at(address) {
            Ok(sockets) => sockets,
            Err(error) => return Listener::Unknown(format!("/proc/net: {error}")),
        };
        let mut known = last.lock().unwrap_or_else(PoisonError::into_inner);
        verdict = judge(&sockets, members, &mut known);
        if !matches!(verdict, Listener::Stranger(_)) {
            break;
        }
    }
    verdict
}

fn judge(
    sockets: &[Socket],
    members: &(dyn Fn() -> Result<Vec<u32>, ScanError> + Send + Sync),
    last: &mut Option<Seen>,
) -> Listener {
    if sockets.is_empty() {
        return Listener::Nobody;
    }
    let is_last =
        |socket: &Socket| last.is_some_and(|it| it.inode == socket.inode && it.is_there());
    if sockets.iter().all(is_last) {
        return Listener::Member;
    }
    let members = match members() {
        Ok(members) => members,
        Err(error) => return Listener::Unknown(error.to_string()),
    };
    for socket in sockets {
        match held_by(&members, socket.inode) {
            Ok(Some(seen)) => *last = Some(seen),
            Ok(None) => return Listener::Stranger(holder(socket)),
            Err(error) => {
                return Listener::Unknown(format!("descriptors of pid {}: {}", error.0, error.1));
            }
        }
    }
    Listener::Member
}

/// Which of these processes has this socket. One that is gone has none; one whose descriptors we
/// may not see could have it.
fn held_by(pids: &[u32], inode: u64) -> Result<Option<Seen>, (u32, io::Error)> {
    let mut unseen = Ok(None);
    for pid in pids {
        match descriptor_of(*pid, inode) {
            Ok(Some(seen)) => return Ok(Some(seen)),
            Ok(None) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => unseen = Err((*pid, error)),
        }
    }
    unseen
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn descriptor_of(pid: u32, inode: u64) -> io::Result<Option<Seen>> {
    let Some(stat) = Stat::of(pid).map_err(io::Error::other)? else { return Ok(None) };
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let target = match fs::read_link(entry.path()) {
            // Closed meanwhile.
            Err(error) if is_gone(&error) => continue,
            target => target?,
        };
        if inode_of(&target.to_string_lossy()) == Some(inode)
            && let Some(descriptor) = entry.file_name().to_str().and_then(|it| it.parse().ok())
        {
            return Ok(Some(Seen { pid, start_time: stat.start_time, descriptor, inode }));
        }
    }
    Ok(None)
}

/// Of `socket:[4711]`.
fn inode_of(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Whoever it is that has this socket, as far as we may see.
fn holder(socket: &Socket) -> ResourceHolder {
    let mut pids = proc_fs::pids().unwrap_or_default().into_iter();
    let seen = pids.find(|pid| descriptor_of(*pid, socket.inode).is_ok_and(|it| it.is_some()));
    match seen {
        Some(pid) => ResourceHolder { user: user_of(pid, Some(socket.uid)), ..process(pid) },
        None => ResourceHolder { pid: None, command: None, user: user_name(socket.uid) },
    }
}

/// A process, as far as we may see it.
pub(super) fn process(pid: u32) -> ResourceHolder {
    let command = proc_fs::command_line(pid).ok().flatten().filter(|it| !it.is_empty());
    let command = command.map(|command| cut(&command));
    ResourceHolder { pid: Some(pid), command, user: user_of(pid, None) }
}

/// Who it runs as; by what else is known of that, if it is gone.
fn user_of(pid: u32, known: Option<u32>) -> String {
    let owner = fs::metadata(format!("/proc/{pid}")).ok().map(|data| data.uid()).or(known);
    owner.map_or_else(|| "unknown".to_owned(), user_name)
}

/// Somebody else's words: cut short, and nothing in them that a terminal would obey.
fn cut(command: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    let mut text: String = command.chars().take(COMMAND_LENGTH).map(plain).collect();
    if command.chars().nth(COMMAND_LENGTH).is_some() {
        text.push('…');
    }
    text
}

fn user_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let names = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    names.into_iter().next().unwrap_or_else(|| uid.to_string())
}

/// A row of `/proc/net/tcp` that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    address: SocketAddr,
    uid: u32,
    inode: u64,
}

/// The sockets that would answer at this address: those bound to it, or else to all addresses.
/// Several if they share the port (`SO_REUSEPORT`, socket(7)).
fn listening_at(address: SocketAddr) -> io::Result<Vec<Socket>> {
    // Whoever connects to "all addresses" reaches this machine.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let mut sockets = listening("/proc/net/tcp")?;
    sockets.extend(match listening("/proc/net/tcp6") {
        // Without IPv6 there is no such file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        sockets => sockets?,
    });
    sockets.retain(|socket| socket.address.port() == address.port());
    let bound_to = |wanted: IpAddr| -> Vec<Socket> {
        sockets.iter().filter(|it| it.address.ip().to_canonical() == wanted).copied().collect()
    };
    let exact = bound_to(ip);
    if !exact.is_empty() {
        return Ok(exact);
    }
    let all_v6 = bound_to(Ipv6Addr::UNSPECIFIED.into());
    if ip.is_ipv6() {
        return Ok(all_v6);
    }
    let all_v4 = bound_to(Ipv4Addr::UNSPECIFIED.into());
    // Whether a socket for all addresses of IPv6 takes IPv4 as well is not listed; a connection
    // tells, and nothing is sent on it.
    let takes_both =
        || TcpStream::connect_timeout(&(ip, address.port()).into(), CONNECT_LIMIT).is_ok();
    if all_v4.is_empty() && !all_v6.is_empty() && takes_both() {
        return Ok(all_v6);
    }
    Ok(all_v4)
}

/// Those that listen come first (Linux, `net/ipv4/tcp_ipv4.c`, `tcp_seek_last_pos`), so a machine
/// with many connections costs no more to look at.
fn listening(path: &str) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for line in BufReader::new(File::open(path)?).lines().skip(1) {
        match Row::parse(&line?) {
            Some(Row::Listens(socket)) => sockets.push(socket),
            Some(Row::Connects(_) | Row::Other) => break,
            None => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a row of another form"));
            }
        }
    }
    Ok(sockets)
}

/// Connections that are established with this port of ours. While others come and go, the kernel
/// may list one twice: it goes on where it was by counting (Linux, `net/ipv4/tcp_ipv4.c`,
/// `tcp_seek_last_pos`).
fn connected_to(port: u16) -> io::Result<u64> {
    let (v4, v6) = (connected("/proc/net/tcp", port)?, connected("/proc/net/tcp6", port));
    match v6 {
        // Without IPv6 there is no such file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(v4),
        v6 => Ok(v4 + v6?),
    }
}

fn connected(path: &str, port: u16) -> io::Result<u64> {
    let mut found = HashSet::new();
    for line in BufReader::new(File::open(path)?).lines().skip(1) {
        match Row::parse(&line?) {
            Some(Row::Connects(ends)) if ends.port == port => {
                found.insert(ends);
            }
            Some(Row::Listens(_) | Row::Connects(_) | Row::Other) => {}
            None => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a row of another form"));
            }
        }
    }
    Ok(found.len() as u64)
}

enum Row {
    Listens(Socket),
    /// Established.
    Connects(Ends),
    Other,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Ends {
    /// On this side.
    port: u16,
    /// Both addresses, as they are written.
    addresses: [String; 2],
}

impl Row {
    /// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        // TCP_LISTEN; TCP_ESTABLISHED, and TCP_CLOSE_WAIT of one who has said all and waits for an answer
        // (Linux, `include/net/tcp_states.h`).
        match *fields.get(3)? {
            "0A" => {}
            "01" | "08" => {
                let addresses = [fields.get(1)?, fields.get(2)?].map(ToString::to_string);
                return Some(Self::Connects(Ends { port, addresses }));
            }
            _ => return Some(Self::Other),
        }
        Some(Self::Listens(Socket {
            address: SocketAddr::new(ip_of(ip)?, port),
            uid: fields.get(7)?.parse().ok()?,
            inode: fields.get(9)?.parse().ok()?,
        }))
    }
}

/// Words of 32 bits, each in this machine's order of bytes.
fn ip_of(text: &str) -> Option<IpAddr> {
    let words = (0..text.len()).step_by(8).map(|at| text.get(at..at + 8));
    let words = words.map(|word| u32::from_str_radix(word?, 16).ok().map(u32::to_ne_bytes));
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
