//! What can be said where the system gives no descriptors. A limit holds for a whole process, so each
//! of these tests runs again in a process of its own.

use std::cell::RefCell;
use std::fs::File;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::*;
use crate::domain::absence::Doubt;

/// In the environment of the process that a test runs again in.
const AGAIN: &str = "VLLM_SUPERVISOR_TEST_AGAIN";

/// Runs the test of this name again, alone; true in that process.
#[expect(clippy::disallowed_methods, reason = "it is this very program that is started")]
fn is_alone(name: &str) -> bool {
    if std::env::var_os(AGAIN).is_some() {
        return true;
    }
    let name = format!("adapters::process_tree::tests::limits::{name}");
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(AGAIN, "1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{wrong}");
    false
}

/// Takes every descriptor there is, also those that the watch has while it looks.
async fn exhaust(tree: &ProcessTree) -> Vec<File> {
    let limit = Rlimit { current: Some(128), maximum: Some(4096) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let taken = RefCell::new(Vec::new());
    until("nobody can look", || {
        {
            // The watch has a descriptor as long as it looks.
            let _nobody_looks = tree.watched.roster();
            taken.borrow_mut().extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
        }
        tree.remaining().is_err_and(|error| error.said.contains("Too many open files"))
    })
    .await;
    taken.into_inner()
}

fn is_dead(pid: u32) -> bool {
    stat(pid).is_none_or(|stat| stat.is_zombie())
}

#[tokio::test]
async fn at_the_limit_of_descriptors_a_living_process_is_not_declared_dead() {
    if !is_alone("at_the_limit_of_descriptors_a_living_process_is_not_declared_dead") {
        return;
    }
    let planted = Planted::new("exec sleep 600");
    let taken = exhaust(&planted.tree).await;
    assert!(planted.tree.sample().is_err(), "nobody can measure");
    assert!(planted.tree.main_is_alive());
    let ended = timeout(Duration::from_millis(500), planted.tree.ended()).await;
    assert!(ended.is_err(), "{ended:?}");
    drop(taken);
}

#[tokio::test]
async fn at_the_limit_of_descriptors_a_death_is_told_all_the_same() {
    if !is_alone("at_the_limit_of_descriptors_a_death_is_told_all_the_same") {
        return;
    }
    let planted = Planted::new("exec sleep 600");
    let taken = exhaust(&planted.tree).await;
    planted.tree.signal_main(Signal::KILL);
    assert_eq!(in_time(planted.tree.ended()).await, Exit::Signal(9));
    drop(taken);
}

#[tokio::test]
async fn at_the_limit_of_descriptors_a_sweep_proves_its_work_with_what_was_kept_for_it() {
    if !is_alone("at_the_limit_of_descriptors_a_sweep_proves_its_work_with_what_was_kept_for_it") {
        return;
    }
    let planted = Planted::new("sleep 600 & exec sleep 600");
    until("both are seen", || planted.pids().len() == 2).await;
    let pids = planted.pids();
    let taken = exhaust(&planted.tree).await;
    let swept = planted.tree.sweep();
    drop(taken);
    assert!(swept.is_ok(), "{swept:?}");
    assert!(pids.into_iter().all(is_dead));
}

#[tokio::test]
async fn without_any_descriptor_a_sweep_kills_whom_it_knows_and_claims_no_more_than_it_saw() {
    if !is_alone(
        "without_any_descriptor_a_sweep_kills_whom_it_knows_and_claims_no_more_than_it_saw",
    ) {
        return;
    }
    let planted = Planted::new("sleep 600 & exec sleep 600");
    until("both are seen", || planted.pids().len() == 2).await;
    let pids = planted.pids();
    planted.tree.reserve.give();
    let taken = exhaust(&planted.tree).await;
    let swept = planted.tree.sweep();
    drop(taken);
    // The dead give back the descriptors that they were held by, which may do for a look.
    match swept {
        Ok(_) => assert!(pids.iter().all(|pid| is_dead(*pid))),
        Err(doubt) => assert!(matches!(doubt, Doubt::Unseen(_)), "{doubt:?}"),
    }
    until("they are dead", || pids.iter().all(|pid| is_dead(*pid))).await;
}
