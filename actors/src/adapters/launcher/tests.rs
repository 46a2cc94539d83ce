//! Real processes, in place of vLLM: short shell scripts.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::claim::LAST_LINES;
use super::*;
use crate::adapters::carries_marker;
use crate::adapters::ownership::Held;
use crate::adapters::proc_fs::Stat;
use crate::domain::absence::{Doubt, Proof};
use crate::domain::diagnosis::Exit;
use crate::domain::secret::Secret;
use crate::ports::{Head, Signal};

mod finding;
mod owners;
mod stage;

use crate::domain::trust::LaunchMethod;
use stage::*;

const FIRST: Incarnation = Incarnation::new(1);
const SECOND: Incarnation = Incarnation::new(2);

/// Far longer than anything here takes, on a machine that is busy too.
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn vllm_heads_a_session_of_its_own() {
    let stage = Stage::set();
    let process = stage.launch("exec sleep 600").await;
    assert_eq!(Stat::of(process.pid()).unwrap().unwrap().session, process.pid());
}

#[tokio::test]
async fn vllm_gets_the_model_between_the_words_before_and_after() {
    let mut stage = Stage::set();
    stage.recipe.after_model = vec!["--port".to_owned(), "8000".to_owned()];
    let process = stage.launch("echo $0 $*").await;
    ended(&*process.head).await;
    assert_eq!(stage.log(), "org/model --port 8000\n");
}

#[tokio::test]
async fn vllm_gets_the_environment_that_makes_it_readable_and_findable() {
    let mut stage = Stage::set();
    stage.recipe.environment = vec![("NO_COLOR".to_owned(), "0".to_owned())];
    stage.recipe.secrets = vec![("HF_TOKEN".to_owned(), Secret::new("hf_secret"))];
    let process = stage.launch("env").await;
    ended(&*process.head).await;

    let log = stage.log();
    let variables: BTreeSet<&str> = log.lines().collect();
    let marker = format!("VLLMD_INSTANCE={}", stage.marker(FIRST));
    for variable in ["SPT_NOENV=1", "PYTHONUNBUFFERED=1", "VLLM_NO_USAGE_STATS=1", &marker] {
        assert!(variables.contains(variable), "{variable} is not in {log}");
    }
    assert!(variables.contains("NO_COLOR=0"), "the configuration did not win in {log}");
    assert!(variables.contains("HF_TOKEN=hf_secret"), "the secret did not arrive");
}

#[tokio::test]
async fn vllm_does_not_get_what_is_withheld_and_looks_where_it_is_told() {
    let mut stage = Stage::set();
    // A variable that every test of ours inherits.
    stage.recipe.withheld = vec!["CARGO_MANIFEST_DIR".into()];
    stage.recipe.path = Some("/venv/bin:/usr/bin:/bin".into());
    let process = stage.launch("env").await;
    ended(&*process.head).await;
    let log = stage.log();
    assert!(!log.contains("CARGO_MANIFEST_DIR="), "{log}");
    assert!(log.lines().any(|line| line == "PATH=/venv/bin:/usr/bin:/bin"), "{log}");
}

#[tokio::test]
async fn temporary_files_of_vllm_lie_in_its_private_directory_and_go_with_it() {
    let stage = Stage::set();
    let script = "test $TMPDIR = $VLLM_RPC_BASE_PATH && echo > $TMPDIR/left && pwd";
    let process = stage.launch(script).await;
    assert_eq!(ended(&*process.head).await, Exit::Code(0));
    assert!(!stage.leaves_no_traces());
    assert_eq!(process.claim.sweep().await, gone());
    assert!(stage.leaves_no_traces());
}

#[tokio::test]
async fn a_debug_output_shows_no_secret() {
    let mut stage = Stage::set();
    stage.recipe.secrets = vec![("HF_TOKEN".to_owned(), Secret::new("hf_secret"))];
    let launcher = stage.launcher("exec sleep 600");
    let claim = launcher.claim(FIRST, &model(), LaunchMethod::Tree).unwrap();
    let before = format!("{launcher:?} {claim:?}");
    claim.start().await.unwrap();
    let shown = format!("{before} {claim:?}");
    assert!(!shown.contains("hf_secret"), "{shown}");
    assert_eq!(claim.sweep().await, gone());
}

#[tokio::test]
async fn a_launch_waits_for_the_supervisor_that_has_taken_the_place_of_ours() {
    let stage = Stage::set();
    fs::remove_dir_all(stage.state.path()).unwrap();
    let other = StateDirectory::open(stage.state.path()).unwrap();
    let launcher = stage.launcher("exit 0");
    let cause = launcher.claim(FIRST, &model(), LaunchMethod::Tree).unwrap_err();
    assert_eq!(cause.code, Code::InvalidConfiguration);
    assert_eq!(cause.retry, RetryClass::AfterCleanup);
    drop(other);
    // Another test's child may hold the lock's descriptor between its fork and its exec.
    until("it is free", || launcher.claim(FIRST, &model(), LaunchMethod::Tree).is_ok()).await;
}

#[tokio::test]
async fn a_state_directory_that_was_removed_is_made_anew_at_the_next_launch() {
    let stage = Stage::set();
    assert_eq!(stage.launch("true").await.claim.sweep().await, gone());
    fs::remove_dir_all(stage.state.path()).unwrap();
    stage.launch("echo there").await;
    assert!(stage.record().read().unwrap().is_some());
}

#[tokio::test]
async fn a_disk_that_is_full_or_a_directory_that_is_gone_for_now_is_no_permanent_failure() {
    let mut stage = Stage::set();
    stage.recipe.scratch = vec!["/nonexistent".into()];
    let cause = stage.launcher("true").claim(FIRST, &model(), LaunchMethod::Tree).unwrap_err();
    assert_eq!(cause.retry, RetryClass::Transient, "{cause}");
}

#[tokio::test]
async fn the_marker_cannot_be_configured_away() {
    let mut stage = Stage::set();
    stage.recipe.environment = vec![("VLLMD_INSTANCE".to_owned(), "mine".to_owned())];
    let process = stage.launch("exec sleep 600").await;
    until("it carries its marker", || carries_marker(process.pid(), &stage.recipe.marker_prefix))
        .await;
}

#[tokio::test]
async fn a_log_is_locked_until_nothing_of_its_launch_writes_to_it() {
    let stage = Stage::set();
    let process = stage.launch("sleep 600 & echo $!").await;
    ended(&*process.head).await;
    let log = File::open(stage.state.log_of(FIRST)).unwrap();
    let take = || flock(&log, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(take(), Err(Errno::WOULDBLOCK));

    assert_eq!(process.claim.sweep().await, gone());

    until("it is free", || take().is_ok()).await;
}

#[tokio::test]
async fn both_outputs_go_to_a_log_that_nobody_else_may_read() {
    let stage = Stage::set();
    let process = stage.launch("echo out; echo err >&2").await;
    ended(&*process.head).await;
    assert_eq!(stage.log(), "out\nerr\n");
    let mode = fs::metadata(stage.state.log_of(FIRST)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn nobody_answers_what_vllm_asks_on_its_input() {
    let stage = Stage::set();
    let process = stage.launch("readlink /proc/self/fd/0").await;
    ended(&*process.head).await;
    assert_eq!(stage.log(), "/dev/null\n");
}

#[tokio::test]
async fn a_program_that_is_missing_is_vlm_007_and_leaves_nothing() {
    let mut stage = Stage::set();
    stage.recipe.before_model = vec!["/nonexistent/vllm".to_owned()];

    let cause = stage.refuses(&stage.own_launcher()).await;

    assert_eq!(cause.code, Code::VllmNotFound);
    assert!(cause.summary.contains("/nonexistent/vllm"), "{cause}");
    assert!(stage.leaves_no_traces());
}

#[tokio::test]
async fn a_program_that_may_not_be_executed_is_vlm_007_and_named() {
    let mut stage = Stage::set();
    let program = stage.directory.path().join("vllm");
    fs::write(&program, "no program").unwrap();
    stage.recipe.before_model = vec![program.to_str().unwrap().to_owned()];

    let cause = stage.refuses(&stage.own_launcher()).await;

    assert_eq!(cause.code, Code::VllmNotFound);
    assert!(cause.summary.contains("may not be executed"), "{cause}");
}

#[tokio::test]
async fn a_port_that_somebody_holds_is_vlm_005_and_nothing_is_started() {
    let mut stage = Stage::set();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    stage.recipe.address = holder.local_addr().unwrap();

    let cause = stage.launcher("true").claim(FIRST, &model(), LaunchMethod::Tree).unwrap_err();

    assert_eq!(cause.code, Code::PortInUse);
    assert!(cause.summary.contains(&stage.recipe.address.to_string()), "{cause}");
    assert!(!stage.state.log_of(FIRST).exists());
}

#[tokio::test]
async fn what_is_left_running_is_known_by_its_whole_address() {
    let mut stage = Stage::set();
    let words = ["--host", "127.0.0.2", "--port", "8000"];
    stage.recipe.after_model = words.map(str::to_owned).to_vec();
    let process = stage.launch("exec sleep 600").await;
    let left = |address: &str| left_running(stage.state.path(), address.parse().unwrap());
    assert_eq!(left("127.0.0.2:8000"), Some(process.pid()));
    assert_eq!(left("127.0.0.1:8000"), None);
    assert_eq!(left("127.0.0.2:8001"), None);
}

#[tokio::test]
async fn a_launch_that_fails_does_not_forget_the_one_before() {
    let mut stage = Stage::set();
    let process = stage.launch("exec sleep 600").await;
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    stage.recipe.address = holder.local_addr().unwrap();

    stage.launcher("true").claim(SECOND, &model(), LaunchMethod::Tree).unwrap_err();

    let record = stage.record().read().unwrap().unwrap();
    assert_eq!(record.main.map(|main| main.0), Some(process.pid()));
}

#[tokio::test]
async fn an_exit_status_and_a_signal_are_read() {
    let stage = Stage::set();
    assert_eq!(ended(&*stage.launch("exit 7").await.head).await, Exit::Code(7));
    assert_eq!(ended(&*stage.launch("kill -TERM $$").await.head).await, Exit::Signal(15));
}

#[tokio::test]
async fn the_main_process_alone_is_signalled() {
    let stage = Stage::set();
    let process = stage.launch("sleep 600 & echo $!; wait").await;
    let helper = stage.pid_in_log().await;

    process.head.signal(Signal::Terminate);

    assert_eq!(ended(&*process.head).await, Exit::Signal(15));
    assert!(is_alive(helper));
}

#[tokio::test]
async fn a_sweep_kills_who_left_the_session_too_and_removes_every_trace() {
    let stage = Stage::set();
    let process = stage.launch("setsid sleep 600 & echo $!; exec sleep 600").await;
    let runaway = stage.pid_in_log().await;
    until("it has a session of its own", || {
        Stat::of(runaway).unwrap().is_some_and(|stat| stat.session == runaway)
    })
    .await;
    assert!(!stage.leaves_no_traces());

    assert_eq!(process.claim.sweep().await, gone());
    assert!(!is_alive(process.pid()) && !is_alive(runaway));
    assert!(stage.leaves_no_traces());
    assert!(stage.state.log_of(FIRST).exists(), "the log stays, to be read");
}

#[tokio::test]
async fn a_guards_sweep_needs_no_runtime() {
    let stage = Stage::set();
    let process = stage.launch("sleep 600 & exec sleep 600").await;
    let guard = Arc::clone(&process.claim);
    assert_eq!(std::thread::spawn(move || guard.sweep_blocking()).join().unwrap(), gone());
    assert!(!is_alive(process.pid()));
    assert!(stage.leaves_no_traces());
}

#[tokio::test]
async fn the_last_lines_are_told_without_the_secrets() {
    let mut stage = Stage::set();
    stage.recipe.secrets = vec![("HF_TOKEN".to_owned(), Secret::new("hf_secret"))];
    let process = stage.launch("seq 1 30; echo the token is $HF_TOKEN.").await;
    ended(&*process.head).await;

    let lines = process.claim.evidence().await.last_lines;

    assert_eq!(lines.len(), LAST_LINES);
    assert_eq!(lines.first().unwrap(), "12");
    assert_eq!(lines.last().unwrap(), "the token is ********.");
}

/// Other tests of this process hold some as well, each for a moment.
#[tokio::test]
async fn fifty_launches_leave_no_descriptors_open() {
    let stage = Stage::set();
    let launcher = stage.launcher("true");
    let before = pidfds();

    for number in 1..=50 {
        let claim = launcher.claim(Incarnation::new(number), &model(), LaunchMethod::Tree).unwrap();
        ended(&*claim.start().await.unwrap()).await;
        assert_eq!(claim.sweep().await, gone());
    }

    until("the descriptors are closed", || pidfds() < before + 25).await;
}
