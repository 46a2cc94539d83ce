//! What cannot be used is said before anything is started: exit code 2, with key, value and remedy.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::sandbox::low_ports_are_reserved;

use super::workplace::Workplace;

/// A configuration section, further words, and what stderr must have.
const MISTAKES: [(&str, &[&str], &[&str]); 10] = [
    (
        "model: org/tiny",
        &["--config", "missing.yaml"],
        &["error[VLM-008]: --config: ", "missing.yaml`", "help: name a readable YAML file"],
    ),
    (
        "model: org/tiny\nprot: 8000",
        &[],
        &[
            "vllmd.yaml:4: providers.vllm.prot: unknown key",
            "help: did you mean `providers.vllm.port`?",
        ],
    ),
    (
        "model: org/tiny\nport: 0",
        &[],
        &[
            "error[VLM-008]: ",
            "vllmd.yaml:4: providers.vllm.port: ",
            "found `0`",
            "help: The TCP port",
        ],
    ),
    (
        "model: org/tiny",
        &["--port", "70000"],
        &["error[VLM-008]: --port: ", "found `70000`", "help: The TCP port"],
    ),
    (
        "model: org/tiny\ngpu: {memory_utilization: 1.2}",
        &[],
        &["providers.vllm.gpu.memory_utilization: ", "found `1.2`", "help: "],
    ),
    ("model: two words", &[], &["error[VLM-012]: ", "providers.vllm.model: ", "found `two words`"]),
    ("port: 8000", &[], &["providers.vllm.model: no model is given", "help: give `--model`"]),
    (
        "model: org/tiny\nextra_args: [--dtype, half, --ssl-keyfile, key.pem]",
        &[],
        &[
            "error[VLM-008]: ",
            "vllmd.yaml:4: providers.vllm.extra_args[2]: `--ssl-keyfile` makes vLLM speak TLS",
            "help: remove it",
        ],
    ),
    (
        "model: org/tiny\nvllm_binary: /no/such/vllm",
        &[],
        &["error[VLM-007]: ", "`/no/such/vllm`", "help: install it"],
    ),
    (
        "model: org/tiny",
        &["--state-dir", "/dev/null/state"],
        &[
            "error: the state directory /dev/null/state cannot be used: Not a directory",
            "help: make it writable",
        ],
    ),
];

#[tokio::test]
async fn each_mistake_is_named_with_a_way_out_and_nothing_starts() {
    for (section, words, parts) in MISTAKES {
        let place = Workplace::new(fake_vllm());
        place.configure(section);
        for command in ["run", "check"] {
            // The last one counts for clap as well, so a row may name another file.
            let mut line = vec![command];
            if !words.contains(&"--config") {
                line.extend(["--config", "vllmd.yaml"]);
            }
            line.extend(words);
            let finished = place.vllmd(&line).await;
            assert_eq!(finished.code, Some(2), "{finished:#?}");
            finished.complains_of(parts);
            assert!(command == "check" || finished.stdout.is_empty(), "{finished:#?}");
        }
        assert_eq!(place.launches(), 0);
    }
}

#[tokio::test]
async fn an_address_of_another_machine_is_refused_and_the_host_is_named() {
    let mut place = Workplace::new(fake_vllm());
    place.set("VLLM_API_KEY", "the-key");
    // For documentation alone (RFC 5737).
    place.configure(&format!("model: org/tiny\nhost: 192.0.2.1\nport: {}", place.port));
    for command in ["run", "check"] {
        let finished = place.vllmd(&[command, "--config", "vllmd.yaml"]).await;
        assert_eq!(finished.code, Some(2), "{finished:#?}");
        finished.complains_of(&[
            "error[VLM-008]: providers.vllm.host: ",
            "no address of this machine",
            "found `192.0.2.1`",
            "help: use 127.0.0.1",
        ]);
    }
    assert_eq!(place.launches(), 0);
}

#[tokio::test]
async fn a_port_that_is_for_others_is_refused_and_the_port_is_named() {
    let place = Workplace::new(fake_vllm());
    place.configure("model: org/tiny");
    if !low_ports_are_reserved() {
        writeln!(io::stderr(), "left out: here everybody may listen at port 1").unwrap();
        return;
    }
    for command in ["run", "check"] {
        let words = [command, "--config", "vllmd.yaml", "--port", "1"];
        let started = place.start_without_low_ports(&words);
        let finished = started.end().await;
        assert_eq!(finished.code, Some(2), "{finished:#?}");
        finished.complains_of(&[
            "error[VLM-008]: --port: not a port that this user may listen at",
            "found `1`",
            "help: use a port from ",
        ]);
    }
    assert_eq!(place.launches(), 0);
}

#[tokio::test]
async fn all_mistakes_are_reported_at_once() {
    let place = Workplace::new(fake_vllm());
    place.configure("port: 0\ngpu: {tensor_parallel_size: 0}\nlifecycle: {mode: manged}");
    let finished = place.vllmd(&["run", "--config", "vllmd.yaml", "--model", "a b"]).await;
    assert_eq!(finished.code, Some(2));
    finished.complains_of(&["--model", "vllm.port", "tensor_parallel_size", "lifecycle.mode"]);
    assert_eq!(finished.stderr.matches("error[VLM-").count(), 4, "{finished:#?}");
}

#[tokio::test]
async fn with_log_records_in_json_mistakes_are_json_as_well() {
    let mut place = Workplace::new(fake_vllm());
    let words = ["run", "--model", "a b", "--port", "0", "--log-format", "json"];
    let misconfigured = place.vllmd(&words).await;
    place.set("VLLMD_LOG", "root=loud");
    let misfiltered = place.vllmd(&["run", "--model", "org/tiny", "--log-format", "json"]).await;
    for (finished, complaints) in [(misconfigured, 2), (misfiltered, 1)] {
        assert_eq!(finished.code, Some(2), "{finished:#?}");
        let records = finished.stderr.lines().map(serde_json::from_str::<Value>);
        let records: Vec<Value> = records.map(|record| record.expect("a JSON object")).collect();
        assert_eq!(records.len(), complaints, "{records:#?}");
        assert!(records.iter().all(|record| record["level"] == "ERROR"), "{records:#?}");
    }
}

#[tokio::test]
async fn without_vllm_it_says_what_to_install() {
    let place = Workplace::without_vllm(fake_vllm());
    for command in ["run", "check"] {
        let finished = place.vllmd(&[command, "--model", "org/tiny"]).await;
        assert_eq!(finished.code, Some(2), "{finished:#?}");
        finished.complains_of(&["error[VLM-007]: there is no `vllm` on the PATH", "pip install"]);
    }
}

#[tokio::test]
async fn a_state_directory_has_room_for_one() {
    let place = Workplace::new(fake_vllm());
    fs::create_dir_all(place.path("state/logs")).unwrap();
    let lock = File::create(place.path("state/lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    place.configure_lifecycle("");
    let words = |command| [command, "--config", "vllmd.yaml", "--state-dir", "state"];
    let finished = place.vllmd(&words("run")).await;
    assert_eq!(finished.code, Some(2), "{finished:#?}");
    finished.complains_of(&["/state is used by another supervisor", "`--state-dir`"]);
    let finished = place.vllmd(&words("check")).await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let holder = format!("is used by a supervisor that runs (pid {})", std::process::id());
    assert!(finished.stdout.contains(&holder), "{finished:#?}");
    assert_eq!(place.launches(), 0);
}

#[tokio::test]
async fn a_log_filter_that_means_nothing_is_refused() {
    let mut place = Workplace::new(fake_vllm());
    place.set("VLLMD_LOG", "root=loud");
    let finished = place.vllmd(&["run", "--model", "org/tiny"]).await;
    assert_eq!(finished.code, Some(2), "{finished:#?}");
    finished.complains_of(&["error: VLLMD_LOG: ", "found `root=loud`", "help: give a level"]);
}

#[tokio::test]
async fn wrong_usage_is_a_mistake_too() {
    let place = Workplace::new(fake_vllm());
    for words in [&["runn"][..], &["run", "--prot", "1"], &[]] {
        let finished = place.vllmd(words).await;
        assert_eq!(finished.code, Some(2), "{finished:#?}");
        assert_eq!(finished.stdout, "");
    }
}

#[tokio::test]
async fn a_file_that_nobody_named_is_not_believed_if_others_could_have_written_it() {
    let place = Workplace::new(fake_vllm());
    let port = place.port;
    fs::create_dir(place.path(".agent")).unwrap();
    let file = place.path(".agent/config.yml");
    fs::write(&file, format!("providers: {{vllm: {{model: org/tiny, port: {port}}}}}")).unwrap();
    let allow = |path, mode| fs::set_permissions(place.path(path), Permissions::from_mode(mode));
    let path = file.to_str().unwrap();
    let fits = place.vllmd(&["check"]).await;
    assert_eq!(fits.code, Some(0), "{fits:#?}");
    for (what, mode, fault) in [
        (".agent/config.yml", 0o666, "may be written by everybody"),
        (".agent", 0o777, "its directory"),
        ("", 0o777, "its directory"),
    ] {
        let before = fs::metadata(place.path(what)).unwrap().permissions();
        allow(what, mode).unwrap();
        for command in ["run", "check"] {
            let finished = place.vllmd(&[command]).await;
            assert_eq!(finished.code, Some(2), "{finished:#?}");
            finished.complains_of(&[path, fault, "help: name it with `--config`"]);
        }
        let named = place.vllmd(&["check", "--config", path]).await;
        assert_eq!(named.code, Some(0), "{named:#?}");
        fs::set_permissions(place.path(what), before).unwrap();
    }
    // Only root can give a file away.
    if chown(&file, Some(4321), None).is_ok() {
        let finished = place.vllmd(&["check"]).await;
        finished.complains_of(&[path, "belongs to user 4321"]);
    }
    assert_eq!(place.launches(), 0);
}
