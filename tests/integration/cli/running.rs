//! `vllmd run` while it runs: what it prints, and what becomes of vLLM when it ends.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use vllm_supervisor_tests::fake_vllm::fake_vllm;

use super::workplace::{MODEL, Workplace, until};

const RUN_JSON: [&str; 5] = ["run", "--config", "vllmd.yaml", "--output", "json"];
const RUN_TEXT: [&str; 3] = ["run", "--config", "vllmd.yaml"];

#[tokio::test]
async fn events_are_json_lines_without_a_gap_and_a_signal_leaves_nothing() {
    let place = Workplace::new(fake_vllm());
    place.configure_lifecycle("stop_on_exit: true");
    let mut vllmd = place.start(&RUN_JSON);
    let events = vllmd.enters("running").await;
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    let gapless: Vec<u64> = (numbers[0]..).take(events.len()).collect();
    assert_eq!(numbers, gapless, "{events:#?}");
    assert_eq!((&events[0]["seq"], &events[0]["to"]), (&json!(1), &json!("stopped")));
    assert_eq!(events[1]["to"], "starting");
    assert!(events.iter().any(|event| event["progress"]["status"] == "loaded"), "{events:#?}");

    vllmd.signal(Signal::TERM);
    vllmd.enters("stopped").await;
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(143), "{finished:#?}");
    let file = place.path("vllmd.yaml");
    finished.complains_of(&[&format!("configured by {}", file.display()), "stopping vLLM"]);
    let is_event = |line: &str| serde_json::from_str::<Value>(line).is_ok();
    assert!(finished.stdout.lines().all(is_event), "{finished:#?}");
    place.nothing_runs().await;
}

#[tokio::test]
async fn a_program_reads_the_events_of_this_run_from_its_first_and_of_no_other() {
    let place = Workplace::new(fake_vllm());
    place.configure_lifecycle("stop_on_exit: false");
    let mut first = place.start(&RUN_JSON);
    first.enters("running").await;
    first.signal(Signal::TERM);
    let first = first.end().await;
    let last: Value = serde_json::from_str(first.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "supervisor_ended", "{first:#?}");

    place.configure_lifecycle("stop_on_exit: true");
    let mut second = place.start(&RUN_JSON);
    let events = second.enters("running").await;
    assert_eq!(events[0]["seq"], json!(last["seq"].as_u64().unwrap() + 1), "{events:#?}");
    assert_eq!(events[0]["from"], "unknown", "{events:#?}");
    second.signal(Signal::TERM);
    second.end().await;
    assert_eq!(place.launches(), 1);
    place.nothing_runs().await;
}

#[tokio::test]
async fn what_vllm_says_is_shown_to_people_and_obeyed_by_no_terminal() {
    let place = Workplace::without_vllm(fake_vllm());
    let long = "x".repeat(16 * 1024);
    let script = format!("#!/bin/sh\nprintf '\\033]0;owned\\007\\033[2J\\n{long}\\n'\nexit 1\n");
    std::fs::write(place.path("bin/vllm"), script).unwrap();
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.path("bin/vllm"), executable).unwrap();
    place.configure_lifecycle("stop_on_exit: true, max_restarts_per_minute: 1");
    let text = place.start(&RUN_TEXT).end().await;
    assert_eq!(text.code, Some(3), "{text:#?}");
    text.complains_of(&[r"\u{1b}]0;owned\u{7}\u{1b}[2J", "x…"]);
    for stream in [&text.stdout, &text.stderr] {
        assert!(!stream.contains(['\u{1b}', '\u{7}']), "{text:#?}");
        assert!(stream.lines().all(|line| line.chars().count() < 1100), "{text:#?}");
    }
    place.nothing_runs().await;
}

#[tokio::test]
async fn with_log_records_in_json_all_of_stderr_is_json() {
    let place = Workplace::new(fake_vllm().exits_with(1));
    place.configure_lifecycle("stop_on_exit: true, max_restarts_per_minute: 1");
    let words = [&RUN_JSON[..], &["--log-format", "json"]].concat();
    let finished = place.start(&words).end().await;
    assert_eq!(finished.code, Some(3), "{finished:#?}");
    let records = finished.stderr.lines().map(serde_json::from_str::<Value>);
    let records: Vec<Value> = records.map(|record| record.expect("a JSON object")).collect();
    let configured = records[0]["fields"]["message"].as_str().unwrap();
    assert!(configured.starts_with("configured by "), "{records:#?}");
    let last = records.last().unwrap();
    assert_eq!((&last["level"], &last["target"]), (&json!("ERROR"), &json!("vllmd")));
    assert!(last["fields"]["code"].as_str().unwrap().starts_with("VLM-"), "{last:#?}");
    place.nothing_runs().await;
}

#[tokio::test]
async fn a_directory_for_temporary_files_that_is_too_deep_is_passed_over_and_said() {
    let mut place = Workplace::new(fake_vllm());
    let deep = place.path(&"deep".repeat(20));
    std::fs::create_dir(&deep).unwrap();
    place.set("TMPDIR", deep.to_str().unwrap());
    place.configure_lifecycle("stop_on_exit: true");
    let mut vllmd = place.start(&RUN_JSON);
    vllmd.enters("running").await;
    vllmd.signal(Signal::TERM);
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(143), "{finished:#?}");
    let path = deep.display().to_string();
    finished.complains_of(&["made elsewhere", "its path is too long for sockets", &path]);
    place.nothing_runs().await;
}

#[tokio::test]
async fn people_read_what_happens_and_where_the_log_is() {
    let place = Workplace::new(fake_vllm().shards(3));
    place.configure_lifecycle("stop_on_exit: true");
    let mut vllmd = place.start(&RUN_TEXT);
    let starting = vllmd.says("starting org/tiny, launch 1").await;
    let log = place.state().join("logs/vllm-1.log");
    assert!(starting.ends_with(&format!("vLLM's log: {}", log.display())), "{starting}");
    vllmd.says(" %  loading").await;
    assert!(log.exists());
    vllmd.says(&format!("running: {MODEL} is served at http://127.0.0.1:{}", place.port)).await;
    vllmd.signal(Signal::INT);
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    let mut ends = finished.stdout.lines().rev().map(|line| line.split_once("  ").unwrap().1);
    assert_eq!(ends.next(), Some("the supervisor has ended"));
    assert_eq!(ends.next(), Some("stopped"));
    let loads = |line: &&str| line.contains(" %  ");
    let said = |line: &'_ str| line.split_once("  ").map(|(_, said)| said.to_owned());
    let mut progress: Vec<_> = finished.stdout.lines().filter(loads).map(said).collect();
    let lines = progress.len();
    progress.dedup();
    assert_eq!(progress.len(), lines, "each line is news: {finished:#?}");
    place.nothing_runs().await;
}

#[tokio::test]
async fn what_is_left_running_is_taken_over_by_the_next_run() {
    let place = Workplace::new(fake_vllm());
    place.configure_lifecycle("stop_on_exit: false");
    let mut first = place.start(&RUN_JSON);
    first.enters("running").await;
    first.signal(Signal::INT);
    let first = first.end().await;
    assert_eq!(first.code, Some(130), "{first:#?}");
    let left = place.census.processes();
    let vllm = left.iter().find(|process| process.title.contains("serve")).unwrap().pid;
    let pid = format!("(pid {}", vllm.as_raw_pid());
    first.complains_of(&["vLLM goes on", &pid, "kill"]);

    place.configure_lifecycle("stop_on_exit: true");
    let check = place.vllmd(&["check", "--config", "vllmd.yaml"]).await;
    assert_eq!(check.code, Some(0), "{check:#?}");
    assert!(check.stdout.contains(&pid), "{check:#?}");
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port().to_string();
    let check = place.vllmd(&["check", "--config", "vllmd.yaml", "--port", &port]).await;
    check.complains_of(&["error[VLM-005]"]);
    let mut second = place.start(&RUN_JSON);
    second.enters("running").await;
    second.signal(Signal::TERM);
    let second = second.end().await;
    assert_eq!(second.code, Some(143), "{second:#?}");
    second.complains_of(&["took over the vLLM", &pid]);
    assert_eq!(place.launches(), 1);
    place.nothing_runs().await;
}

#[tokio::test]
async fn a_reader_that_goes_away_does_not_end_supervision() {
    let plan = fake_vllm().exits_with(1).after(Duration::from_millis(300)).then(fake_vllm());
    let place = Workplace::new(plan);
    place.configure_lifecycle("stop_on_exit: true");
    for words in [&RUN_TEXT[..], &RUN_JSON[..]] {
        let launches = place.launches();
        let mut vllmd = place.start(words);
        vllmd.says("starting").await;
        vllmd.stop_reading();
        let listens = || TcpStream::connect(("127.0.0.1", place.port)).is_ok();
        until("it serves", || place.launches() > launches && listens()).await;
        vllmd.signal(Signal::TERM);
        let finished = vllmd.end().await;
        assert_eq!(finished.code, Some(143), "{finished:#?}");
        assert!(!finished.stderr.contains("panic"), "{finished:#?}");
        place.nothing_runs().await;
    }
}

#[tokio::test]
async fn messages_that_nobody_reads_do_not_hold_up_supervision() {
    let place = Workplace::new(fake_vllm());
    place.configure_lifecycle("stop_on_exit: true");
    let (reader, mut writer) = io::pipe().unwrap();
    // As much as a pipe holds (pipe(7)): whoever writes more waits for ever.
    writer.write_all(&vec![b'.'; 1 << 16]).unwrap();
    let mut vllmd = place.start_onto(&RUN_JSON, writer.into());
    vllmd.enters("running").await;
    let living = place.census.processes();
    let worker = living.iter().find(|it| it.title.contains("VLLM::Worker")).unwrap();
    // A crash is logged as an error.
    kill_process(worker.pid, Signal::KILL).unwrap();
    vllmd.enters("running").await;
    vllmd.signal(Signal::TERM);
    assert_eq!(vllmd.end().await.code, Some(143));
    drop(reader);
    place.nothing_runs().await;
}
