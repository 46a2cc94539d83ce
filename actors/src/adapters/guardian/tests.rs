//! Guardians of real processes, for a "supervisor" that a test can kill.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tempfile::TempDir;
use tokio::time::Instant;

use super::super::ownership::Segments;
use super::super::pause::pause;
use super::super::proc_fs::{self, Stat, random_uuid};
use super::*;

mod shared_memory;

/// Far longer than anything here takes, on a machine that is busy too.
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn when_the_supervisor_dies_everything_with_the_marker_is_gone_and_its_directories_too() {
    let stage = Stage::set();
    let vllm = stage.start("setsid sleep 600 & exec sleep 600");
    let _guardian = stage.guardian();
    until("both run", || stage.members().len() == 2);

    stage.kill_the_supervisor();

    until("nobody is left", || stage.members().is_empty());
    until("its directory is removed", || !stage.scratch().exists());
    assert!(!is_alive(vllm));
}

#[test]
fn who_has_neither_session_nor_marker_is_known_by_whose_child_he_is() {
    let stage = Stage::set();
    stage.start("env -u VLLMD_INSTANCE setsid sleep 600.5 & exec sleep 600");
    let guardian = stage.guardian();
    let mut helper = None;
    until("the helper runs", || {
        helper =
            stage.children_of_members().into_iter().find(|pid| command_line(*pid) == "sleep 600.5");
        helper.is_some()
    });

    stage.kill_the_supervisor();

    until("it is gone", || !is_alive(helper.unwrap()));
    until("the guardian too", || !is_alive(guardian.pid()));
}

#[test]
fn who_was_named_is_ended_and_a_stranger_with_his_number_is_not() {
    let stage = Stage::set();
    let [named, stranger] = ["named", "stranger"].map(|name| {
        let pid = stage.spawn(command("sleep").arg("600").env("STAGE", name));
        (pid, stat(pid).unwrap().start_time)
    });
    let guardian = stage.guardian();
    guardian.note(&[(0, 0), named, (stranger.0, stranger.1 + 1)]);

    stage.kill_the_supervisor();

    until("who was named is gone", || !is_alive(named.0));
    until("the guardian too", || !is_alive(guardian.pid()));
    assert!(is_alive(stranger.0));
}

#[test]
fn the_session_of_the_main_process_is_ended_though_nobody_in_it_carries_the_marker() {
    let stage = Stage::set();
    let script = "sleep 600 & exec sleep 600";
    let main = stage.spawn(command("setsid").args(["sh", "-c", script]));
    until("it has a session", || stat(main).is_some_and(|stat| stat.session == main));
    let in_session = || processes().into_iter().filter(|stat| stat.session == main).count();
    until("both run", || in_session() == 2);
    let guardian = stage.guardian();
    guardian.note(&[(main, stat(main).unwrap().start_time)]);

    stage.kill_the_supervisor();

    until("nobody is left", || in_session() == 0);
}

#[test]
fn a_session_whose_leader_has_ended_is_left_alone_unless_a_member_is_in_it() {
    for with_a_member in [false, true] {
        let stage = Stage::set();
        let script =
            "sleep 600 & if [ -n \"$MEMBER\" ]; then VLLMD_INSTANCE=$MEMBER sleep 600 & fi";
        let mut leader = command("setsid");
        leader.args(["sh", "-c", script]);
        if with_a_member {
            leader.env("MEMBER", &stage.marker);
        }
        let began = proc_fs::start_time_now();
        let leader = stage.spawn(&mut leader);
        stage.reap(leader);
        let inside = || processes().into_iter().filter(|stat| stat.session == leader).count();
        until("they run", || inside() == 1 + usize::from(with_a_member));
        let guardian = stage.guardian();
        guardian.note(&[(leader, began)]);

        stage.kill_the_supervisor();

        until("the guardian has ended", || !is_alive(guardian.pid()));
        assert_eq!(inside(), usize::from(!with_a_member));
        kill(processes().iter().filter(|stat| stat.session == leader).map(|stat| stat.pid));
    }
}

#[test]
fn a_dismissed_guardian_ends_nothing_and_leaves_no_zombie() {
    let stage = Stage::set();
    let vllm = stage.start("exec sleep 600");
    let guardian = stage.guardian();
    let pid = guardian.pid();

    drop(guardian);

    assert_eq!(stat(pid), None);
    stage.kill_the_supervisor();
    assert!(is_alive(vllm) && stage.scratch().exists());
}

#[test]
fn a_guardian_holds_no_descriptor_but_one_and_has_a_session_and_a_name_of_its_own() {
    let stage = Stage::set();
    let guardian = stage.guardian();
    let pid = guardian.pid();
    let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    until("it is on guard", || name() == "llm-guardian\n" && command_line(pid) == "llm-guardian");

    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let targets: Vec<_> = descriptors.map(|it| fs::read_link(it.path()).unwrap()).collect();

    assert_eq!(targets, [Path::new("anon_inode:[pidfd]")]);
    assert_eq!(stat(pid).unwrap().session, pid);
}

#[test]
fn no_signal_but_sigkill_ends_a_guardian() {
    let stage = Stage::set();
    let guardian = stage.guardian();
    until("it is on guard", || command_line(guardian.pid()) == "llm-guardian");
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::USR1, Signal::PIPE] {
        pidfd_send_signal(&guardian.pidfd, signal).unwrap();
    }
    stage.start("exec sleep 600");
    stage.kill_the_supervisor();
    until("nobody is left", || stage.members().is_empty());
}

#[test]
fn who_runs_on_without_a_first_thread_is_ended_too() {
    let stage = Stage::set();
    let code = "import ctypes,threading,time\n\
                threading.Thread(target=time.sleep,args=(600,)).start()\n\
                ctypes.CDLL(None).pthread_exit(None)";
    let pid = stage.spawn(command("python3").args(["-c", code]).env(MARKER, &stage.marker));
    until("its first thread has ended", || {
        stat(pid).is_some_and(|stat| stat.state == 'Z' && !stat.is_zombie())
    });
    let guardian = stage.guardian();
    guardian.note(&[(pid, stat(pid).unwrap().start_time)]);

    stage.kill_the_supervisor();

    until("the guardian has ended", || !is_alive(guardian.pid()));
    assert!(!is_alive(pid), "it lives on");
}

#[test]
fn a_guardian_that_cannot_look_goes_on_until_it_can() {
    let stage = Stage::set();
    stage.start("exec sleep 600");
    let guardian = stage.guardian();
    let number = guardian.pid();
    until("it is on guard", || command_line(number) == "llm-guardian");
    let pid = Pid::from_raw(i32::try_from(number).unwrap());
    let limit = |current| {
        let usual = getrlimit(Resource::Nofile);
        prlimit(pid, Resource::Nofile, Rlimit { current, ..usual }).unwrap()
    };
    let usual = limit(Some(0));
    let began = pauses_of(number);

    stage.kill_the_supervisor();

    // It pauses ten milliseconds between looks, and believes in nobody after half a second.
    until("it has looked long enough", || {
        pauses_of(number).is_none_or(|it| it > began.unwrap() + 100)
    });
    assert!(is_alive(number), "it gave up");
    limit(usual.current);
    until("nobody is left", || stage.members().is_empty());
}

/// A limit holds for a whole process, and so do its children: this runs again in one of its own.
#[test]
fn a_guardian_that_cannot_be_held_leaves_no_zombie() {
    const AGAIN: &str = "VLLM_SUPERVISOR_TEST_AGAIN";
    if std::env::var_os(AGAIN).is_none() {
        let name = "adapters::guardian::tests::a_guardian_that_cannot_be_held_leaves_no_zombie";
        let mut again = command(std::env::current_exe().unwrap().to_str().unwrap());
        let output = again.args(["--exact", name]).env(AGAIN, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let us = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let guarded = Guarded {
        marker: random_uuid().unwrap(),
        cgroup: None,
        directories: Vec::new(),
        older: Older::default(),
    };
    let usual = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..usual }).unwrap();
    let guardian = Guardian::watch_for(us, &guarded);
    setrlimit(Resource::Nofile, usual).unwrap();

    assert!(matches!(guardian, Err(GuardianError::System { step: "its pidfd", .. })));
    let child = waitid(WaitId::All, ended_child() | WaitIdOptions::NOHANG);
    assert_eq!(child.unwrap_err(), rustix::io::Errno::CHILD);
}

/// How often a process has gone to sleep.
fn pauses_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

#[test]
fn links_in_a_directory_are_removed_and_not_followed() {
    let stage = Stage::set();
    let elsewhere = stage.directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("precious"), "").unwrap();
    std::os::unix::fs::symlink(&elsewhere, stage.scratch().join("link")).unwrap();
    fs::create_dir_all(stage.scratch().join("a/b")).unwrap();
    fs::write(stage.scratch().join("a/b/c"), "").unwrap();
    let _guardian = stage.guardian();

    stage.kill_the_supervisor();

    until("it is removed", || !stage.scratch().exists());
    assert!(elsewhere.join("precious").exists());
}

/// A stand-in for the supervisor, and everything that was started.
struct Stage {
    directory: TempDir,
    marker: String,
    supervisor: std::sync::Mutex<Child>,
    started: std::sync::Mutex<Vec<Child>>,
}

impl Stage {
    fn set() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("scratch")).unwrap();
        let supervisor = command("sleep").arg("600").spawn().unwrap();
        Self {
            directory,
            marker: random_uuid().unwrap(),
            supervisor: supervisor.into(),
            started: std::sync::Mutex::default(),
        }
    }

    fn scratch(&self) -> PathBuf {
        self.directory.path().join("scratch")
    }

    fn guardian(&self) -> Guardian {
        let before = Segments::before_launch().unwrap();
        self.guardian_of(before.older().clone())
    }

    fn guardian_of(&self, older: Older) -> Guardian {
        let pid = i32::try_from(self.supervisor.lock().unwrap().id()).unwrap();
        let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        let guarded = Guarded {
            marker: self.marker.clone(),
            cgroup: None,
            directories: vec![self.scratch()],
            older,
        };
        Guardian::watch_for(pidfd, &guarded).unwrap()
    }

    fn kill_the_supervisor(&self) {
        let mut supervisor = self.supervisor.lock().unwrap();
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
    }

    fn spawn(&self, command: &mut Command) -> u32 {
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        self.started.lock().unwrap().push(child);
        pid
    }

    /// Waits for the end of one that was spawned: its number is free.
    fn reap(&self, pid: u32) {
        let mut started = self.started.lock().unwrap();
        started.iter_mut().find(|child| child.id() == pid).unwrap().wait().unwrap();
    }

    /// Starts a script that carries the marker.
    fn start(&self, script: &str) -> u32 {
        self.spawn(command("sh").args(["-c", script]).env(MARKER, &self.marker))
    }

    /// Starts a member that has these files mapped.
    fn map_in_member(&self, files: &[&Path]) {
        let code = "import mmap,sys,time\n\
                    files=[open(p,'r+b') for p in sys.argv[1:]]\n\
                    kept=[mmap.mmap(f.fileno(),0) for f in files]\n\
                    time.sleep(600)";
        let pid =
            self.spawn(command("python3").args(["-c", code]).args(files).env(MARKER, &self.marker));
        until("they are mapped", || {
            let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
            files.iter().all(|file| maps.contains(file.to_str().unwrap()))
        });
    }

    fn members(&self) -> Vec<u32> {
        let marker = format!("{MARKER}={}", self.marker);
        let carries_it = |pid: &u32| {
            let environment = proc_fs::environment(*pid).ok().flatten().unwrap_or_default();
            proc_fs::has_variable(&environment, |it| it == marker.as_bytes())
        };
        processes().into_iter().map(|stat| stat.pid).filter(carries_it).collect()
    }

    fn children_of_members(&self) -> Vec<u32> {
        let members = self.members();
        let children = processes().into_iter().filter(|stat| members.contains(&stat.parent));
        children.map(|stat| stat.pid).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kill_the_supervisor();
        kill(self.members().into_iter().chain(self.children_of_members()));
        for child in self.started.lock().unwrap().iter_mut() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "processes to look at")]
fn command(program: &str) -> Command {
    Command::new(program)
}

fn kill(pids: impl Iterator<Item = u32>) {
    for pid in pids {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).ok();
    }
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !stat.is_zombie())
}

fn stat(pid: u32) -> Option<Stat> {
    Stat::of(pid).unwrap()
}

fn command_line(pid: u32) -> String {
    proc_fs::command_line(pid).unwrap().unwrap_or_default()
}

/// Those that run.
fn processes() -> Vec<Stat> {
    let all = proc_fs::pids().unwrap().into_iter().filter_map(stat);
    all.filter(|stat| !stat.is_zombie()).collect()
}

/// Waits until something is so that nobody tells of.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        pause(Duration::from_millis(5));
    }
}
