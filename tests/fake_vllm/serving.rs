//! What it answers.

use reqwest::StatusCode;
use serde_json::{Value, json};
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::open_request::OpenRequest;

use crate::launched::{Launched, free_port};

#[tokio::test]
async fn a_completion_comes_from_the_worker() {
    let it = Launched::serving(&fake_vllm()).await;
    let answer = it.complete(3).await;
    assert_eq!(answer["choices"][0]["text"], " la la la");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    let chat: Value = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .post(format!("http://127.0.0.1:{}/v1/chat/completions", it.port))
        .json(&json!({"messages": [{"role": "user", "content": "Hm?"}], "max_tokens": 1}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(chat["choices"][0]["message"]["content"], " la");
}

#[tokio::test]
async fn a_streamed_completion_begins_when_the_engine_has_it() {
    let it = Launched::serving(&fake_vllm()).await;
    let url = format!("http://127.0.0.1:{}/v1/completions", it.port);
    let body = json!({"prompt": "Once", "max_tokens": 3, "stream": true});
    let request = OpenRequest::send(&url, &body).await.unwrap();
    assert_eq!(request.text().await.unwrap(), " la la la");
}

#[tokio::test]
async fn the_metrics_count_tokens() {
    let it = Launched::serving(&fake_vllm()).await;
    it.complete(3).await;
    it.complete(4).await;
    let metrics = it.get("/metrics").send().await.unwrap().text().await.unwrap();
    let labels = r#"{engine="0",model_name="tiny"}"#;
    for (name, value) in
        [("generation_tokens_total", 7), ("prompt_tokens_total", 8), ("num_requests_running", 0)]
    {
        let line = format!("vllm:{name}{labels} {value}.0\n");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn the_model_is_listed_under_its_served_name() {
    let it = Launched::serving(&fake_vllm()).await;
    let models: Value = it.get("/v1/models").send().await.unwrap().json().await.unwrap();
    assert_eq!(models["data"][0]["id"], "tiny");
    let version: Value = it.get("/version").send().await.unwrap().json().await.unwrap();
    assert_eq!(version, json!({"version": "0.32.0"}));
}

#[tokio::test]
async fn a_model_can_be_missing_from_the_list() {
    let it = Launched::serving(&fake_vllm().omits_model()).await;
    let models: Value = it.get("/v1/models").send().await.unwrap().json().await.unwrap();
    assert_eq!(models, json!({"object": "list", "data": []}));
}

#[tokio::test]
async fn the_key_guards_v1_and_nothing_else() {
    let it = Launched::launch(&fake_vllm(), free_port(), |command| {
        command.env("SPT_NOENV", "1").env("VLLM_API_KEY", "sesame");
    });
    it.wait_until_healthy().await;
    let refused = it.get("/v1/models").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.json::<Value>().await.unwrap(), json!({"error": "Unauthorized"}));
    let admitted = it.get("/v1/models").bearer_auth("sesame").send().await.unwrap();
    assert_eq!(admitted.status(), StatusCode::OK);
}
