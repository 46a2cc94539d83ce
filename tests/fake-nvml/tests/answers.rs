//! What nvml-wrapper reads of the stand-in, each test by a copy of its own.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fake_nvml::{FakeNvml, GpuState, ProcessState, State};
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;

const GIB: u64 = 1 << 30;

fn two_gpus() -> State {
    let mut state = State::default();
    state.gpus = vec![GpuState::h100(0), GpuState::h100(1)];
    state
}

fn open(fake: &FakeNvml) -> Nvml {
    Nvml::builder().lib_path(fake.library().as_os_str()).init().expect("it opens")
}

#[test]
fn every_reading_is_that_of_the_scenario() {
    let fake = FakeNvml::new(two_gpus());
    fake.change(|state| {
        state.gpus[1].temperature = Some(91);
        state.gpus[1].memory_used = 5 * GIB;
        state.gpus[1].uncorrectable_errors = Some(3);
    });
    let nvml = open(&fake);
    assert_eq!(nvml.device_count().unwrap(), 2);
    assert_eq!(nvml.sys_driver_version().unwrap(), "580.95.05");
    let gpu = nvml.device_by_index(1).unwrap();
    assert_eq!(gpu.uuid().unwrap(), "GPU-1");
    assert_eq!(gpu.temperature(TemperatureSensor::Gpu).unwrap(), 91);
    let memory = gpu.memory_info().unwrap();
    assert_eq!((memory.total, memory.used, memory.free), (80 * GIB, 5 * GIB, 74 * GIB));
    let errors = gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    assert_eq!(errors.unwrap(), 3);
    assert_eq!(gpu.power_usage().unwrap(), 70_000);
}

#[test]
fn two_scenarios_do_not_meet() {
    let (one, other) = (FakeNvml::new(two_gpus()), FakeNvml::new(State::default()));
    assert_eq!(open(&one).device_count().unwrap(), 2);
    assert_eq!(open(&other).device_count().unwrap(), 0);
}

#[test]
fn what_cannot_be_opened_says_why() {
    let mut state = State::default();
    state.init_error = Some("LIB_RM_VERSION_MISMATCH".to_owned());
    let fake = FakeNvml::new(state);
    let opened = Nvml::builder().lib_path(fake.library().as_os_str()).init();
    assert!(matches!(opened, Err(NvmlError::LibRmVersionMismatch)), "{opened:?}");
}

#[test]
fn a_function_fails_for_one_gpu_and_a_gpu_for_every_function() {
    let fake = FakeNvml::new(two_gpus());
    let nvml = open(&fake);
    let (first, second) = (nvml.device_by_index(0).unwrap(), nvml.device_by_index(1).unwrap());
    fake.change(|state| {
        let not_here = [("1".to_owned(), "NOT_SUPPORTED".to_owned())].into();
        state.errors.insert("nvmlDeviceGetPowerUsage".to_owned(), not_here);
    });
    assert!(first.power_usage().is_ok());
    assert!(matches!(second.power_usage(), Err(NvmlError::NotSupported)));
    fake.change(|state| {
        state.errors.insert("*".to_owned(), [("0".to_owned(), "GPU_IS_LOST".to_owned())].into());
    });
    assert!(matches!(first.memory_info(), Err(NvmlError::GpuLost)));
    assert!(second.memory_info().is_ok());
    assert_eq!(nvml.device_count().unwrap(), 2, "the driver goes on");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a process that lives as long as this test wants")]
fn memory_follows_the_life_of_a_process() {
    let fake = FakeNvml::new(two_gpus());
    let nvml = open(&fake);
    let gpu = nvml.device_by_index(0).unwrap();
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let held = serde_json::json!({ "gpu": 0, "bytes": 7 * GIB }).to_string();
    let processes = fake.directory().join("processes");
    std::fs::create_dir_all(&processes).unwrap();
    std::fs::write(processes.join(child.id().to_string()), held).unwrap();
    assert_eq!(gpu.memory_info().unwrap().used, 7 * GIB);
    let running = gpu.running_compute_processes().unwrap();
    assert_eq!(running.iter().map(|it| it.pid).collect::<Vec<_>>(), [child.id()]);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(gpu.memory_info().unwrap().used, 0);
    assert!(gpu.running_compute_processes().unwrap().is_empty());
}

#[test]
fn processes_that_are_no_more_are_listed_where_the_scenario_says_so() {
    let fake = FakeNvml::new(two_gpus());
    fake.change(|state| {
        state.gpus[0].processes = (1..=9).map(|pid| ProcessState::new(pid, GIB)).collect();
    });
    let nvml = open(&fake);
    let gpu = nvml.device_by_index(0).unwrap();
    assert_eq!(gpu.running_compute_processes().unwrap().len(), 9);
    assert_eq!(gpu.memory_info().unwrap().used, 9 * GIB);
}

#[test]
fn a_fault_is_told_once_to_who_listened_before_it() {
    let fake = FakeNvml::new(two_gpus());
    fake.xid(0, 13);
    let nvml = open(&fake);
    let set = nvml.create_event_set().unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    let set = gpu.register_events(EventTypes::CRITICAL_XID_ERROR, set).unwrap();
    assert!(matches!(set.wait(10), Err(NvmlError::Timeout)), "it was told before");
    fake.xid(1, 31);
    fake.xid(0, 79);
    let event = set.wait(5000).unwrap();
    assert_eq!(event.event_data, Some(XidError::Value(79)), "the other was not registered");
    assert_eq!(event.device.uuid().unwrap(), "GPU-0");
    assert!(matches!(set.wait(10), Err(NvmlError::Timeout)));
}

#[test]
fn a_function_that_hangs_returns_when_the_scenario_lets_it() {
    let mut state = two_gpus();
    state.hanging = vec!["nvmlDeviceGetMemoryInfo_v2".to_owned()];
    let fake = FakeNvml::new(state);
    let nvml = open(&fake);
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let nvml = &nvml;
        scope.spawn(move || {
            let free = nvml.device_by_index(0).unwrap().memory_info().unwrap().free;
            tell.send(free).unwrap();
        });
        assert!(told.recv_timeout(Duration::from_millis(100)).is_err(), "it hangs");
        fake.change(|state| state.hanging.clear());
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(79 * GIB));
    });
}
