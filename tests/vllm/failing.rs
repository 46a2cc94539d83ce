//! Models that a real vLLM cannot load: why is told from what it writes, and the model before serves on.

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use vllm_supervisor::ServiceState::{Failed, Running};
use vllm_supervisor::{Code, CommandError};
use vllm_supervisor_tests::real_vllm::RealVllm;
use vllm_supervisor_tests::scenario::{Scenario, Server};

use vllm_supervisor_tests::hub::Hub;

/// A way to spoil a model, what it is then told to suffer from, and a word of the line that tells it.
struct Spoiled {
    name: &'static str,
    spoil: fn(&Path),
    code: Code,
    word: &'static str,
}

const SPOILED: [Spoiled; 6] = [
    Spoiled {
        name: "unknown-architecture",
        spoil: |model| edit(&model.join("config.json"), "LlamaForCausalLM", "NoSuchForCausalLM"),
        code: Code::ModelUnsupported,
        word: "NoSuchForCausalLM",
    },
    Spoiled {
        name: "unknown-type",
        spoil: |model| edit(&model.join("config.json"), "\"llama\"", "\"nosuch\""),
        code: Code::ModelUnsupported,
        word: "nosuch",
    },
    Spoiled {
        name: "no-json",
        spoil: |model| {
            let half = fs::write(model.join("config.json"), "{\"a\": ");
            half.expect("the copy of a model can be changed");
        },
        code: Code::ModelFilesBroken,
        word: "JSON",
    },
    Spoiled {
        name: "no-weights",
        spoil: |model| {
            let gone = fs::remove_file(model.join("model.safetensors"));
            gone.expect("the copy of a model can be changed");
        },
        code: Code::ModelFilesBroken,
        word: "weights",
    },
    Spoiled {
        name: "weights-cut-off",
        spoil: |model| cut(&model.join("model.safetensors"), |length| length / 2),
        code: Code::ModelFilesBroken,
        word: "",
    },
    Spoiled {
        name: "header-cut-off",
        spoil: |model| cut(&model.join("model.safetensors"), |_| 2000),
        code: Code::ModelFilesBroken,
        word: "",
    },
];

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).expect("the copy of a model can be changed");
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replace(from, to)).expect("the copy of a model can be changed");
}

fn cut(file: &Path, length: fn(u64) -> u64) {
    let whole = fs::metadata(file).expect("the copy of a model can be changed").len();
    fs::File::options()
        .write(true)
        .open(file)
        .expect("the copy of a model can be changed")
        .set_len(length(whole))
        .expect("the copy of a model can be changed");
}

fn copy(model: &Path, to: PathBuf) -> PathBuf {
    fs::create_dir(&to).expect("the copy of a model can be changed");
    for file in fs::read_dir(model).expect("the copy of a model can be changed") {
        let file = file.expect("the copy of a model can be changed");
        fs::copy(file.path(), to.join(file.file_name()))
            .expect("the copy of a model can be changed");
    }
    to
}

pub(crate) async fn a_model_that_cannot_be_loaded_is_explained(vllm: RealVllm) {
    let directory = tempfile::tempdir().expect("the copy of a model can be changed");
    let tiny = vllm.tiny_model.clone();
    let scenario = Scenario::start(Server::real(vllm).unlooked()).await;
    let first_words = scenario.complete().await;
    for Spoiled { name, spoil, code, word } in &SPOILED {
        let model = copy(&tiny, directory.path().join(name));
        spoil(&model);
        let outcome = scenario.handle().load_model(&model.display().to_string()).await;
        let story = || scenario.story();
        let Err(CommandError::SwitchFailed { cause, .. }) = outcome else {
            panic!("{name}: {outcome:?}\n{}", story());
        };
        assert_eq!(cause.code, *code, "{name}: {cause}\n{}", story());
        let line = cause.line().unwrap_or_else(|| panic!("{name}: {cause}: no line"));
        assert!(line.text.contains(word), "{name}: {}", line.text);
        let log = fs::read_to_string(cause.log().expect("a log")).expect("it is there");
        let told = log
            .lines()
            .nth(usize::try_from(line.number).expect("the copy of a model can be changed") - 1)
            .expect("such a line");
        assert!(told.contains(&line.text), "{name}: {told}\n{}", line.text);
        scenario.wait_for(Running).await;
        assert_eq!(scenario.complete().await, first_words, "{name}");
    }
    scenario.end().await;
}

/// The same, told before vLLM is touched: the old model serves on, in the same launch.
pub(crate) async fn a_model_that_cannot_be_loaded_is_refused_beforehand(vllm: RealVllm) {
    let directory = tempfile::tempdir().expect("the copy of a model can be changed");
    let tiny = vllm.tiny_model.clone();
    let scenario = Scenario::start(Server::real(vllm)).await;
    let before = scenario.wait_for(Running).await.incarnation;
    for Spoiled { name, spoil, code, .. } in &SPOILED {
        let model = copy(&tiny, directory.path().join(name));
        spoil(&model);
        let outcome = scenario.handle().load_model(&model.display().to_string()).await;
        let Err(CommandError::Refused { cause, .. }) = outcome else {
            panic!("{name}: {outcome:?}\n{}", scenario.story());
        };
        assert_eq!(cause.code, *code, "{name}: {cause}");
    }
    let after = scenario.handle().watch().borrow().clone();
    assert_eq!((after.state, after.incarnation), (Running, before));
    scenario.end().await;
}

/// What a Hub refuses, how, and what it is then told to be.
const REFUSED: [(&str, Code); 5] = [
    ("missing/model", Code::ModelNotFound),
    ("private/model", Code::AuthenticationRequired),
    ("gated/model", Code::ModelGated),
    ("limited/model", Code::HubRateLimited),
    ("broken/model", Code::HubUnreachable),
];

pub(crate) async fn a_model_that_the_hub_refuses_is_explained(vllm: RealVllm) {
    let hub = Hub::open().await;
    let cache = tempfile::tempdir().expect("a directory");
    // Looked at beforehand it would not be asked what it makes of them.
    let scenario = Scenario::configure(Server::real(vllm).unlooked(), |config| {
        let mut set = |name: &str, value: String| config.env.insert(name.to_owned(), value);
        set("HF_ENDPOINT", hub.endpoint.clone());
        set("HF_HUB_OFFLINE", "0".to_owned());
        set("HF_HOME", cache.path().display().to_string());
        config.lifecycle.model_load_max_retries = 0;
    })
    .await;
    scenario.start_service().await;
    for (model, code) in REFUSED {
        let outcome = scenario.handle().load_model(model).await;
        let Err(CommandError::SwitchFailed { cause, .. }) = outcome else {
            panic!("{model}: {outcome:?}\n{}", scenario.story());
        };
        assert_eq!(cause.code, code, "{model}: {cause}\n{}", scenario.story());
        assert!(cause.line().is_some(), "{model}: {cause}");
        scenario.wait_for(Running).await;
    }
    scenario.end().await;
}

pub(crate) async fn a_model_that_is_not_in_the_cache_is_explained(vllm: RealVllm) {
    let cache = tempfile::tempdir().expect("a directory");
    for server in [Server::real(vllm.clone()), Server::real(vllm).unlooked()] {
        let scenario = Scenario::configure(server, |config| {
            config.env.insert("HF_HOME".to_owned(), cache.path().display().to_string());
        })
        .await;
        scenario.start_service().await;
        let outcome = scenario.handle().load_model("nowhere/model").await;
        let cause = match outcome {
            Err(CommandError::SwitchFailed { cause, .. } | CommandError::Refused { cause, .. }) => {
                cause
            }
            other => panic!("{other:?}\n{}", scenario.story()),
        };
        assert_eq!(cause.code, Code::NotInLocalCache, "{cause}\n{}", scenario.story());
        scenario.wait_for(Running).await;
        scenario.end().await;
    }
}

/// Arguments and a variable that a model does not bear, what that is told to be, and a word of the line
/// or the remedy that tells it.
const UNFIT: [(&[&str], &str, Code, &str); 3] = [
    (&["--tensor-parallel-size", "3"], "", Code::ParallelSizeUnfit, "3"),
    (&["--max-model-len", "100000"], "", Code::ArgumentsRejected, "2048"),
    (
        &["--max-model-len", "4000000"],
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN",
        Code::KvCacheTooSmall,
        "max-model-len",
    ),
];

pub(crate) async fn arguments_that_do_not_fit_the_model_are_explained(vllm: RealVllm) {
    let cells = UNFIT.iter().flat_map(|unfit| [(unfit, false), (unfit, true)]);
    for ((arguments, variable, code, word), is_looked_at) in cells {
        let server = Server::real(vllm.clone());
        let server = if is_looked_at { server } else { server.unlooked() };
        let scenario = Scenario::configure(server, |config| {
            match arguments {
                ["--tensor-parallel-size", size] => {
                    config.gpu.tensor_parallel_size = size.parse().expect("a size");
                }
                others => config.extra_args.extend(others.iter().map(|it| (*it).to_owned())),
            }
            if !variable.is_empty() {
                config.env.insert((*variable).to_owned(), "1".to_owned());
            }
        })
        .await;
        let outcome = scenario.handle().start().await;
        let Err(CommandError::Failed(cause)) = outcome else {
            panic!("{arguments:?}: {outcome:?}\n{}", scenario.story());
        };
        assert_eq!(cause.code, *code, "{arguments:?}: {cause}\n{}", scenario.story());
        let told = format!("{cause} {}", cause.remedy());
        assert!(told.contains(word), "{arguments:?}: {told}");
        scenario.end().await;
    }
}

/// A head size that vLLM's attention on the CPU does not have (0.32): it comes up, says that it is healthy,
/// and dies of its first request.
pub(crate) async fn a_model_that_fails_its_requests_is_explained_and_given_up(vllm: RealVllm) {
    let directory = tempfile::tempdir().expect("a directory");
    let model = copy(&vllm.tiny_model, directory.path().join("head-size-16"));
    for (key, from, to) in
        [("head_dim", 64, 16), ("num_attention_heads", 2, 8), ("num_key_value_heads", 2, 8)]
    {
        let of = |value: u32| format!("\"{key}\": {value}");
        edit(&model.join("config.json"), &of(from), &of(to));
    }
    let scenario = Scenario::configure(Server::real(vllm), |config| {
        config.lifecycle.max_restarts_per_minute = NonZeroU32::MIN;
    })
    .await;
    scenario.start_service().await;
    let loaded = scenario.handle().load_model(&model.display().to_string()).await;
    assert!(loaded.is_ok(), "{loaded:?}\n{}", scenario.story());
    let first = scenario.wait_for(Running).await.incarnation.get();
    for launch in [first, first + 1] {
        // Of the answer nobody can say whether it has begun.
        drop(scenario.open_request(8).await);
        scenario.wait_until(|it| it.incarnation.get() > launch || it.state == Failed).await;
        scenario.wait_until(|it| matches!(it.state, Running | Failed)).await;
    }
    let cause = scenario.wait_for(Failed).await.last_error.expect("a cause");
    assert_eq!(cause.code, Code::RestartLimitReached, "{cause}\n{}", scenario.story());
    let history = scenario.handle().history().await;
    assert_eq!(history.len(), 2, "{history:#?}");
    for incident in &history {
        assert_eq!(incident.cause.code, Code::EngineDied, "{incident:#?}");
        let line = incident.cause.line().expect("it says of what it died");
        assert!(line.text.contains("head_dim=16"), "{incident:#?}");
    }
    let helped: Vec<bool> = history.iter().map(|it| it.recovered_after.is_some()).collect();
    assert_eq!(helped, [true, false]);
    scenario.end().await;
}
