//! What the next supervisor finds of what this one launched.

use super::*;
use crate::testing::harness::target;

#[tokio::test]
async fn a_vllm_with_the_same_settings_is_found_ready() {
    let stage = Stage::set();
    let process = stage.launch("exec sleep 600").await;

    let Found::Ready { incarnation, claim, head, .. } = find(&stage, "exec sleep 600").await else {
        panic!("it was not found");
    };

    assert_eq!((incarnation, head.pid()), (FIRST, process.pid()));
    head.signal(Signal::Terminate);
    ended(&*head).await;
    assert_eq!(claim.sweep().await, gone());
    assert!(stage.leaves_no_traces());
}

#[tokio::test]
async fn a_vllm_whose_record_was_removed_is_found_by_its_state_directory() {
    let stage = Stage::set();
    let process = stage.launch("exec sleep 600").await;
    stage.shows_its_marker(&process).await;
    fs::remove_file(stage.state.path().join("process.json")).unwrap();

    let found = find(&stage, "exec sleep 600").await;

    let Found::Remnant { incarnation, claim, .. } = found else {
        panic!("{found:?}, and it lives")
    };
    assert_eq!(incarnation, FIRST);
    assert_eq!(claim.sweep().await, gone());
    assert!(!is_alive(process.pid()) && stage.leaves_no_traces());
}

#[tokio::test]
async fn who_has_lost_the_marker_of_a_launch_without_a_record_is_found_with_it() {
    let stage = Stage::set();
    let script = "(env -u VLLMD_INSTANCE setsid sleep 600 & echo $!); exec sleep 600";
    let process = stage.launch(script).await;
    stage.shows_its_marker(&process).await;
    let orphan = stage.pid_in_log().await;
    let state = format!("VLLMD_STATE={}", stage.state.identity().id);
    until("it has lost its marker", || {
        let environment = proc_fs::environment(orphan).unwrap().unwrap_or_default();
        proc_fs::has_variable(&environment, |it| it == state.as_bytes())
            && !carries_marker(orphan, "")
    })
    .await;
    fs::remove_file(stage.record().path()).unwrap();

    let found = find(&stage, script).await;

    let Found::Remnant { claim, .. } = found else { panic!("{found:?}, and it lives") };
    assert_eq!(claim.sweep().await, gone());
    assert!(!is_alive(process.pid()) && !is_alive(orphan));
}

#[tokio::test]
async fn a_vllm_whose_state_directory_was_removed_is_found_by_where_that_was() {
    let mut stage = Stage::set();
    let process = stage.launch("exec sleep 600").await;
    stage.shows_its_marker(&process).await;
    let path = stage.state.path().to_owned();
    let pid = stage.leave(process);
    fs::remove_dir_all(&path).unwrap();
    stage.state = Arc::new(StateDirectory::open(&path).unwrap());

    let found = find_in_the_end(&stage.launcher("exec sleep 600")).await;

    let Found::Remnant { claim, .. } = found else { panic!("{found:?}, and it lives") };
    assert_eq!(claim.sweep().await, gone());
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_vllm_whose_supervisor_lives_is_left_alone_though_its_state_directory_was_removed() {
    let stage = Stage::set();
    let process = stage.launch("exec sleep 600").await;
    stage.shows_its_marker(&process).await;
    fs::remove_dir_all(stage.state.path()).unwrap();
    let in_its_place = Arc::new(StateDirectory::open(stage.state.path()).unwrap());

    let found = stage.launcher_at(&in_its_place, "exec sleep 600").find(&model()).await.unwrap();

    assert!(matches!(found, Found::Nothing(_)), "{found:?}");
    assert!(is_alive(process.pid()));
}

#[tokio::test]
async fn a_copy_of_the_state_directory_finds_a_vllm_once_its_supervisor_has_ended() {
    for is_on_record in [true, false] {
        let mut stage = Stage::set();
        let process = stage.launch("exec sleep 600").await;
        stage.shows_its_marker(&process).await;
        let copy = stage.directory.path().join("copy");
        copy_files(stage.state.path(), &copy);
        if !is_on_record {
            fs::remove_file(copy.join("process.json")).unwrap();
        }
        let copy = Arc::new(StateDirectory::open(&copy).unwrap());
        let launcher = stage.launcher_at(&copy, "exec sleep 600");

        let found = launcher.find(&model()).await.unwrap();
        assert!(matches!(found, Found::Nothing(_)), "{found:?}");
        assert!(is_alive(process.pid()) && !stage.leaves_no_traces());

        let pid = stage.leave(process);
        stage.state = Arc::clone(&copy);
        let (Found::Ready { claim, .. } | Found::Remnant { claim, .. }) =
            find_in_the_end(&launcher).await
        else {
            panic!("it lives");
        };
        assert_eq!(claim.sweep().await, gone());
        assert!(!is_alive(pid));
    }
}

#[tokio::test]
async fn a_vllm_is_found_behind_the_record_of_one_before_it_that_is_gone() {
    let stage = Stage::set();
    let launcher = stage.launcher("exec sleep 600");
    let first = stage.launch_by(&launcher, FIRST).await;
    let record = fs::read(stage.record().path()).unwrap();
    assert_eq!(first.claim.sweep().await, gone());
    let second = stage.launch_by(&launcher, SECOND).await;
    until("it shows its marker", || carries_marker(second.pid(), &stage.marker(SECOND))).await;
    fs::write(stage.record().path(), record).unwrap();

    let found = find(&stage, "exec sleep 600").await;

    let Found::Remnant { incarnation, claim, .. } = found else { panic!("{found:?}") };
    assert_eq!(incarnation, SECOND);
    assert_eq!(claim.sweep().await, gone());
    assert!(!is_alive(second.pid()));
}

#[tokio::test]
async fn a_vllm_that_is_released_is_on_record_whatever_became_of_its_record() {
    let spoils: [fn(&Path, &RecordFile); 4] = [
        |path, _| fs::remove_file(path).unwrap(),
        |path, _| fs::write(path, "{").unwrap(),
        |path, _| fs::remove_file(path).and_then(|()| fs::create_dir(path)).unwrap(),
        |_, file| {
            let record = file.read().unwrap().unwrap();
            file.write(&ProcessRecord { marker: "another-1".to_owned(), ..record }).unwrap();
        },
    ];
    for spoil in spoils {
        let stage = Stage::set();
        let process = stage.launch("exec sleep 600").await;
        spoil(&stage.record().path(), &stage.record());

        process.claim.release();

        let record = stage.record().read().unwrap().unwrap();
        assert_eq!(record.marker, stage.marker(FIRST));
        assert_eq!(record.main.map(|main| main.0), Some(process.pid()));
    }
}

#[tokio::test]
async fn a_vllm_that_is_released_is_on_record_though_its_state_directory_was_removed() {
    let stage = Stage::set();
    let process = stage.launch("exec sleep 600").await;
    fs::remove_dir_all(stage.state.path()).unwrap();

    process.claim.release();

    let found = find(&stage, "exec sleep 600").await;
    assert!(matches!(found, Found::Ready { .. }), "{found:?}");
}

#[tokio::test]
async fn a_vllm_of_another_state_directory_is_not_found() {
    let (stage, other) = (Stage::set(), Stage::set());
    let process = other.launch("exec sleep 600").await;
    other.shows_its_marker(&process).await;
    for spoil in [None, Some("{")] {
        if let Some(text) = spoil {
            fs::write(stage.record().path(), text).unwrap();
        }
        let found = find(&stage, "exec sleep 600").await;
        assert!(matches!(found, Found::Nothing(_)), "{found:?}");
    }
}

#[tokio::test]
async fn a_vllm_with_other_settings_is_a_remnant() {
    let stage = Stage::set();
    let process = stage.launch("exec sleep 600").await;

    let Found::Remnant { incarnation, claim, head } = find(&stage, "exec sleep 601").await else {
        panic!("it was not found as a remnant");
    };

    assert_eq!((incarnation, head.unwrap().pid()), (FIRST, process.pid()));
    assert_eq!(claim.sweep().await, gone());
    assert!(!is_alive(process.pid()));
}

#[tokio::test]
async fn a_vllm_that_serves_another_model_is_a_remnant() {
    let stage = Stage::set();
    stage.launch("exec sleep 600").await;
    let another = target("org/another");
    let found = stage.launcher("exec sleep 600").find(&another).await.unwrap();
    assert!(matches!(found, Found::Remnant { .. }), "{found:?}");
}

#[tokio::test]
async fn a_secret_is_no_setting_and_stands_in_no_record() {
    let mut stage = Stage::set();
    stage.recipe.secrets = vec![("HF_TOKEN".to_owned(), Secret::new("hf_secret"))];
    stage.launch("exec sleep 600").await;
    let written = fs::read_to_string(stage.state.path().join("process.json")).unwrap();
    assert!(!written.contains("hf_secret"), "{written}");

    stage.recipe.secrets = Vec::new();

    let found = find(&stage, "exec sleep 600").await;
    assert!(matches!(found, Found::Ready { .. }), "{found:?}");
}

#[tokio::test]
async fn what_outlived_its_head_in_a_session_of_its_own_is_a_remnant() {
    let stage = Stage::set();
    let script = "setsid sleep 600 & echo $!; exit 3";
    let process = stage.launch(script).await;
    let orphan = stage.pid_in_log().await;
    ended(&*process.head).await;

    let Found::Remnant { claim: found, .. } = find(&stage, script).await else {
        panic!("the orphan was not found");
    };

    assert_eq!(found.sweep().await, gone());
    assert!(!is_alive(orphan));
    assert!(stage.leaves_no_traces());
}

#[tokio::test]
async fn nothing_is_found_of_what_is_gone_and_its_traces_are_removed() {
    let stage = Stage::set();
    let process = stage.launch("true").await;
    ended(&*process.head).await;
    assert!(!stage.leaves_no_traces());

    assert!(matches!(find(&stage, "true").await, Found::Nothing(_)));

    assert!(stage.leaves_no_traces());
}

#[tokio::test]
async fn nothing_is_found_where_nothing_was_launched() {
    let stage = Stage::set();
    assert!(matches!(find(&stage, "true").await, Found::Nothing(_)));
}

#[tokio::test]
async fn a_vllm_whose_record_nobody_can_read_is_found_by_its_state_directory() {
    for spoil in ["", "{ \"boot_id\":", "null"] {
        let stage = Stage::set();
        let process = stage.launch("exec sleep 600").await;
        fs::write(stage.state.path().join("process.json"), spoil).unwrap();
        until("it runs under its own name", || {
            carries_marker(process.pid(), &stage.recipe.marker_prefix)
        })
        .await;

        let Found::Remnant { incarnation, claim: found, .. } = find(&stage, "exec sleep 600").await
        else {
            panic!("it was not found");
        };

        assert_eq!(incarnation, FIRST);
        assert_eq!(found.sweep().await, gone());
        assert!(!is_alive(process.pid()));
    }
}

#[tokio::test]
async fn all_launches_of_which_nobody_can_read_are_found_together() {
    let stage = Stage::set();
    let launcher = stage.launcher("exec sleep 600");
    let both = [stage.launch_by(&launcher, FIRST).await, stage.launch_by(&launcher, SECOND).await];
    fs::write(stage.state.path().join("process.json"), "{").unwrap();
    for (process, incarnation) in both.iter().zip([FIRST, SECOND]) {
        until("it runs under its own name", || {
            carries_marker(process.pid(), &stage.marker(incarnation))
        })
        .await;
    }

    let Found::Remnant { claim: found, .. } = find(&stage, "exec sleep 600").await else {
        panic!("they were not found");
    };

    assert_eq!(found.sweep().await, gone());
    assert!(!is_alive(both[0].pid()) && !is_alive(both[1].pid()));
    assert!(stage.record().read().unwrap().is_none());
}

#[tokio::test]
async fn an_unreadable_record_of_nobody_is_kept_out_of_the_way_of_the_next() {
    let stage = Stage::set();
    let path = stage.state.path().join("process.json");
    fs::write(&path, "{ \"boot_id\":").unwrap();
    assert!(matches!(find(&stage, "true").await, Found::Nothing(_)));
    assert!(!path.exists());
    let entries = fs::read_dir(stage.state.path()).unwrap().flatten();
    let names: Vec<_> = entries.map(|it| it.file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("process.unreadable-")), "{names:?}");
}

#[tokio::test]
async fn what_a_crash_between_record_and_launch_left_is_found_by_its_marker() {
    let stage = Stage::set();
    let process = stage.launch("exec sleep 600").await;
    let mut record = stage.record().read().unwrap().unwrap();
    record.main = None;
    stage.record().write(&record).unwrap();
    until("it runs under its own name", || {
        carries_marker(process.pid(), &stage.recipe.marker_prefix)
    })
    .await;

    let Found::Remnant { claim: found, .. } = find(&stage, "exec sleep 600").await else {
        panic!("it was not found");
    };

    assert_eq!(found.sweep().await, gone());
    assert!(!is_alive(process.pid()));
}

#[tokio::test]
async fn somebody_else_with_the_same_pid_is_not_taken_for_ours() {
    let innocent = Stage::set();
    let process = innocent.launch("exec sleep 600").await;
    let mut record = innocent.record().read().unwrap().unwrap();
    let (pid, start_time) = record.main.unwrap();
    let stage = Stage::set();
    (record.marker, record.scratch) = (stage.marker(FIRST), None);
    record.settings = stage.launcher("exec sleep 600").settings(&model());

    record.main = Some((pid, start_time + 1));
    stage.record().write(&record).unwrap();
    assert!(matches!(find(&stage, "exec sleep 600").await, Found::Nothing(_)));

    record.main = Some((pid, start_time));
    record.boot_id = "another".to_owned();
    stage.record().write(&record).unwrap();
    assert!(matches!(find(&stage, "exec sleep 600").await, Found::Nothing(_)));

    assert!(is_alive(process.pid()));
    assert!(stage.leaves_no_traces());
}

/// What the next supervisor finds, which would launch this script.
async fn find(stage: &Stage, script: &str) -> Found {
    stage.launcher(script).find(&model()).await.unwrap()
}

/// Another test's child may hold the lock of a state directory between its fork and its exec.
pub(super) async fn find_in_the_end(launcher: &ProcessLauncher) -> Found {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found = launcher.find(&model()).await.unwrap();
        if !matches!(found, Found::Nothing(_)) || Instant::now() >= deadline {
            return found;
        }
    }
}

pub(super) fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
