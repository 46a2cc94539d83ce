//! What the next supervisor finds of what this one launched.

use super::*;

#[tokio::test]
async fn a_vllm_with_the_same_settings_is_found_ready() {
    let stage = Stage::set();
    let process = stage.launch("exec sleep 600");

    let Found::Ready { incarnation, process: found } = find(&stage, "exec sleep 600").await else {
        panic!("it was not found");
    };

    assert_eq!((incarnation, found.pid()), (FIRST, process.pid()));
    found.signal_main(Signal::Terminate);
    ended(&*found).await;
    assert_eq!(found.sweep().await, [0; 0]);
    assert!(stage.leaves_no_traces());
}

#[tokio::test]
async fn a_vllm_with_other_settings_is_a_remnant() {
    let stage = Stage::set();
    let process = stage.launch("exec sleep 600");

    let Found::Remnant { incarnation, process: found } = find(&stage, "exec sleep 601").await
    else {
        panic!("it was not found as a remnant");
    };

    assert_eq!((incarnation, found.pid()), (FIRST, process.pid()));
    assert_eq!(found.sweep().await, [0; 0]);
    assert!(!is_alive(process.pid()));
}

#[tokio::test]
async fn a_vllm_that_serves_another_model_is_a_remnant() {
    let stage = Stage::set();
    stage.launch("exec sleep 600");
    let another = ModelId::new("org/another").unwrap();
    let found = stage.launcher("exec sleep 600").find(&another).await;
    assert!(matches!(found, Found::Remnant { .. }), "{found:?}");
}

#[tokio::test]
async fn a_secret_is_no_setting_and_stands_in_no_record() {
    let mut stage = Stage::set();
    stage.recipe.secrets = vec![("HF_TOKEN".to_owned(), Secret::new("hf_secret"))];
    stage.launch("exec sleep 600");
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
    let process = stage.launch(script);
    let orphan = stage.pid_in_log().await;
    ended(&*process).await;

    let Found::Remnant { process: found, .. } = find(&stage, script).await else {
        panic!("the orphan was not found");
    };

    assert_eq!(found.sweep().await, [0; 0]);
    assert!(!is_alive(orphan));
    assert!(stage.leaves_no_traces());
}

#[tokio::test]
async fn nothing_is_found_of_what_is_gone_and_its_traces_are_removed() {
    let stage = Stage::set();
    let process = stage.launch("true");
    ended(&*process).await;
    assert!(!stage.leaves_no_traces());

    assert!(matches!(find(&stage, "true").await, Found::Nothing));

    assert!(stage.leaves_no_traces());
}

#[tokio::test]
async fn nothing_is_found_where_nothing_was_launched() {
    let stage = Stage::set();
    assert!(matches!(find(&stage, "true").await, Found::Nothing));
}

#[tokio::test]
async fn a_vllm_whose_record_nobody_can_read_is_found_by_its_state_directory() {
    for spoil in ["", "{ \"boot_id\":", "null"] {
        let stage = Stage::set();
        let process = stage.launch("exec sleep 600");
        fs::write(stage.state.path().join("process.json"), spoil).unwrap();
        until("it runs under its own name", || {
            super::super::super::carries_marker(process.pid(), &stage.recipe.marker_prefix)
        })
        .await;

        let Found::Remnant { incarnation, process: found } = find(&stage, "exec sleep 600").await
        else {
            panic!("it was not found");
        };

        assert_eq!(incarnation, FIRST);
        assert_eq!(found.sweep().await, [0; 0]);
        assert!(!is_alive(process.pid()));
    }
}

#[tokio::test]
async fn an_unreadable_record_of_nobody_is_kept_out_of_the_way_of_the_next() {
    let stage = Stage::set();
    let path = stage.state.path().join("process.json");
    fs::write(&path, "{ \"boot_id\":").unwrap();
    assert!(matches!(find(&stage, "true").await, Found::Nothing));
    assert!(!path.exists());
    let entries = fs::read_dir(stage.state.path()).unwrap().flatten();
    let names: Vec<_> = entries.map(|it| it.file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("process.unreadable-")), "{names:?}");
}

#[tokio::test]
async fn what_a_crash_between_record_and_launch_left_is_found_by_its_marker() {
    let stage = Stage::set();
    let process = stage.launch("exec sleep 600");
    let mut record = stage.record().read().unwrap().unwrap();
    record.main = None;
    stage.record().write(&record).unwrap();
    until("it runs under its own name", || {
        super::super::super::carries_marker(process.pid(), &stage.recipe.marker_prefix)
    })
    .await;

    let Found::Remnant { process: found, .. } = find(&stage, "exec sleep 600").await else {
        panic!("it was not found");
    };

    assert_eq!(found.sweep().await, [0; 0]);
    assert!(!is_alive(process.pid()));
}

#[tokio::test]
async fn somebody_else_with_the_same_pid_is_not_taken_for_ours() {
    let innocent = Stage::set();
    let process = innocent.launch("exec sleep 600");
    let mut record = innocent.record().read().unwrap().unwrap();
    let (pid, start_time) = record.main.unwrap();
    let stage = Stage::set();
    record.marker = stage.marker(FIRST);
    record.settings = stage.launcher("exec sleep 600").settings(&model());

    record.main = Some((pid, start_time + 1));
    stage.record().write(&record).unwrap();
    assert!(matches!(find(&stage, "exec sleep 600").await, Found::Nothing));

    record.main = Some((pid, start_time));
    record.boot_id = "another".to_owned();
    stage.record().write(&record).unwrap();
    assert!(matches!(find(&stage, "exec sleep 600").await, Found::Nothing));

    assert!(is_alive(process.pid()));
    assert!(stage.leaves_no_traces());
}

/// What the next supervisor finds, which would launch this script.
async fn find(stage: &Stage, script: &str) -> Found {
    stage.launcher(script).find(&model()).await
}
