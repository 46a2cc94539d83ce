//! A launch that is made ahead of its order.

use super::*;

/// It reads a file, takes an address, and says what it is.
const SERVER: &str = "
import os, socket, sys, time

def main():
    print('began', flush=True)
    with open(os.environ['PYTHONPATH'] + '/../settings') as settings:
        print('settings', settings.read(), flush=True)
    server = socket.socket()
    server.bind(('127.0.0.1', 0))
    print('bound', *sys.argv[1:], os.environ['MARK'], os.environ['OWN'], os.getsid(0) == os.getpid(), flush=True)
    time.sleep(600)
";

const WORDS: [&str; 3] = ["/bin/vllm", "serve", "a/b"];

fn next(words: [&str; 3]) -> Ahead {
    Ahead { words: words.map(str::to_owned).to_vec(), engines: true }
}

/// One that goes ahead, and the process that waits.
fn ahead(warm: &Warm) -> (Arc<Parent>, u32) {
    let parent = ready(warm).unwrap();
    warm.go_ahead(&next(WORDS));
    let pid = waiting(&parent);
    (parent, pid)
}

fn waiting(parent: &Parent) -> u32 {
    let mut found = None;
    until("one waits", || {
        found = children(parent).into_iter().find(|pid| is_at_rest(*pid));
        found.is_some()
    });
    found.unwrap()
}

fn children(parent: &Parent) -> Vec<u32> {
    let path = format!("/proc/{0}/task/{0}/children", parent.pid);
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Whether it waits to hear, having renamed its reserve.
fn is_at_rest(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let environment = proc_fs::environment(pid).unwrap().unwrap_or_default();
    let is_ahead = proc_fs::has_variable(&environment, |it| it.starts_with(b"VLLMD_AHEAD="));
    is_ahead && call.starts_with(&format!("{} ", libc::SYS_recvmsg))
}

fn said(place: &Place) -> String {
    fs::read_to_string(place.path("log")).unwrap_or_default()
}

/// Forks it, has it run, and waits until it has taken its address.
fn run(place: &Place, parent: &Parent) -> u32 {
    let standing = place.fork(parent).unwrap();
    let pid = standing.pid;
    assert!(has_in_environment(pid, "MARK=one"));
    standing.begin();
    until("it runs", || said(place).ends_with("bound serve a/b one two True\n"));
    pid
}

fn settled(settings: &str) -> Place {
    let place = Place::with(SERVER);
    fs::write(place.path("settings"), settings).unwrap();
    place
}

#[test]
fn a_launch_like_the_one_before_goes_on_where_it_waits() {
    let place = settled("old");
    let warm = place.warm();
    let (parent, waits) = ahead(&warm);
    assert_eq!(said(&place), "", "nobody has ordered it yet");

    let pid = run(&place, &parent);

    assert_eq!(pid, waits);
    let said = said(&place);
    let (said_before, _) = said.split_once("bound").unwrap();
    assert!(said_before.ends_with("began\nsettings old\n"), "{said}");
    drop(warm);
    until("it is gone", || Stat::of(parent.pid).unwrap().is_none());
    assert!(runs(pid), "it serves on");
    end(pid);
    until("it has ended", || !runs(pid));
}

#[test]
fn one_that_has_read_what_is_not_so_any_more_is_not_used() {
    let place = settled("old");
    let warm = place.warm();
    let (parent, waits) = ahead(&warm);
    fs::write(place.path("settings"), "new").unwrap();
    let pid = run(&place, &parent);
    assert_ne!(pid, waits);
    assert!(said(&place).contains("settings new\n"));
    assert!(Stat::of(waits).unwrap().is_none());
    end(pid);
}

#[test]
fn one_that_was_killed_meanwhile_is_not_missed() {
    let place = settled("old");
    let warm = place.warm();
    let (parent, waits) = ahead(&warm);
    end(waits);
    until("it is buried", || Stat::of(waits).unwrap().is_none());
    let pid = run(&place, &parent);
    assert_ne!(pid, waits);
    end(pid);
}

#[test]
fn one_that_was_to_serve_another_is_not_used() {
    let place = settled("old");
    let warm = place.warm();
    let parent = ready(&warm).unwrap();
    warm.go_ahead(&next(["/bin/vllm", "serve", "another"]));
    let waits = waiting(&parent);
    let pid = run(&place, &parent);
    assert_ne!(pid, waits, "it was to serve another");
    assert!(Stat::of(waits).unwrap().is_none());
    end(pid);
}

#[test]
fn what_is_ordered_not_to_have_gone_ahead_has_not() {
    let place = settled("old");
    let warm = place.warm();
    let (parent, waits) = ahead(&warm);
    let standing = place.fork_as(&parent, |orders| orders.ahead = false).unwrap();
    assert_ne!(standing.pid, waits);
    assert_eq!(standing.came, Came::ToOrder);
    assert!(Stat::of(waits).unwrap().is_none());
}

#[test]
fn what_waits_ends_with_whatever_it_was_forked_from() {
    let place = settled("old");
    let warm = place.warm();
    let (parent, waits) = ahead(&warm);
    end(parent.pid);
    until("it is gone", || !runs(waits));
    drop(warm);
}

/// Its own file is compiled before, and a launch with another would run it.
#[test]
fn one_that_has_imported_what_is_not_so_any_more_is_not_used() {
    let place =
        Place::with(&SERVER.replace("    print('began'", "    import helper\n    print('began'"));
    fs::write(place.path("settings"), "old").unwrap();
    fs::write(place.path("packages/helper.py"), "a = 1\n").unwrap();
    let warm = place.warm();
    let (parent, waits) = ahead(&warm);
    fs::write(place.path("packages/helper.py"), "a = 2\n").unwrap();
    let pid = run(&place, &parent);
    assert_ne!(pid, waits);
    end(pid);
}

/// What stands before Python's functions would cost whatever calls them.
#[test]
fn nothing_stands_in_the_way_of_what_serves() {
    let say = "
    import builtins, io, subprocess, tempfile, threading
    own = [builtins.open, io.open, os.open, os.fork, socket.socket.bind, socket.socket.connect,
        subprocess._fork_exec if hasattr(subprocess, '_fork_exec') else os.fork,
        threading._start_new_thread, tempfile._candidate_tempdir_list]
    print('own', not any('held' in str(it) for it in own), 'bind' not in vars(socket.socket), flush=True)
    print('bound'";
    let place = Place::with(&SERVER.replace("\n    print('bound'", say));
    fs::write(place.path("settings"), "old").unwrap();
    let warm = place.warm();
    let (parent, waits) = ahead(&warm);
    let pid = run(&place, &parent);
    assert_eq!(pid, waits);
    assert!(said(&place).contains("own True True\n"), "{}", said(&place));
    end(pid);
}

/// What is started anew is not Python's own, and could do anything.
#[test]
fn nothing_is_started_ahead_of_the_order() {
    for start in [
        "import os\n    os.execv('/bin/sh', ['sh', '-c', 'echo started $MARK; exec sleep 600'])",
        "import subprocess\n    subprocess.run(['sh', '-c', 'echo started $MARK; exec sleep 600'])",
        "import multiprocessing, time\n    multiprocessing.get_context('spawn').Process(target=time.sleep, args=(600,)).start()\n    print('started', os.environ['MARK'], flush=True)\n    time.sleep(600)",
        "import threading\n    threading.Thread(target=lambda: print('started', os.environ['MARK'], flush=True)).start()\n    time.sleep(600)",
        "import multiprocessing\n    lock = multiprocessing.get_context('fork').Lock()\n    print('started', os.environ['MARK'], flush=True)\n    time.sleep(600)",
        "from multiprocessing.shared_memory import SharedMemory\n    made = SharedMemory(create=True, size=1)\n    made.unlink()\n    print('started', os.environ['MARK'], flush=True)\n    time.sleep(600)",
        "import tempfile\n    print(tempfile.gettempdir())\n    print('started', os.environ['MARK'], flush=True)\n    time.sleep(600)",
        "open(os.environ['PYTHONPATH'] + '/../made', 'w')\n    print('started', os.environ['MARK'], flush=True)\n    time.sleep(600)",
    ] {
        let place = Place::with(&format!("import os, time\ndef main():\n    {start}\n"));
        let warm = place.warm();
        let (parent, waits) = ahead(&warm);
        assert_eq!(said(&place), "");
        assert!(!place.path("made").exists());
        let children = fs::read_to_string(format!("/proc/{waits}/task/{waits}/children"));
        assert_eq!(children.unwrap(), "", "{start}");
        let standing = place.fork(&parent).unwrap();
        assert_eq!((standing.pid, standing.came), (waits, Came::Ahead));
        standing.begin();
        until("it runs", || said(&place).ends_with("started one\n"));
        let group = Pid::from_raw(waits.cast_signed()).unwrap();
        rustix::process::kill_process_group(group, Signal::KILL).unwrap();
    }
}

/// What is done by Python's own C, or by libraries, is seen when it has been done.
#[test]
fn one_that_has_done_what_others_notice_is_none() {
    for deed in [
        "import mmap\n    libc, name = ctypes.CDLL(None), f'/dev/shm/ahead-{os.getpid()}'.encode()\n    \
         file = libc.open(name, os.O_RDWR | os.O_CREAT, 384)\n    libc.unlink(name)\n    \
         libc.ftruncate(file, 4096)\n    held = mmap.mmap(file, 4096)",
        "ctypes.CDLL(None).popen(b'exec sleep 1', b'r')",
    ] {
        let done = "ctypes.CDLL(None).creat(f\"{os.environ['PYTHONPATH']}/../done\".encode(), 384)";
        let deed = format!("import ctypes\n    {done}\n    {deed}\n    print('began'");
        let place = Place::with(&SERVER.replace("    print('began'", &format!("    {deed}")));
        fs::write(place.path("settings"), "old").unwrap();
        let warm = place.warm();
        let parent = ready(&warm).unwrap();
        warm.go_ahead(&next(WORDS));
        until("there was one", || place.path("done").exists() && children(&parent).is_empty());
        let pid = run(&place, &parent);
        end(pid);
    }
}

/// A module that keeps what is stood before keeps what works as before.
#[test]
fn what_is_kept_of_what_was_stood_before_is_as_it_would_be() {
    let keep = "class Keeper:\n    remove = os.remove\nmade = Keeper()\n\
                same = os.open in os.supports_dir_fd\n";
    let say = "
    import helper, pickle
    open(os.environ['PYTHONPATH'] + '/../made', 'w').close()
    helper.made.remove(os.environ['PYTHONPATH'] + '/../made')
    print('kept', helper.same, pickle.loads(pickle.dumps(helper.Keeper.remove)) is os.remove, flush=True)
    print('bound'";
    let source = SERVER.replace("    print('began'", "    import helper\n    print('began'");
    let place = Place::with(&source.replace("\n    print('bound'", say));
    fs::write(place.path("settings"), "old").unwrap();
    fs::write(place.path("packages/helper.py"), format!("import os\n{keep}")).unwrap();
    let warm = place.warm();
    let (parent, waits) = ahead(&warm);
    let pid = run(&place, &parent);
    assert_eq!(pid, waits);
    assert!(said(&place).contains("kept True True\n"), "{}", said(&place));
    end(pid);
}
