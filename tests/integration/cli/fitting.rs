//! What of a model's surroundings is looked at before vLLM is started: LoRA adapters, and the memory of GPUs.

use std::fs;

use fake_nvml::{FakeNvml, GpuState, State};
use serde_json::{Value, json};
use vllm_supervisor_tests::fake_venv::FakeVenv;
use vllm_supervisor_tests::fake_vllm::fake_vllm;

use super::workplace::{Finished, Workplace};

const GIB: u64 = 1 << 30;

const CHECK: [&str; 5] = ["check", "--config", "vllmd.yaml", "--output", "json"];

/// A place with a model that has weights of so many GiB, with this in its configuration.
fn place(venv: &FakeVenv, weights: u64, section: &str) -> Workplace {
    let place = Workplace::with_venv(venv, fake_vllm());
    let model = place.path("model");
    fs::create_dir(&model).expect("a directory");
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "hidden_size": 4096, "max_position_embeddings": 131_072,
    });
    fs::write(model.join("config.json"), config.to_string()).expect("a file");
    fs::write(model.join("tokenizer.json"), "{}").expect("a file");
    // A hole, which takes no room.
    let file = fs::File::create(model.join("pytorch_model.bin")).expect("a file");
    file.set_len(weights * GIB).expect("a file that long");
    let port = place.port;
    place.configure(&format!("model: ./model\nport: {port}\n{section}"));
    place
}

fn venv() -> FakeVenv {
    FakeVenv::of(env!("CARGO_BIN_EXE_fake_vllm")).laid_out_as_vllm()
}

fn checked(finished: &Finished, subject: &str) -> Option<Value> {
    let report = finished.json();
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["name"] == subject).cloned()
}

#[tokio::test]
async fn an_adapter_that_could_not_be_loaded_is_refused_beforehand() {
    let venv = venv();
    let arguments =
        "extra_args: [--enable-lora, --lora-modules, sql=./loras/sql, c=org/at-the-hub]";
    let place = place(&venv, 1, arguments);
    let run = place.vllmd(&["run", "--config", "vllmd.yaml"]).await;
    assert_eq!(run.code, Some(2), "{run:#?}");
    run.complains_of(&["error[VLM-012]", "./loras/sql", "--lora-modules"]);
    let adapter = place.path("loras/sql");
    fs::create_dir_all(&adapter).expect("a directory");
    fs::write(adapter.join("adapter_config.json"), r#"{"r": 64}"#).expect("a file");
    fs::write(adapter.join("adapter_model.bin"), "x").expect("a file");
    let finished = place.vllmd(&CHECK).await;
    let found = checked(&finished, "lora").expect("it was looked at");
    assert_eq!(found["error"]["code"], "VLM-013", "{found}");
    fs::write(adapter.join("adapter_config.json"), r#"{"r": 16}"#).expect("a file");
    let finished = place.vllmd(&CHECK).await;
    assert_eq!(checked(&finished, "lora").expect("it was looked at")["status"], "ok");
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(place.launches(), 0);
}

#[tokio::test]
async fn weights_that_a_gpu_has_no_room_for_are_a_warning() {
    let venv = venv();
    let driver = FakeNvml::new({
        let mut state = State::default();
        state.gpus = vec![GpuState::h100(0)];
        state
    });
    let library = driver.library().display().to_string();
    for (weights, arguments, status, part) in [
        (90, "[]", Some("warning"), "VLM-006"),
        (60, "[]", Some("warning"), "VLM-021"),
        (60, "[--max-model-len, 8k]", Some("ok"), "60.0 GiB"),
        (90, "[--cpu-offload-gb, '40']", None, ""),
    ] {
        let section = format!("gpu: {{library: {library}}}\nextra_args: {arguments}");
        let finished = place(&venv, weights, &section).vllmd(&CHECK).await;
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        let found = checked(&finished, "memory");
        let found_status = found.as_ref().and_then(|it| it["status"].as_str());
        assert_eq!(found_status, status, "{weights} {arguments}: {finished:#?}");
        assert!(found.is_none_or(|it| it.to_string().contains(part)), "{finished:#?}");
    }
}
