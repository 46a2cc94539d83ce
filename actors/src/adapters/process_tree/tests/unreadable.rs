//! What a supervisor that is not root can say of processes that show it nothing. Each of these tests
//! runs again as a user of its own, if we are root.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Child;

use super::*;

const AGAIN: &str = "VLLM_SUPERVISOR_TEST_AS_ANOTHER_USER";

/// Shows its environment to nobody from now on, as ssh-agent and the sshd of a login do.
const HIDE: &str = "import ctypes,os,time\n\
                    ctypes.CDLL(None).prctl(4,0)\n";

/// How the test runs again.
#[derive(Clone, Copy)]
enum As {
    User(u32),
    /// Where `/proc` shows nothing of whom we may not trace.
    UserWhoSeesLess(u32),
}

/// Runs the test of this name again as another user; true in that process.
#[expect(clippy::disallowed_methods, reason = "it is this very program that is started")]
fn is_run_as(whom: As, name: &str) -> bool {
    if std::env::var_os(AGAIN).is_some() {
        return true;
    }
    if !rustix::process::geteuid().is_root() {
        // Nor can we mount anything.
        return matches!(whom, As::User(_));
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let name = format!("adapters::process_tree::tests::unreadable::{name}");
    let mut command = match whom {
        As::User(user) => {
            let mut command = Command::new(program);
            command.uid(user).gid(user);
            command
        }
        As::UserWhoSeesLess(user) => {
            let script = "mount -t proc -o hidepid=1 proc /proc && \
                          exec setpriv --reuid $0 --regid $0 --clear-groups \"$@\"";
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-c", script, &user.to_string()]).arg(program);
            command
        }
    };
    command.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(AGAIN, "1");
    command.current_dir("/").env_remove("TMPDIR");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{wrong}");
    false
}

/// One that hides and sleeps.
struct Shy(Child);

impl Shy {
    #[expect(clippy::disallowed_methods, reason = "a process to look at")]
    fn begin(code: &str) -> Self {
        let code = format!("{HIDE}{code}\ntime.sleep(600)");
        let mut command = Command::new("python3");
        command.args(["-c", &code]).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    async fn shows_nothing(&self) {
        until("it shows nothing", || proc_fs::environment(self.0.id()).is_err()).await;
    }
}

impl Drop for Shy {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn nobodys_tree() -> ProcessTree {
    ProcessTree::of_other(None, &proc_fs::random_uuid().unwrap()).unwrap()
}

#[tokio::test]
async fn a_stranger_of_the_same_user_who_shows_nothing_does_not_stand_in_the_way_for_ever() {
    let name = "a_stranger_of_the_same_user_who_shows_nothing_does_not_stand_in_the_way_for_ever";
    if !is_run_as(As::User(65501), name) {
        return;
    }
    let shy = Shy::begin("os.setsid()");
    shy.shows_nothing().await;
    assert_eq!(nobodys_tree().remaining_in_the_end(), Ok(Vec::new()));
}

#[tokio::test]
async fn who_is_older_than_the_claim_is_a_stranger_whatever_it_shows() {
    let name = "who_is_older_than_the_claim_is_a_stranger_whatever_it_shows";
    if !is_run_as(As::User(65506), name) {
        return;
    }
    let shy = Shy::begin("os.setsid()");
    shy.shows_nothing().await;
    let began = stat(shy.0.id()).unwrap().start_time;
    until("time has passed", || proc_fs::start_time_now() > began).await;
    let tree = ProcessTree::claim(&proc_fs::random_uuid().unwrap()).unwrap();
    // By one look, before anything was started.
    assert_eq!(tree.remaining(), Ok(Vec::new()));
}

#[tokio::test]
async fn who_shows_nothing_in_the_session_of_a_stranger_is_one_at_once() {
    if !is_run_as(As::User(65502), "who_shows_nothing_in_the_session_of_a_stranger_is_one_at_once")
    {
        return;
    }
    if std::env::var_os(AGAIN).is_some() {
        // Who heads the session that we were started in may have ended.
        rustix::process::setsid().unwrap();
    }
    let shy = Shy::begin("");
    shy.shows_nothing().await;
    // By one look: nobody is waited for.
    assert_eq!(nobodys_tree().remaining(), Ok(Vec::new()));
}

#[tokio::test]
async fn a_member_who_shows_nothing_is_one_after_it_left_session_and_parent() {
    let name = "a_member_who_shows_nothing_is_one_after_it_left_session_and_parent";
    if !is_run_as(As::User(65503), name) {
        return;
    }
    let hidden = format!("{HIDE}os.setsid()\ntime.sleep(600)");
    let planted = Planted::ungrouped(&format!("python3 -c '{hidden}' & exec sleep 600"));
    let hides = |pid: &u32| *pid != planted.main() && proc_fs::environment(*pid).is_err();
    until("it is seen and hides", || planted.pids().iter().any(hides)).await;
    planted.tree.signal_main(Signal::KILL);
    in_time(planted.tree.ended()).await;

    let left = planted.pids();

    assert_eq!(left.len(), 1, "{left:?}");
    swept(&planted.tree);
    assert_eq!(planted.pids(), [0; 0]);
}

#[tokio::test]
async fn whoever_is_in_a_session_that_a_member_heads_is_one() {
    if !is_run_as(As::User(65504), "whoever_is_in_a_session_that_a_member_heads_is_one") {
        return;
    }
    // Its parent has ended before anybody could look, but for the session.
    let hidden = format!("{HIDE}time.sleep(600)");
    let script = format!("(env -i python3 -c \"{hidden}\" &)\nsleep 600; :");
    let planted = Planted::ungrouped(&format!("setsid sh -c '{script}' & exec sleep 600"));
    until("it is seen", || planted.pids().iter().any(|pid| proc_fs::environment(*pid).is_err()))
        .await;
    swept(&planted.tree);
    assert_eq!(planted.pids(), [0; 0]);
}

#[tokio::test]
async fn who_hides_everything_and_is_another_users_is_a_stranger() {
    let name = "who_hides_everything_and_is_another_users_is_a_stranger";
    if !is_run_as(As::UserWhoSeesLess(65505), name) {
        return;
    }
    assert!(Stat::of(1).is_err_and(|error| proc_fs::is_refusal(&error)));
    assert_eq!(nobodys_tree().remaining_in_the_end(), Ok(Vec::new()));
    let shy = Shy::begin("os.setsid()");
    until("it shows nothing", || Stat::of(shy.0.id()).is_err()).await;
    assert_eq!(nobodys_tree().remaining_in_the_end(), Ok(Vec::new()));
}

#[tokio::test]
async fn members_are_found_where_our_parent_may_not_be_looked_at() {
    let name = "members_are_found_where_our_parent_may_not_be_looked_at";
    if !is_run_as(As::UserWhoSeesLess(65508), name) {
        return;
    }
    let parent = Stat::of(std::process::id()).unwrap().unwrap().parent;
    assert!(Stat::of(parent).is_err_and(|error| proc_fs::is_refusal(&error)));
    let planted = Planted::ungrouped("setsid env -i sleep 600 & exec sleep 600");
    until("both are seen", || planted.pids().len() == 2).await;
    swept(&planted.tree);
    assert_eq!(planted.pids(), [0; 0]);
}

#[tokio::test]
async fn a_directory_in_which_nobody_may_write_goes_with_its_launch() {
    let name = "a_directory_in_which_nobody_may_write_goes_with_its_launch";
    if !is_run_as(As::User(65507), name) {
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let (scratch, cache) = (parent.path().join("vllmd-x"), parent.path().join("vllmd-x/a/cache"));
    std::fs::create_dir_all(&cache).unwrap();
    std::fs::write(cache.join("file"), "").unwrap();
    for directory in [&cache, &parent.path().join("vllmd-x/a")] {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o555)).unwrap();
    }
    crate::adapters::scratch::remove(&scratch).unwrap();
    assert!(!scratch.exists());
}

/// Nothing tells of it, however long it is waited for: a doubt, and never a proof.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a process to look at")]
async fn who_shows_nothing_in_a_session_whose_leader_has_ended_stays_a_doubt() {
    let name = "who_shows_nothing_in_a_session_whose_leader_has_ended_stays_a_doubt";
    if !is_run_as(As::User(65509), name) {
        return;
    }
    let began = proc_fs::start_time_now();
    let script = format!("python3 -c '{HIDE}time.sleep(600)' >&2 & echo $$ $!");
    let mut command = Command::new("setsid");
    command.args(["/bin/sh", "-c", &script]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (session, pid) = said.trim().split_once(' ').unwrap();
    let (session, pid): (u32, u32) = (session.parse().unwrap(), pid.parse().unwrap());
    let held = Held::open(pid, stat(pid).unwrap().start_time).unwrap().unwrap();
    until("it shows nothing", || proc_fs::environment(pid).is_err()).await;
    let marker = proc_fs::random_uuid().unwrap();
    let found = ProcessTree::of_other(Some((session, began)), &marker).unwrap();

    let swept = found.sweep();

    let lives = stat(pid).is_some_and(|stat| !stat.is_zombie());
    held.send(Signal::KILL);
    assert!(swept.is_err() || !lives, "proven gone, and it lives: {swept:?}");
}
