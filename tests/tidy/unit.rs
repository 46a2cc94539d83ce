//! What an operator copies or relies on: the unit for systemd, as far as a wrong line in it would cost
//! a vLLM or hand a machine over, and how much room is taken.

use std::collections::BTreeMap;

use crate::workspace;

/// The directives of a unit; of one that stands twice, the last.
fn directives(unit: &str) -> BTreeMap<&str, &str> {
    let lines = unit.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    lines.filter_map(|line| line.split_once('=')).collect()
}

#[test]
fn the_unit_runs_no_model_as_root_and_leaves_the_processes_to_vllmd() {
    let unit = workspace::read("config/vllmd.service");
    let unit = directives(&unit);
    assert!(!matches!(unit.get("User"), None | Some(&("" | "root" | "0"))), "{unit:#?}");
    for (directive, value) in [
        ("NoNewPrivileges", "yes"),
        ("Delegate", "yes"),
        ("OOMPolicy", "continue"),
        ("StateDirectoryMode", "0700"),
        // Anything else kills a vLLM that is to go on, at the end of vllmd.
        ("KillMode", "process"),
        ("Restart", "on-failure"),
    ] {
        assert_eq!(unit.get(directive), Some(&value), "{directive}");
    }
    // It would take the sockets of a vLLM that goes on.
    assert!(!unit.contains_key("PrivateTmp"), "{unit:#?}");
}

#[test]
fn the_unit_takes_an_end_that_needs_an_operator_for_no_crash() {
    let unit = workspace::read("config/vllmd.service");
    let unit = directives(&unit);
    let has = |directive: &str, code: &str| {
        unit.get(directive).is_some_and(|codes| codes.split(' ').any(|it| it == code))
    };
    // As `src/cli/exit.rs` has them: wrong configuration, gave up, ended by SIGTERM.
    assert!(has("RestartPreventExitStatus", "2") && has("RestartPreventExitStatus", "3"));
    assert!(has("SuccessExitStatus", "143"));
    let grace = vllm_supervisor::config::Lifecycle::default().shutdown_grace_period;
    let timeout: u64 = unit["TimeoutStopSec"].parse().expect("seconds");
    assert!(timeout > 2 * grace.as_secs(), "{timeout}");
}

#[test]
fn the_room_that_the_state_directory_takes_is_told_as_it_is() {
    let logs = vllm_supervisor::config::Logs::default();
    // The journal's bounds: 64 MiB of events, 16 MiB of restarts (`adapters/journal.rs`).
    let most = logs.max_bytes * u64::from(logs.keep.get()) + (64 + 16) * 1024 * 1024;
    let tenths = most.div_ceil(100_000_000);
    let told = format!("at most {}.{} GB", tenths / 10, tenths % 10);
    for path in ["README.md", "config/default.yaml"] {
        assert!(workspace::read(path).contains(&told), "{path} does not say {told}");
    }
}
