//! What `vllmd` makes of somebody else at vLLM's port.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use vllm_supervisor_tests::fake_vllm::fake_vllm;

use super::workplace::{Workplace, until};

#[tokio::test]
async fn who_takes_the_port_while_vllm_loads_is_neither_asked_nor_sent_the_key() {
    let mut place = Workplace::new(fake_vllm().loads_in(Duration::from_secs(2)));
    place.set("VLLM_API_KEY", "the-key");
    place.configure_lifecycle("stop_on_exit: true, max_restarts_per_minute: 1");
    let mut vllmd = place.start(&["run", "--config", "vllmd.yaml", "--output", "json"]);
    until("vLLM runs", || place.launches() == 1).await;
    let stranger = TcpListener::bind(("127.0.0.1", place.port)).unwrap();
    stranger.set_nonblocking(true).unwrap();

    let holder = format!("pid {}", std::process::id());
    let mut said = Value::Null;
    // vLLM may have found the port taken before we did: then the next launch names the stranger.
    while said["code"] != "VLM-005" {
        let events = vllmd.enters("crashed").await;
        assert!(events.iter().all(|event| event["to"] != "running"), "{events:#?}");
        said = events.last().unwrap()["cause"].clone();
    }

    assert!(said["summary"].as_str().unwrap().contains(&holder), "{said}");
    assert_eq!(stranger.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    vllmd.signal(Signal::TERM);
    vllmd.end().await;
    place.nothing_runs().await;
}
