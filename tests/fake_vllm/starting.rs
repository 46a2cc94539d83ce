//! From the launch to the first answer: flags, address, tree, titles, log.

use std::net::TcpListener;
use std::time::Duration;

use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::process_table::{Process, descendants};

use crate::launched::{Launched, free_port, until};

#[tokio::test]
async fn the_tree_is_that_of_the_real_one() {
    let it = Launched::serving(&fake_vllm()).await;
    let tree = descendants(it.pid());
    let main = Process::of(it.pid()).unwrap();
    let (engine, worker) = (it.helper("VLLM::EngineCore"), it.helper("VLLM::Worker"));
    let tracker = it.helper("python -c from multiprocessing.resource_tracker import main;main(0)");
    assert_eq!(tree.len(), 3, "{tree:#?}");
    assert_eq!(main.comm, "vllm");
    assert_eq!((engine.parent, engine.comm.as_str()), (Some(main.pid), "VLLM::EngineCor"));
    assert_eq!((worker.parent, worker.comm.as_str()), (Some(engine.pid), "VLLM::Worker"));
    assert_eq!((tracker.parent, tracker.comm.as_str()), (Some(main.pid), "python"));
    assert!(tree.iter().all(|process| process.session == main.session), "{tree:#?}");
}

#[tokio::test]
async fn several_workers_are_numbered() {
    let it = Launched::with_flags(&fake_vllm(), free_port(), &["-tp", "2"]);
    it.wait_until_healthy().await;
    it.helper("VLLM::Worker_TP0");
    it.helper("VLLM::Worker_TP1");
    assert_eq!(it.complete(2).await["choices"][0]["text"], " la la");
}

#[tokio::test]
async fn a_title_hides_the_environment_unless_told_otherwise() {
    let hidden = Launched::launch(&fake_vllm(), free_port(), |_| {});
    let shown = Launched::serving(&fake_vllm()).await;
    hidden.wait_until_healthy().await;
    for (it, in_sight) in [(&hidden, false), (&shown, true)] {
        let (name, value) = it.census.variable();
        let marker = format!("{name}={value}");
        assert!(Process::of(it.pid()).unwrap().has_in_environment(&marker));
        for title in ["VLLM::EngineCore", "VLLM::Worker"] {
            assert_eq!(it.helper(title).has_in_environment(&marker), in_sight, "{title}");
        }
    }
}

#[tokio::test]
async fn helpers_go_by_the_name_of_python_until_they_have_imported_vllm() {
    let it = Launched::new(&fake_vllm().loads_in(Duration::from_secs(1)));
    until("a helper imports", async || {
        let imports = |process: &Process| process.title.contains("multiprocessing.spawn");
        descendants(it.pid()).iter().any(|process| imports(process) && process.comm == "python")
    })
    .await;
    it.wait_until_healthy().await;
}

#[tokio::test]
async fn engine_and_workers_hold_shared_memory_together() {
    let it = Launched::serving(&fake_vllm()).await;
    let held = it.helper("VLLM::EngineCore").shared_memory();
    assert_eq!(held.len(), 2);
    assert_eq!(held, it.helper("VLLM::Worker").shared_memory());
    assert!(held.iter().all(|path| path.to_str().unwrap().starts_with("/dev/shm/psm_")));
}

#[tokio::test]
async fn log_and_bars_go_to_the_streams_of_the_real_one() {
    let it = Launched::serving(&fake_vllm().shards(5)).await;
    let (stdout, stderr) = (it.said_on("stdout"), it.said_on("stderr"));
    let engine = it.helper("VLLM::EngineCore").pid.as_raw_pid();
    assert!(stdout.contains(&format!("(EngineCore pid={engine}) INFO ")));
    assert!(stdout.contains("Starting to load model /models/tiny...\n"));
    assert!(!stdout.contains("Application startup"));
    for line in [
        "Loading safetensors checkpoint shards:   0% Completed | 0/5 [00:00<?, ?it/s]\n",
        "Loading safetensors checkpoint shards:  40% Completed | 2/5 [00:00<00:00, ",
        "Loading safetensors checkpoint shards: 100% Completed | 5/5 [00:00<00:00, ",
        "INFO:     Application startup complete.\n",
    ] {
        assert!(stderr.contains(line), "{line} is not in {stderr}");
    }
    let unfilled = ["{pid}", "{time}", "{model}", "{worker}", "{world}", "{rank}", "{address}"];
    assert!(unfilled.iter().all(|name| !stdout.contains(name) && !stderr.contains(name)));
}

#[tokio::test]
async fn an_unknown_flag_ends_it_with_2() {
    let mut it = Launched::with_flags(&fake_vllm(), free_port(), &["--no-such-flag"]);
    assert_eq!(it.exit_code().await, Some(2));
    let said = it.said_on("stderr");
    assert!(said.ends_with("vllm: error: unrecognized arguments: --no-such-flag\n"), "{said}");
}

#[tokio::test]
async fn a_taken_port_ends_it_with_1_before_it_loads() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut it = Launched::with_flags(&fake_vllm(), port, &[]);
    assert_eq!(it.exit_code().await, Some(1));
    let said = it.said_on("stderr");
    assert!(said.ends_with("OSError: [Errno 98] Address already in use\n"), "{said}");
    assert!(!it.said_on("stdout").contains("EngineCore"));
}

#[tokio::test]
async fn nobody_listens_while_it_loads() {
    let it = Launched::new(&fake_vllm().loads_in(Duration::from_secs(1)));
    it.wait_for_line("stdout", "Using max model len").await;
    assert_eq!(it.health().await, None);
    it.wait_until_healthy().await;
}
