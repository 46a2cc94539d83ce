//! A vLLM that somebody else has in hand, watched by `vllmd run`.

use std::io::Write as _;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Child;
use vllm_supervisor_tests::fake_systemd::{FakeSystemd, VLLM_SERVICE};
use vllm_supervisor_tests::fake_vllm::fake_vllm;

use crate::cli::workplace::{Started, Workplace, until};

/// A vLLM that this test has started itself, as a service manager would.
struct Service(Child);

impl Service {
    fn start(place: &Workplace) -> Self {
        Self(place.serve().spawn().expect("a stand-in for vLLM"))
    }

    fn pid(&self) -> u32 {
        self.0.id().expect("it has not been waited for")
    }

    async fn die(mut self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::KILL).expect("it lives");
        self.0.wait().await.expect("a child");
    }
}

fn watch(place: &Workplace, lifecycle: &str) -> Started {
    let port = place.port;
    let interval = "health_check_interval: 200ms";
    place.configure(&format!(
        "model: org/tiny\nport: {port}\nlifecycle: {{{lifecycle}, {interval}}}"
    ));
    place.start(&["run", "--config", "vllmd.yaml", "--output", "json"])
}

async fn ends(vllmd: Started) -> Vec<Value> {
    vllmd.signal(Signal::TERM);
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(143), "{finished:#?}");
    finished.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn incidents(events: &[Value]) -> Vec<&Value> {
    let incidents = events.iter().filter(|event| event["type"] == "incident_recorded");
    incidents.map(|event| &event["incident"]).collect()
}

/// One line that says why not, where there is no bus.
async fn systemd() -> Option<FakeSystemd> {
    let systemd = FakeSystemd::start().await;
    if systemd.is_none() {
        let required = std::env::var_os("VLLMD_REQUIRE_REAL_VLLM").is_some();
        assert!(!required, "dbus-daemon is required");
        writeln!(std::io::stderr(), "left out: there is no dbus-daemon").expect("a stderr");
    }
    systemd
}

#[tokio::test]
async fn an_external_vllm_is_told_of_when_it_comes_and_goes_and_is_not_touched() {
    let place = Workplace::new(fake_vllm());
    let mut vllmd = watch(&place, "mode: external");
    until("it looks", || place.state().join("events.jsonl").exists()).await;
    let service = Service::start(&place);
    vllmd.enters("running").await;
    service.die().await;
    place.end_engines().await;
    vllmd.enters("unknown").await;
    let service = Service::start(&place);
    vllmd.enters("running").await;
    let pid = service.pid();
    ends(vllmd).await;
    until("it serves on", || place.is_alive(pid)).await;
    assert_eq!(place.launches(), 2);
}

#[tokio::test]
async fn a_unit_is_followed_through_a_crash_a_restart_and_a_stop() {
    let Some(systemd) = systemd().await else { return };
    let mut place = Workplace::new(fake_vllm());
    place.set("DBUS_SYSTEM_BUS_ADDRESS", &systemd.address());
    let mut vllmd = watch(&place, &format!("mode: monitored, monitored_unit: {VLLM_SERVICE}"));
    vllmd.enters("stopped").await;

    let first = Service::start(&place);
    let pid = first.pid();
    systemd.starts(pid).await;
    vllmd.enters("running").await;

    first.die().await;
    systemd.ends("signal", 2, 9).await;
    vllmd.enters("crashed").await;
    place.end_engines().await;
    systemd.awaits_restart().await;
    let second = Service::start(&place);
    systemd.starts(second.pid()).await;
    let events = vllmd.enters("running").await;
    let [incident] = incidents(&events)[..] else { panic!("{events:#?}") };
    assert_eq!(incident["code"], "VLM-016", "{incident:#}");
    assert_eq!(incident["restart_after_ms"], 100, "{incident:#}");
    assert_eq!(incident["exits"][0]["pid"], pid, "{incident:#}");

    systemd.is_being_stopped().await;
    vllmd.enters("stopping").await;
    second.die().await;
    systemd.rests().await;
    vllmd.enters("stopped").await;
    let rest = ends(vllmd).await;
    assert_eq!(incidents(&rest).len(), 1, "{rest:#?}");
    assert_eq!(place.launches(), 2, "it was started by nobody else");
}

#[tokio::test]
async fn a_unit_that_is_given_up_has_failed_and_is_watched_on() {
    let Some(systemd) = systemd().await else { return };
    let mut place = Workplace::new(fake_vllm());
    place.set("DBUS_SYSTEM_BUS_ADDRESS", &systemd.address());
    systemd.gives_up("start-limit-hit").await;
    let mut vllmd = watch(&place, &format!("mode: monitored, monitored_unit: {VLLM_SERVICE}"));
    let events = vllmd.enters("failed").await;
    let cause = &events.last().expect("an event")["cause"];
    assert_eq!(cause["code"], "VLM-018", "{cause:#}");
    let service = Service::start(&place);
    systemd.starts(service.pid()).await;
    vllmd.enters("running").await;
    ends(vllmd).await;
}

#[tokio::test]
async fn a_stranger_at_the_units_port_is_not_taken_for_it() {
    let Some(systemd) = systemd().await else { return };
    let mut place = Workplace::new(fake_vllm());
    place.set("DBUS_SYSTEM_BUS_ADDRESS", &systemd.address());
    let stranger = Service::start(&place);
    // The unit's main process is another: this test itself.
    systemd.starts(std::process::id()).await;
    let mut vllmd = watch(&place, &format!("mode: monitored, monitored_unit: {VLLM_SERVICE}"));
    let events = vllmd.enters("unknown").await;
    let cause = &events.last().expect("an event")["cause"];
    assert_eq!(cause["code"], "VLM-005", "{cause:#}");
    let pid = stranger.pid().to_string();
    assert!(cause["summary"].as_str().is_some_and(|it| it.contains(&pid)), "{cause:#}");
    ends(vllmd).await;
}

#[tokio::test]
async fn a_unit_that_there_is_not_is_named_with_what_to_do() {
    let Some(systemd) = systemd().await else { return };
    let mut place = Workplace::new(fake_vllm());
    place.set("DBUS_SYSTEM_BUS_ADDRESS", &systemd.address());
    place.configure(&format!(
        "model: org/tiny\nport: {}\nlifecycle: {{mode: monitored, monitored_unit: vlm.service}}",
        place.port
    ));
    let vllmd = place.start(&["run", "--config", "vllmd.yaml"]);
    until("it is said", || place.state().join("events.jsonl").exists()).await;
    vllmd.signal(Signal::TERM);
    let finished = vllmd.end().await;
    finished.complains_of(&["vlm.service", "systemctl"]);
}

#[tokio::test]
async fn a_bus_that_is_not_there_leaves_the_unit_unknown_with_the_reason() {
    let mut place = Workplace::new(fake_vllm());
    place.set("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    let _service = Service::start(&place);
    let vllmd = watch(&place, &format!("mode: monitored, monitored_unit: {VLLM_SERVICE}"));
    until("it is said", || place.state().join("events.jsonl").exists()).await;
    vllmd.signal(Signal::TERM);
    let finished = vllmd.end().await;
    finished.complains_of(&["systemd cannot be asked about vllm.service", "/nonexistent/bus"]);
    assert!(!finished.stdout.contains("running"), "{finished:#?}");
}
