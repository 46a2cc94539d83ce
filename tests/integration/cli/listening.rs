//! What `vllmd` makes of somebody else at vLLM's port.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

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

    let events = vllmd.enters("failed").await;

    assert!(events.iter().all(|event| event["to"] != "running"), "{events:#?}");
    assert_eq!(stranger.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let finished = vllmd.end().await;
    finished.complains_of(&["VLM-005", &format!("pid {}", std::process::id())]);
    place.nothing_runs().await;
}
