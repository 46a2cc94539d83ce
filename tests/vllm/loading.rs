//! What a real vLLM's load tells of itself.

use vllm_supervisor::config::ModelReference;
use vllm_supervisor::{LoadStatus, Snapshot};
use vllm_supervisor_tests::real_vllm::RealVllm;
use vllm_supervisor_tests::scenario::{Scenario, Server};

use vllm_supervisor_tests::hub::{GIVEN, Gift, Hub};

pub(crate) async fn a_model_that_is_downloaded_tells_how_much_has_come(vllm: RealVllm) {
    let gift = Gift::of(&vllm.tiny_model);
    let all = gift.bytes_of(&[".json", ".safetensors", ".txt"]);
    let hub = Hub::giving(gift).await;
    let cache = tempfile::tempdir().expect("a directory");
    let scenario = Scenario::configure(Server::real(vllm), |config| {
        let mut set = |name: &str, value: String| config.env.insert(name.to_owned(), value);
        set("HF_ENDPOINT", hub.endpoint.clone());
        set("HF_HUB_OFFLINE", "0".to_owned());
        set("HF_HUB_DISABLE_XET", "1".to_owned());
        set("HF_HOME", cache.path().display().to_string());
        config.model = ModelReference::Hub(GIVEN.to_owned());
    })
    .await;
    // The weights come when it has been told how much there will be.
    let expecting = async {
        let total = |now: &Snapshot| now.progress.as_ref().and_then(|it| it.total_bytes);
        scenario.wait_until(|now| total(now) == Some(all)).await;
        hub.give_weights();
    };
    tokio::join!(scenario.start_service(), expecting);
    let loads = scenario.loads();
    let story = || scenario.story();
    assert!(loads.iter().any(|it| it.status == LoadStatus::Downloading), "{}", story());
    assert!(loads.iter().any(|it| it.total_bytes == Some(all)), "{all}\n{}", story());
    let percents: Vec<u8> = loads.iter().map(|it| it.percent).collect();
    assert!(percents.is_sorted(), "{percents:?}");
    let bytes: Vec<u64> = loads.iter().map(|it| it.bytes_downloaded).collect();
    assert!(bytes.is_sorted() && bytes.iter().all(|it| *it <= all), "{bytes:?} of {all}");
    scenario.end().await;
}
