//! Models that a real vLLM cannot load: why is told from what it writes, and the model before serves on.

use std::fs;
use std::path::{Path, PathBuf};

use vllm_supervisor::ServiceState::Running;
use vllm_supervisor::{Code, CommandError};
use vllm_supervisor_tests::real_vllm::RealVllm;
use vllm_supervisor_tests::scenario::{Scenario, Server};

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
    let scenario = Scenario::start(Server::real(vllm)).await;
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
