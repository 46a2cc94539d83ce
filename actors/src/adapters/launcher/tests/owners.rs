//! Whose a vLLM is that was left running, where state directories are copied, moved and restored.

use std::os::unix::fs::MetadataExt;

use super::finding::{copy_files, find_in_the_end};
use super::*;
use crate::domain::diagnosis::Phase;
use crate::domain::target::{Arguments, Target};
use crate::domain::trust::LaunchMethod;
use crate::testing::harness::target;

/// A supervisor adopts by a copy; its lock stands in no environment.
#[tokio::test]
async fn a_vllm_that_was_adopted_by_a_copy_is_left_alone_by_another_copy() {
    let mut stage = Stage::set();
    let process = stage.launch("exec sleep 600").await;
    stage.shows_its_marker(&process).await;
    let [one, other] = ["one", "other"].map(|name| stage.directory.path().join(name));
    copy_files(stage.state.path(), &one);
    copy_files(stage.state.path(), &other);
    let pid = stage.leave(process);
    stage.state = Arc::new(StateDirectory::open(&one).unwrap());
    let adopted = find_in_the_end(&stage.launcher("exec sleep 600")).await;
    assert!(matches!(adopted, Found::Ready { .. }), "{adopted:?}");

    let other = Arc::new(StateDirectory::open(&other).unwrap());
    let found = stage.launcher_at(&other, "exec sleep 601").find(&model()).await.unwrap();

    assert!(is_alive(pid));
    assert!(matches!(found, Found::Nothing(_)), "its supervisor lives: {found:?}");
}

/// The number of an inode is given again, and any program locks files.
#[tokio::test]
async fn a_locked_file_with_the_number_of_a_lock_that_is_gone_is_no_supervisor() {
    let mut stage = Stage::set();
    let process = stage.launch("exec sleep 600").await;
    stage.shows_its_marker(&process).await;
    let (state, copy) = (stage.state.path().to_owned(), stage.directory.path().join("copy"));
    let lock = fs::metadata(state.join("lock")).unwrap().ino();
    stage.leave(process);
    copy_files(&state, &copy);
    fs::remove_dir_all(&state).unwrap();
    stage.state = Arc::new(StateDirectory::open(&copy).unwrap());
    let mut others = (0..4096)
        .map(|number| File::create(stage.directory.path().join(format!("file-{number}"))).unwrap());
    let Some(same) = others.find(|file| file.metadata().unwrap().ino() == lock) else {
        // This file system does not give it again.
        return;
    };
    flock(&same, FlockOperation::LockExclusive).unwrap();

    let found = find_in_the_end(&stage.launcher("exec sleep 600")).await;

    assert!(matches!(found, Found::Ready { .. }), "nobody supervises it: {found:?}");
}

#[tokio::test]
async fn a_vllm_whose_private_directory_was_removed_is_found_all_the_same() {
    let mut stage = Stage::set();
    let process = stage.launch("exec sleep 600").await;
    let copy = stage.directory.path().join("copy");
    copy_files(stage.state.path(), &copy);
    fs::remove_dir_all(stage.record().read().unwrap().unwrap().scratch.unwrap()).unwrap();
    stage.leave(process);
    stage.state = Arc::new(StateDirectory::open(&copy).unwrap());

    let found = find_in_the_end(&stage.launcher("exec sleep 600")).await;

    assert!(matches!(found, Found::Ready { .. }), "{found:?}");
}

#[tokio::test]
async fn a_launch_that_is_yet_to_be_started_is_left_alone_by_a_copy() {
    let stage = Stage::set();
    let claim =
        stage.launcher("exec sleep 600").claim(FIRST, &model(), LaunchMethod::Tree).unwrap();
    stage.launched.lock().unwrap().push(Arc::clone(&claim));
    let copy = stage.directory.path().join("copy");
    copy_files(stage.state.path(), &copy);
    let copy = Arc::new(StateDirectory::open(&copy).unwrap());

    let found = stage.launcher_at(&copy, "exec sleep 600").find(&model()).await.unwrap();

    assert!(matches!(found, Found::Nothing(_)), "{found:?}");
    let scratch = stage.record().read().unwrap().unwrap().scratch.unwrap();
    assert!(scratch.is_dir(), "it is to be used yet");
}

/// Who held what was told once; somebody else has begun since.
#[tokio::test]
async fn a_sweep_of_what_was_found_spares_what_another_supervisor_has_launched_since() {
    let mut stage = Stage::set();
    let process = stage.launch("exec sleep 600").await;
    stage.shows_its_marker(&process).await;
    let (state, copy) = (stage.state.path().to_owned(), stage.directory.path().join("copy"));
    copy_files(&state, &copy);
    fs::remove_file(copy.join("process.json")).unwrap();
    stage.leave(process);
    stage.state = Arc::new(StateDirectory::open(&copy).unwrap());
    let found = find_in_the_end(&stage.launcher("exec sleep 600")).await;
    let Found::Remnant { claim, .. } = found else { panic!("{found:?}") };

    let original = Arc::new(StateDirectory::open(&state).unwrap());
    let launcher = stage.launcher_at(&original, "exec sleep 600");
    let second = stage.launch_by(&launcher, SECOND).await;
    until("it shows its marker", || carries_marker(second.pid(), &stage.marker(SECOND))).await;
    claim.sweep().await.unwrap();

    assert!(is_alive(second.pid()), "it is another supervisor's");
}

/// What took the place of a directory may have a vLLM of its own, whose supervisor has ended.
#[tokio::test]
async fn nothing_is_launched_beside_the_vllm_of_a_directory_that_took_the_place_of_ours() {
    for is_on_record in [true, false] {
        let stage = Stage::set();
        let launcher = stage.launcher("exec sleep 600");
        let (pid, left) = left_in_place_of_ours(&stage).await;
        if !is_on_record {
            fs::remove_file(stage.record().path()).unwrap();
        }

        // The second time the directory is ours already.
        for _ in 0..2 {
            let cause = claim_in_the_end(&launcher).unwrap_err();
            assert_eq!(cause.retry, RetryClass::AfterCleanup, "{cause:?}");
            assert!(cause.summary.contains(&pid.to_string()), "{cause:?}");
        }
        assert!(is_alive(pid));
        let record = stage.record().read().unwrap();
        assert_eq!(record.and_then(|it| it.main).map(|main| main.0), is_on_record.then_some(pid));

        left.send(rustix::process::Signal::KILL);
        until("it is gone", || !is_alive(pid)).await;
        let claim = claim_in_the_end(&launcher).unwrap();
        assert_eq!(claim.sweep().await, gone());
        assert!(!is_on_record || stage.leaves_no_traces());
    }
}

#[tokio::test]
async fn the_record_of_a_vllm_that_lives_in_place_of_ours_stays_when_ours_is_released() {
    let stage = Stage::set();
    let ours = stage.launch_by(&stage.launcher("exec sleep 600"), SECOND).await;
    let (pid, _) = left_in_place_of_ours(&stage).await;

    // The second time the directory is ours already, once nobody's child has its lock any more.
    for _ in 0..2 {
        ours.claim.release();
        until("it is held", || stage.state.restore().is_ok()).await;
    }

    let record = stage.record().read().unwrap().unwrap();
    assert_eq!(record.main.map(|main| main.0), Some(pid), "nobody finds it any more");
    assert_eq!(ours.claim.sweep().await, gone());
}

/// A vLLM that was left running by another supervisor, whose state directory is where ours was.
async fn left_in_place_of_ours(stage: &Stage) -> (u32, Held) {
    let path = stage.state.path().to_owned();
    fs::rename(&path, stage.directory.path().join("moved")).unwrap();
    let other = Arc::new(StateDirectory::open(&path).unwrap());
    let launcher = stage.launcher_at(&other, "exec sleep 600");
    let claim = launcher.claim(FIRST, &model(), LaunchMethod::Tree).unwrap();
    let head = claim.start().await.unwrap();
    let left = Launched { claim, head };
    until("it shows its marker", || carries_marker(left.pid(), &stage.marker(FIRST))).await;
    let start_time = Stat::of(left.pid()).unwrap().unwrap().start_time;
    let held = Held::open(left.pid(), start_time).unwrap().unwrap();
    (stage.leave(left), held)
}

/// Another test's child may hold a lock between its fork and its exec.
fn claim_in_the_end(launcher: &ProcessLauncher) -> Result<Arc<dyn Claim>, Cause> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match launcher.claim(SECOND, &model(), LaunchMethod::Tree) {
            Err(cause)
                if cause.summary.contains("another supervisor") && Instant::now() < deadline => {}
            claim => return claim,
        }
    }
}

/// What somebody has switched to, in a supervisor of the recipe.
fn switched() -> Target {
    let arguments = Arguments::new(vec!["--seed=1".to_owned()], Some("name".to_owned()));
    Target { arguments, ..target("org/another") }
}

/// What the next supervisor that is to serve this finds, and how far that had come.
async fn what_is_found(stage: &Stage, asked: &Target) -> Option<(Target, Phase)> {
    match stage.launcher("exec sleep 600").find(asked).await.unwrap() {
        Found::Ready { target, phase, .. } => Some((target, phase)),
        Found::Remnant { .. } => None,
        Found::Nothing(_) => panic!("it lives"),
    }
}

#[tokio::test]
async fn what_was_switched_to_is_of_use_while_the_configuration_is_what_it_was() {
    let mut stage = Stage::set();
    let launcher = stage.launcher("exec sleep 600");
    let process = stage.launch_of(&launcher, SECOND, &switched()).await;
    let found = what_is_found(&stage, &model()).await;
    assert_eq!(found, Some((switched(), Phase::Loading)));
    process.claim.served();
    let found = what_is_found(&stage, &model()).await;
    assert_eq!(found, Some((switched(), Phase::Serving)));
    stage.recipe.after_model = vec!["--changed".to_owned()];
    assert_eq!(what_is_found(&stage, &model()).await, None);
}

#[tokio::test]
async fn what_was_switched_to_and_is_configured_now_is_a_switch_no_more() {
    let mut stage = Stage::set();
    stage.launch_of(&stage.launcher("exec sleep 600"), SECOND, &switched()).await;
    stage.recipe.configured = switched();
    assert!(what_is_found(&stage, &switched()).await.is_some());
    stage.recipe.configured = model();
    assert_eq!(what_is_found(&stage, &model()).await, None);
}
