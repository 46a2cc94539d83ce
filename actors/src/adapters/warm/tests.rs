//! A Python that has a package called vLLM, and what is forked from it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::adapters::ownership;

mod ahead;

/// Far longer than anything here takes, on a machine that is busy too.
const DEADLINE: Duration = Duration::from_secs(30);

/// What `vllm` is here: it says who it is, and waits to be killed.
const VLLM: &str = "
import os, sys, time

def main():
    print('words', *sys.argv[1:], os.environ['MARK'], os.environ['OWN'], flush=True)
    print('session', os.getsid(0) == os.getpid(), 'reserve', 'VLLMD_RESERVE' in os.environ, flush=True)
    time.sleep(600)
";

/// Packages, and a log.
struct Place(TempDir);

impl Place {
    fn with(vllm: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        // Apart from the log: a directory of packages that has changed is another installation.
        let metadata = place.path("packages/vllm-9.0.dist-info");
        fs::create_dir_all(&metadata).unwrap();
        fs::write(metadata.join("METADATA"), "Name: vllm\nVersion: 9.0\n").unwrap();
        let entry = "[console_scripts]\nvllm = vllm_of_a_test:main\n";
        fs::write(metadata.join("entry_points.txt"), entry).unwrap();
        fs::write(place.path("packages/vllm_of_a_test.py"), vllm).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    #[expect(clippy::disallowed_methods, reason = "this is what starts the process here")]
    fn warm(&self) -> Warm {
        let packages = self.path("packages");
        Warm::begin(Kit {
            path: self.path("bin"),
            secrets: vec![Secret::new("hf_secret")],
            lessons: Some(self.path("lessons")),
            command: Box::new(move || {
                let mut command = Command::new("python3");
                command.env("PYTHONPATH", &packages).env("PYTHONDONTWRITEBYTECODE", "1");
                command.env("VLLMD_RESERVE", ".".repeat(512));
                command
            }),
        })
        .unwrap()
    }

    fn fork(&self, parent: &Parent) -> Result<Standing, String> {
        self.fork_as(parent, |_| {})
    }

    fn fork_as(
        &self,
        parent: &Parent,
        edit: impl FnOnce(&mut Orders<'_>),
    ) -> Result<Standing, String> {
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let log = File::create(self.path("log")).unwrap();
        let mut orders = Orders {
            words: ["/bin/vllm", "serve", "a/b"].map(str::to_owned).to_vec(),
            marks: one("MARK", "one"),
            environment: one("OWN", "two"),
            learn: false,
            engines: true,
            ahead: true,
            log: &log,
            entrance: None,
        };
        edit(&mut orders);
        parent.fork(&orders)
    }
}

fn ready(warm: &Warm) -> Result<Arc<Parent>, String> {
    warm.ready(&AtomicBool::new(false))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "in vain: {what}");
        thread::yield_now();
    }
}

/// Whether a process of this number runs; one that waits for its parent does not.
fn runs(pid: u32) -> bool {
    Stat::of(pid).unwrap().is_some_and(|stat| !stat.is_zombie())
}

fn has_in_environment(pid: u32, variable: &str) -> bool {
    let environment = proc_fs::environment(pid).unwrap().unwrap_or_default();
    proc_fs::has_variable(&environment, |it| it == variable.as_bytes())
}

#[test]
fn what_is_forked_is_marked_before_it_runs_and_runs_as_it_is_told() {
    let place = Place::with(VLLM);
    let warm = place.warm();
    let standing = place.fork(&ready(&warm).unwrap()).unwrap();
    let pid = standing.pid;
    assert!(has_in_environment(pid, "MARK=one"));
    assert_eq!(fs::read_to_string(place.path("log")).unwrap(), "");

    standing.begin();

    let said = || fs::read_to_string(place.path("log")).unwrap();
    let last = "session True reserve False\n";
    until("it runs", || said().ends_with(last));
    // This vLLM has no platforms to ask whether its engine can be forked.
    let words = "vLLM forks no engine: ModuleNotFoundError(\"No module named 'vllm'\")\n";
    assert_eq!(said(), format!("{words}words serve a/b one two\n{last}"));
    let parent = ready(&warm).unwrap();
    end(pid);
    until("it has ended", || !runs(pid));
    assert!(Stat::of(pid).unwrap().is_some(), "its number is its own until we say so");
    ownership::Parent::reap(&*parent, pid);
    until("its number is free", || Stat::of(pid).unwrap().is_none());
}

fn end(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

/// What was imported is not taken apart, which takes half a second.
#[test]
fn what_was_forked_ends_as_python_ends() {
    for (end, status) in
        [("return", 0), ("return 3", 3), ("sys.exit(4)", 4), ("sys.exit('why')", 1), ("1 / 0", 1)]
    {
        let place = Place::with(&format!(
            "import atexit, ctypes, os, sys, threading, time\n\
             def main():\n    \
                 global file\n    \
                 file = open(os.environ['PYTHONPATH'] + '/../made', 'w')\n    \
                 file.write('kept')\n    \
                 ctypes.CDLL(None).printf(b'by C\\n')\n    \
                 atexit.register(print, 'at exit')\n    \
                 atexit.register(lambda: 1 / 0)\n    \
                 threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\n    \
                 {end}\n"
        ));
        let warm = place.warm();
        let standing = place.fork(&ready(&warm).unwrap()).unwrap();
        let pid = standing.pid;
        standing.begin();
        until("it has ended", || !runs(pid));
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let last = stat.trim().rsplit(' ').next().unwrap();
        assert_eq!(last, (status << 8).to_string(), "{end}");
        let said = fs::read_to_string(place.path("log")).unwrap();
        assert!(said.contains("thread\n") && said.contains("at exit\n"), "{end}: {said}");
        assert!(said.contains("ZeroDivisionError") && said.contains("by C\n"), "{end}: {said}");
        assert_eq!(fs::read_to_string(place.path("made")).unwrap(), "kept", "{end}");
    }
}

#[test]
fn what_nobody_has_begin_ends_by_itself() {
    let place = Place::with(VLLM);
    let warm = place.warm();
    let standing = place.fork(&ready(&warm).unwrap()).unwrap();
    let pid = standing.pid;
    drop(standing);
    until("it has ended", || !runs(pid));
    assert_eq!(fs::read_to_string(place.path("log")).unwrap(), "");
}

#[test]
fn it_ends_when_it_is_dropped_and_what_it_has_forked_lives() {
    let place = Place::with(VLLM);
    let warm = place.warm();
    let parent = ready(&warm).unwrap();
    let standing = place.fork(&parent).unwrap();
    let pid = standing.pid;
    standing.begin();
    drop(warm);
    until("it is gone", || Stat::of(parent.pid).unwrap().is_none());
    assert!(runs(pid));
    end(pid);
    until("it has ended", || !runs(pid));
}

#[test]
fn another_is_prepared_in_the_place_of_one_that_dies() {
    let place = Place::with(VLLM);
    let warm = place.warm();
    let first = ready(&warm).unwrap();
    end(first.pid);
    until("there is another", || ready(&warm).is_ok_and(|parent| parent.pid != first.pid));
}

#[test]
fn after_four_that_come_to_nothing_there_is_none() {
    let place = Place::with("raise SystemExit('no such luck')");
    let warm = place.warm();
    let why = ready(&warm).unwrap_err();
    assert!(why.contains("no such luck"), "{why}");
    until("it is given up", || matches!(warm.0.stage().present, Present::Unavailable(_)));
}

#[test]
fn what_runs_a_thread_is_not_forked() {
    let thread = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True, name='busy').start()\ndef main(): pass\n";
    let why = ready(&Place::with(thread).warm()).unwrap_err();
    assert!(why.contains("it runs the thread busy"), "{why}");
}

#[test]
fn a_package_that_was_upgraded_is_not_mixed_with_what_is_imported() {
    let place = Place::with(VLLM);
    let warm = place.warm();
    let parent = ready(&warm).unwrap();
    fs::write(place.path("packages/vllm_of_a_test.py"), format!("{VLLM}\n# another\n")).unwrap();
    let why = place.fork(&parent).unwrap_err();
    assert!(why.contains("has changed since it was imported"), "{why}");
}

#[test]
fn who_waits_for_it_can_be_called_off() {
    let place = Place::with("import time\ntime.sleep(600)");
    let warm = place.warm();
    let called_off = AtomicBool::new(false);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| warm.ready(&called_off).map(drop));
        called_off.store(true, Ordering::SeqCst);
        warm.wake();
        assert!(waiting.join().unwrap().unwrap_err().contains("called off"));
    });
}

#[test]
fn it_says_where_it_learns() {
    let place = Place::with(VLLM);
    let warm = place.warm();
    ready(&warm).unwrap();
    assert!(Path::new(&place.path("lessons")).is_dir());
}

#[test]
fn no_secret_is_in_what_is_said_of_one_that_ended() {
    let place = Place::with("raise SystemExit('bad answer for hf_secret')");
    let why = ready(&place.warm()).unwrap_err();
    assert!(why.contains("bad answer") && !why.contains("hf_secret"), "{why}");
}

/// What is noted only when all is imported was imported from files of two builds, perhaps.
#[test]
fn a_package_that_is_upgraded_while_it_is_imported_is_not_mixed_either() {
    let upgrade = "import os\nos.utime(__file__)\ndef main(): pass\n";
    let place = Place::with(upgrade);
    let why = place.fork(&ready(&place.warm()).unwrap()).unwrap_err();
    assert!(why.contains("has changed since it was imported"), "{why}");
}

#[test]
fn the_more_were_lost_in_a_row_the_longer_nothing_is_prepared() {
    let seconds = [0, 1, 2, 3, 9, 1000].map(|losses| pause_after(losses).as_secs());
    assert_eq!(seconds, [1, 1, 2, 4, 256, 256]);
}

/// A vLLM whose platform replaces kernels in this way.
fn replacing(how: &str) -> Place {
    let entry = format!("import vllm.triton_utils.dispatcher\n{VLLM}");
    let entry = entry.replace("    time.sleep", "    from vllm import platforms\n    platforms.current_platform.register_triton_kernel_overrides()\n    print('replaced', platforms.TIMES, flush=True)\n    time.sleep");
    let place = Place::with(&entry);
    let platforms = format!(
        "TIMES = []\n\nclass Platform:\n    def is_cpu(self):\n        return True\n\n    \
         @classmethod\n    def register_triton_kernel_overrides(cls):\n        import os\n        \
         TIMES.append('RESERVE' in str(os.environ))\n        {how}\n\n\
         current_platform = Platform()\n"
    );
    for (name, text) in [
        ("vllm/__init__.py", ""),
        ("vllm/platforms.py", &platforms),
        ("vllm/triton_utils/__init__.py", ""),
        ("vllm/triton_utils/dispatcher.py", ""),
    ] {
        let path = place.path("packages").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    place
}

fn says_of_replaced(place: &Place) -> String {
    let warm = place.warm();
    let standing = place.fork(&ready(&warm).unwrap()).unwrap();
    let pid = standing.pid;
    standing.begin();
    let said = || fs::read_to_string(place.path("log")).unwrap();
    until("it runs", || said().lines().any(|line| line.starts_with("replaced")));
    end(pid);
    said().lines().find(|line| line.starts_with("replaced")).unwrap().to_owned()
}

#[test]
fn kernels_are_replaced_once_and_where_that_fails_by_each_process() {
    assert_eq!(says_of_replaced(&replacing("pass")), "replaced [True]");
    let fails = "if TIMES == [True]: raise ValueError('not here')";
    assert_eq!(says_of_replaced(&replacing(fails)), "replaced [True, False]");
}

#[test]
fn a_launch_does_not_wait_out_the_pause_before_another_is_prepared() {
    let place = Place::with(VLLM);
    let warm = place.warm();
    for _ in 0..6 {
        let parent = ready(&warm).unwrap();
        end(parent.pid);
        until("it is missed", || !matches!(warm.0.stage().present, Present::Ready(_)));
    }
    let began = Instant::now();
    ready(&warm).unwrap();
    assert!(began.elapsed() < pause_after(6), "{:?}", began.elapsed());
}
