//! What is made of a unit's properties, and who belongs to it.

use super::*;

fn known(values: &[(&str, OwnedVariant)]) -> Properties {
    Properties(values.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect())
}

fn text(value: &str) -> OwnedVariant {
    zbus::Variant::from(value).try_to_owned().unwrap()
}

#[test]
fn a_status_is_made_of_the_properties_of_unit_and_service() {
    let status = known(&[
        ("ActiveState", text("activating")),
        ("SubState", text("auto-restart")),
        ("Result", text("signal")),
        ("MainPID", OwnedVariant::from(0_u32)),
        ("NRestarts", OwnedVariant::from(2_u32)),
        ("ExecMainCode", OwnedVariant::from(2_i32)),
        ("ExecMainStatus", OwnedVariant::from(9_i32)),
        ("RestartUSec", OwnedVariant::from(100_000_u64)),
        ("ControlGroup", text("")),
    ])
    .status("vllm.service");
    let mut expected = UnitStatus::inactive("vllm.service");
    expected.active = Activity::Activating;
    expected.sub = "auto-restart".to_owned();
    expected.result = "signal".to_owned();
    expected.exit = Some(Exit::Signal(9));
    expected.restarts = 2;
    expected.restart_after = Some(Duration::from_millis(100));
    assert_eq!(status, expected);
}

#[test]
fn who_has_never_run_has_no_exit() {
    let exit = |code: i32, status: i32| {
        let values = [
            ("ExecMainCode", OwnedVariant::from(code)),
            ("ExecMainStatus", OwnedVariant::from(status)),
        ];
        known(&values).exit()
    };
    assert_eq!(exit(0, 0), None);
    assert_eq!(exit(1, 203), Some(Exit::Code(203)));
    assert_eq!(exit(3, 11), Some(Exit::Signal(11)));
    assert_eq!(Properties::default().exit(), None);
}

#[test]
fn its_processes_are_those_of_its_control_group_and_of_those_below() {
    let root = tempfile::tempdir().unwrap();
    let below = root.path().join("system.slice/vllm.service/worker");
    fs::create_dir_all(&below).unwrap();
    fs::write(below.parent().unwrap().join("cgroup.procs"), "12\n13\n").unwrap();
    fs::write(below.join("cgroup.procs"), "14\n").unwrap();
    let place =
        |group: Option<&str>| Place { main_pid: Some(12), control_group: group.map(str::to_owned) };
    let found = |group| members(&place(group), root.path()).unwrap();
    assert_eq!(found(Some("/system.slice/vllm.service")), [12, 12, 13, 14]);
    assert_eq!(found(Some("/system.slice/gone.service")), [12]);
    assert_eq!(found(None), [12]);
}

#[test]
fn a_control_group_that_cannot_be_read_is_not_empty() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("vllm.service/cgroup.procs")).unwrap();
    let place = Place { main_pid: None, control_group: Some("/vllm.service".to_owned()) };
    assert!(members(&place, root.path()).is_err());
}
