//! GPUs by a stand-in for NVIDIA's driver: the true calls, without a GPU.

use std::process::id;
use std::time::Duration;

use fake_nvml::{FakeNvml, GpuState, ProcessState, State};
use rustix::process::Signal;
use vllm_supervisor::ServiceState::{Failed, Running};
use vllm_supervisor::{Code, CommandError, EventKind, GpuFinding, GpuView, Notice, RetryClass};
use vllm_supervisor_tests::fake_venv::FakeVenv;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::scenario::{Scenario, Server, Victim};

use crate::FAKE;

const GIB: u64 = 1 << 30;

fn driver(gpus: u32) -> FakeNvml {
    let mut state = State::default();
    state.gpus = (0..gpus).map(GpuState::h100).collect();
    FakeNvml::new(state)
}

async fn with(driver: &FakeNvml, server: Server) -> Scenario {
    Scenario::configure(server, |config| {
        config.gpu.library = Some(driver.library());
        config.gpu.sample_interval = Duration::from_millis(50);
        let place = driver.directory().display().to_string();
        config.env.insert("FAKE_NVML".to_owned(), place);
    })
    .await
}

async fn running_on(driver: &FakeNvml) -> Scenario {
    let scenario = with(driver, Server::fake(FAKE, &fake_vllm())).await;
    scenario.handle().start().await.expect("it starts");
    let is_ours = |gpu: &vllm_supervisor::Gpu| gpu.processes.iter().any(|process| process.ours);
    scenario.wait_until(|now| now.gpus.gpus().iter().any(is_ours)).await;
    scenario
}

/// Of which GPUs what was found, in the order in which it was.
fn findings(scenario: &Scenario) -> Vec<String> {
    let found = scenario.notices().into_iter().filter_map(|notice| match notice {
        Notice::Event(event) => match &event.kind {
            EventKind::GpuFindingRaised { finding } => Some(format!("+{finding}")),
            EventKind::GpuFindingCleared { finding } => Some(format!("-{finding}")),
            _ => None,
        },
        Notice::Gap { .. } => None,
    });
    found.collect()
}

#[tokio::test]
async fn what_vllm_has_of_a_gpu_is_told_for_as_long_as_it_lives() {
    let driver = driver(2);
    let scenario = running_on(&driver).await;
    let present = scenario.handle().status().await.unwrap();
    let gpu = &present.gpus.gpus()[0];
    assert_eq!(gpu.memory_used_bytes, Some(20 * GIB));
    assert_eq!(gpu.processes.len(), 1);
    assert!(present.gpus.gpus()[1].processes.is_empty());
    scenario.handle().stop().await.unwrap();
    scenario.wait_until(|now| now.gpus.gpus()[0].processes.is_empty()).await;
    scenario.end().await;
}

#[tokio::test]
async fn a_gpu_that_must_be_reset_ends_vllm_until_its_driver_says_that_it_is_well() {
    let driver = driver(1);
    // Of the fault nobody hears but by the driver's own word of it.
    driver.change(|state| state.gpus[0].recovery_action = None);
    let scenario = running_on(&driver).await;
    driver.xid(0, 95);
    let failed = scenario.wait_for(Failed).await;
    let cause = failed.last_error.expect("a cause");
    assert_eq!((cause.code, cause.retry), (Code::GpuFault, RetryClass::Permanent));
    assert!(cause.remedy().contains("--gpu-reset -i 0"), "{}", cause.remedy());
    scenario.nothing_is_left().await;
    assert!(scenario.state_dir().join("gpus.json").exists());

    let refused = scenario.handle().start().await;
    assert!(matches!(&refused, Err(CommandError::Failed(cause)) if cause.code == Code::GpuFault));
    let scenario = scenario.succeed().await;
    let refused = scenario.handle().start().await;
    assert!(matches!(&refused, Err(CommandError::Failed(cause)) if cause.code == Code::GpuFault));

    driver.change(|state| state.gpus[0].recovery_action = Some(0));
    scenario.wait_until(|now| now.gpu_findings.iter().all(|it| !it.blocks_us())).await;
    scenario.handle().start().await.unwrap();
    scenario.end().await;
}

#[tokio::test]
async fn a_gpu_that_is_lost_ends_vllm_for_good() {
    let driver = driver(2);
    let scenario = running_on(&driver).await;
    driver.change(|state| {
        state.errors.insert("*".to_owned(), [("0".to_owned(), "GPU_IS_LOST".to_owned())].into());
    });
    let failed = scenario.wait_for(Failed).await;
    let cause = failed.last_error.expect("a cause");
    assert_eq!((cause.code, cause.retry), (Code::GpuFault, RetryClass::Permanent));
    assert!(cause.summary.contains("fallen off the bus"), "{cause}");
    let lost = &failed.gpus.gpus()[0];
    assert_eq!(lost.uuid, "GPU-0", "it keeps its name");
    scenario.end().await;
}

#[tokio::test]
async fn a_fault_that_a_restart_cures_is_why_the_worker_died() {
    let driver = driver(1);
    let scenario = running_on(&driver).await;
    let before = scenario.handle().status().await.unwrap().incarnation.get();
    driver.xid(0, 31);
    scenario.wait_until(|now| !now.gpu_findings.is_empty()).await;
    scenario.kill(Victim::Worker, Signal::SEGV);
    scenario.wait_for_successor_of(before).await;
    let history = scenario.handle().history().await;
    assert_eq!(history[0].gpus[0].memory_used_bytes, Some(20 * GIB), "as it was before the end");
    let cause = &history[0].cause;
    assert_eq!((cause.code, cause.retry), (Code::GpuFault, RetryClass::Transient), "{cause}");
    assert!(cause.summary.contains("Xid 31") && cause.summary.contains("worker"), "{cause}");
    scenario.end().await;
}

#[tokio::test]
async fn what_befalls_the_gpu_of_others_is_told_and_no_more() {
    let driver = driver(2);
    let scenario = running_on(&driver).await;
    driver.change(|state| state.gpus[1].recovery_action = Some(2));
    driver.xid(1, 79);
    scenario.wait_until(|now| now.gpu_findings.len() == 2).await;
    assert_eq!(scenario.handle().status().await.unwrap().state, Running);
    driver.change(|state| state.gpus[1].recovery_action = Some(0));
    scenario.wait_until(|now| now.gpu_findings.is_empty()).await;
    let found = findings(&scenario);
    assert!(found.iter().any(|it| it.starts_with("+GPU 1: Xid 79")), "{found:?}");
    assert!(found.last().is_some_and(|it| it.starts_with("-GPU 1: its driver asks")), "{found:?}");
    scenario.end().await;
}

#[tokio::test]
async fn a_gpu_that_is_broken_holds_up_only_a_vllm_that_is_given_it() {
    let driver = driver(1);
    driver.change(|state| state.gpus[0].recovery_action = Some(2));
    // Nobody can say which GPUs a command of one's own uses, and it uses none.
    let scenario = Scenario::configure(Server::fake(FAKE, &fake_vllm()), |config| {
        config.gpu.library = Some(driver.library());
        config.gpu.sample_interval = Duration::from_millis(50);
    })
    .await;
    scenario.wait_until(|now| !now.gpu_findings.is_empty()).await;
    scenario.handle().start().await.unwrap();
    scenario.end().await;

    let venv = FakeVenv::of(FAKE);
    let scenario = with(&driver, Server::fake_in(&venv, &fake_vllm())).await;
    scenario.wait_until(|now| now.gpu_findings.iter().any(GpuFinding::blocks_us)).await;
    let refused = scenario.handle().start().await;
    assert!(matches!(&refused, Err(CommandError::Failed(cause)) if cause.code == Code::GpuFault));
    scenario.end().await;
}

#[tokio::test]
async fn memory_that_somebody_holds_is_waited_for_and_then_named() {
    let driver = driver(1);
    driver.change(|state| state.gpus[0].processes = vec![ProcessState::new(id(), 60 * GIB)]);
    let venv = FakeVenv::of(FAKE);
    let scenario = with(&driver, Server::fake_in(&venv, &fake_vllm())).await;
    let refused = scenario.handle().start().await;
    let Err(CommandError::Failed(cause)) = &refused else { panic!("{refused:?}") };
    assert_eq!((cause.code, cause.retry), (Code::InsufficientGpuMemory, RetryClass::AfterCleanup));
    let who = format!("pid {}", id());
    for word in ["19.0 GiB free", "71.1 GiB", "60.0 GiB", &who] {
        assert!(cause.summary.contains(word), "{cause}");
    }
    driver.change(|state| state.gpus[0].processes.clear());
    scenario.handle().start().await.unwrap();
    scenario.end().await;
}

#[tokio::test]
async fn a_driver_that_hangs_holds_nobody_up() {
    let driver = driver(1);
    let scenario = running_on(&driver).await;
    driver.change(|state| state.hanging = vec!["nvmlDeviceGetMemoryInfo_v2".to_owned()]);
    let stalled = |now: &vllm_supervisor::Snapshot| matches!(now.gpus, GpuView::Stalled(_));
    let before = scenario.wait_until(stalled).await.incarnation.get();
    assert_eq!(scenario.handle().status().await.unwrap().state, Running);
    scenario.kill(Victim::ApiServer, Signal::KILL);
    scenario.wait_for_successor_of(before).await;
    scenario.end().await;
    driver.change(|state| state.hanging.clear());
}

#[tokio::test]
async fn a_driver_that_does_not_open_is_the_reason_why_no_gpu_is_watched() {
    let mut state = State::default();
    state.init_error = Some("LIB_RM_VERSION_MISMATCH".to_owned());
    let driver = FakeNvml::new(state);
    let scenario = with(&driver, Server::fake(FAKE, &fake_vllm())).await;
    scenario.handle().start().await.unwrap();
    let known = |now: &vllm_supervisor::Snapshot| now.gpus != GpuView::Pending;
    let present = scenario.wait_until(known).await;
    let GpuView::Unavailable(reason) = &present.gpus else { panic!("{:?}", present.gpus) };
    assert!(reason.contains("reboot"), "{reason}");
    scenario.end().await;
}
