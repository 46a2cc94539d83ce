//! Real sockets: those of this process, and of others that it starts.

use std::net::TcpListener;
use std::process::{Child, Command};

use tokio::time::Instant;

use super::*;

fn us() -> Members {
    Arc::new(|| Ok(vec![std::process::id()]))
}

fn nobody() -> Members {
    Arc::new(|| Ok(Vec::new()))
}

async fn who(address: SocketAddr, members: Members) -> Listener {
    ProcListeners::new(address, members).look().await
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

#[tokio::test]
async fn where_nobody_listens_there_is_nobody() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(who(free, us()).await, Listener::Nobody);
}

#[tokio::test]
async fn a_member_is_told_from_a_stranger_by_the_socket_that_it_holds() {
    for host in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
        let Ok(listener) = TcpListener::bind(at(host, 0)) else { continue };
        let address = at(host, listener.local_addr().unwrap().port());
        assert_eq!(who(address, us()).await, Listener::Member, "{host}");
        let Listener::Stranger(holder) = who(address, nobody()).await else {
            panic!("{host}: nobody saw us");
        };
        assert_eq!(holder.pid, Some(std::process::id()));
        assert!(holder.command.is_some() && !holder.user.is_empty(), "{holder}");
    }
}

#[tokio::test]
async fn who_listens_at_all_addresses_listens_at_each_of_them() {
    for host in ["0.0.0.0", "::"] {
        let Ok(listener) = TcpListener::bind(at(host, 0)) else { continue };
        let address = at("127.0.0.1", listener.local_addr().unwrap().port());
        assert!(matches!(who(address, nobody()).await, Listener::Stranger(_)), "{host}");
        assert_eq!(who(address, us()).await, Listener::Member, "{host}");
    }
}

#[tokio::test]
async fn who_listens_at_another_address_of_the_port_is_nobody_here() {
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let address = at("127.0.0.1", listener.local_addr().unwrap().port());
    assert_eq!(who(address, us()).await, Listener::Nobody);
}

#[tokio::test]
async fn that_the_members_cannot_be_told_is_an_answer_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let members: Members = Arc::new(|| Err(ScanError::new("/proc", &"no descriptor is left")));
    let answer = who(listener.local_addr().unwrap(), members).await;
    let said = "cannot look at /proc: no descriptor is left".to_owned();
    assert_eq!(answer, Listener::Unknown(said));
}

#[tokio::test]
async fn a_socket_once_found_is_known_again_until_somebody_else_has_the_port() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let members: Members = Arc::new(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(vec![std::process::id()])
    });
    let listeners = ProcListeners::new(address, members);
    assert_eq!(listeners.look().await, Listener::Member);
    assert_eq!(listeners.look().await, Listener::Member);
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);

    drop(listener);
    let stranger = Stranger::at(address);

    let Listener::Stranger(holder) = listeners.look().await else { panic!("he was not seen") };
    assert_eq!(holder.pid, Some(stranger.0.id()));
}

#[test]
fn a_port_that_somebody_holds_is_named_with_pid_command_and_user() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let holder = holder_of(listener.local_addr().unwrap()).unwrap().to_string();
    assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
    assert!(holder.contains(", user ") && holder.starts_with('`'), "{holder}");
}

#[test]
fn rows_are_read_as_the_kernel_writes_them() {
    let row = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 \
               0 4711 1 0000000000000000 100 0 0 10 0";
    let Some(Row::Listens(socket)) = Row::parse(row) else { panic!("it listens") };
    let address = if cfg!(target_endian = "little") { "127.0.0.1" } else { "1.0.0.127" };
    assert_eq!(socket, Socket { address: at(address, 8080), uid: 1000, inode: 4711 });
    let Some(Row::Connects(ends)) = Row::parse(&row.replace(" 0A ", " 01 ")) else {
        panic!("it is connected")
    };
    let addresses = ["0100007F:1F90", "00000000:0000"].map(str::to_owned);
    assert_eq!(ends, Ends { port: 8080, addresses });
    assert!(matches!(Row::parse(&row.replace(" 0A ", " 06 ")), Some(Row::Other)));
    assert!(Row::parse("what is this").is_none());
}

#[test]
fn who_is_connected_is_counted_also_before_he_is_served() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else { continue };
        let port = listener.local_addr().unwrap().port();
        assert_eq!(connected_to(port).unwrap(), 0);
        let clients = [(); 2].map(|()| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        assert_eq!(connected_to(port).unwrap(), 2);
        drop(listener);
        drop(clients);
    }
}

#[test]
fn who_is_listed_twice_is_counted_once() {
    let head = "  sl  local_address rem_address   st\n";
    let row = "   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000 \
               0 4711 1 0000000000000000 100 0 0 10 0\n";
    let another = row.replace("D431", "D432");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [head, row, &another, row].concat()).unwrap();
    assert_eq!(connected(file.path().to_str().unwrap(), 8080).unwrap(), 2);
}

#[test]
fn the_words_of_others_are_cut_and_cannot_command_a_terminal() {
    assert_eq!(cut("a\u{1b}[2Jb"), "a?[2Jb");
    assert_eq!(cut(&"x".repeat(200)).chars().count(), COMMAND_LENGTH + 1);
}

/// Another process that listens.
struct Stranger(Child);

impl Stranger {
    #[expect(clippy::disallowed_methods, reason = "a process to look at")]
    fn at(address: SocketAddr) -> Self {
        let code = "import socket,sys\n\
                    s=socket.socket()\n\
                    s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\n\
                    s.bind((sys.argv[1],int(sys.argv[2])))\n\
                    s.listen()\n\
                    sys.stdin.read()";
        let mut command = Command::new("python3");
        command.args(["-c", code, &address.ip().to_string(), &address.port().to_string()]);
        let stranger = Self(command.stdin(std::process::Stdio::piped()).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        while listening_at(address).unwrap().is_empty() {
            assert!(Instant::now() < deadline, "it does not listen");
            std::thread::yield_now();
        }
        stranger
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
