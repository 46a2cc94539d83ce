//! What vLLM would end of, and what it may do with.

use super::*;

fn config() -> ModelConfig {
    ModelConfig {
        architectures: vec!["LlamaForCausalLM".to_owned()],
        model_type: Some("llama".to_owned()),
        heads: Some(12),
        context: Some(2048),
        ..ModelConfig::default()
    }
}

fn file(fault: Option<WeightFault>) -> WeightFile {
    WeightFile { name: "model.safetensors".to_owned(), bytes: 100, fault }
}

fn facts(config: ConfigFile) -> ModelFacts {
    let weights = Weights::Files { present: vec![file(None)], missing: Vec::new() };
    ModelFacts::new("/models/a".to_owned(), config, weights, Tokenizer::Present)
}

fn plan() -> Plan {
    Plan { tensor_parallel: 1, ..Plan::default() }
}

fn installed() -> Installed {
    let architectures = Some(vec!["LlamaForCausalLM".to_owned()]);
    Installed { architectures, knows_type: Some(true) }
}

/// The first cause of an end.
fn fatal(facts: &ModelFacts, plan: &Plan, installed: &Installed) -> Option<Cause> {
    judge(facts, plan, installed).iter().find_map(|it| it.fatal().cloned())
}

fn of_model(config: ModelConfig, plan: &Plan) -> Option<Cause> {
    fatal(&facts(ConfigFile::Read(config)), plan, &installed())
}

#[test]
fn a_whole_model_that_fits_has_nothing_against_it() {
    let findings = judge(&facts(ConfigFile::Read(config())), &plan(), &installed());
    assert!(
        findings.iter().all(|it| matches!(it.assessment, Assessment::Fine(_))),
        "{findings:#?}"
    );
    let subjects: Vec<_> = findings.iter().map(|it| it.subject).collect();
    let expected = [Subject::Config, Subject::Weights, Subject::Tokenizer, Subject::Parallelism];
    assert_eq!(subjects, expected);
}

#[test]
fn a_configuration_that_is_missing_or_broken_is_fatal_and_one_that_was_not_read_is_unknown() {
    for (config, said) in [
        (ConfigFile::Missing, "/models/a has no config.json"),
        (
            ConfigFile::Broken("line 3: x".to_owned()),
            "config.json of /models/a is broken: line 3: x",
        ),
    ] {
        let cause = fatal(&facts(config), &plan(), &installed()).unwrap();
        assert_eq!((cause.code, cause.summary.as_str()), (Code::ModelFilesBroken, said));
    }
    let unread = facts(ConfigFile::Unread("permission denied".to_owned()));
    let first = judge(&unread, &plan(), &installed()).remove(0);
    assert_eq!(first.assessment, Assessment::Unknown("config.json: permission denied".to_owned()));
}

#[test]
fn a_type_or_an_architecture_that_nobody_knows_is_fatal_where_it_could_be_looked_up() {
    let unknown_type = Installed { knows_type: Some(false), ..installed() };
    let unknown_architecture = Installed { architectures: Some(Vec::new()), ..installed() };
    let model = facts(ConfigFile::Read(config()));
    for installed in [&unknown_type, &unknown_architecture] {
        assert_eq!(fatal(&model, &plan(), installed).unwrap().code, Code::ModelUnsupported);
    }
    assert_eq!(fatal(&model, &plan(), &Installed::default()), None);
    let with_code = ModelConfig { has_code: true, ..config() };
    let with_code = facts(ConfigFile::Read(with_code));
    assert_eq!(fatal(&with_code, &plan(), &unknown_architecture), None, "its code may tell");
    let elsewhere = Plan { elsewhere: vec![Part::Config], ..plan() };
    assert_eq!(fatal(&model, &elsewhere, &unknown_architecture), None);
}

#[test]
fn weights_that_are_not_whole_are_told_by_name() {
    let of = |present: Vec<WeightFile>, missing: &[&str]| {
        let missing = missing.iter().map(|it| (*it).to_owned()).collect();
        let weights = Weights::Files { present, missing };
        let facts = ModelFacts { weights, ..facts(ConfigFile::Read(config())) };
        fatal(&facts, &plan(), &installed()).map(|it| (it.code, it.summary))
    };
    let broken = |said: &str| Some((Code::ModelFilesBroken, said.to_owned()));
    assert_eq!(
        of(Vec::new(), &[]),
        broken("/models/a has no weights (*.safetensors, *.bin, *.pt)")
    );
    assert_eq!(
        of(vec![file(None)], &["b.safetensors", "c.safetensors"]),
        broken("/models/a lacks b.safetensors and another")
    );
    for (fault, said) in [
        (WeightFault::LfsPointer, "is a pointer that Git LFS has not fetched"),
        (WeightFault::Truncated { expected: Some(200) }, "has 100 of 200 bytes"),
        (WeightFault::Truncated { expected: None }, "ends within its header, after 100 bytes"),
        (WeightFault::NotSafetensors, "is no file of safetensors"),
    ] {
        let said = format!("model.safetensors of /models/a {said}");
        assert_eq!(of(vec![file(Some(fault))], &[]), broken(&said));
    }
    assert_eq!(of(vec![file(Some(WeightFault::Unread("busy".to_owned())))], &[]), None);
    let otherwise = Plan { elsewhere: vec![Part::Weights], ..plan() };
    let weights = Weights::Files { present: Vec::new(), missing: Vec::new() };
    let facts = ModelFacts { weights, ..facts(ConfigFile::Read(config())) };
    assert_eq!(fatal(&facts, &otherwise, &installed()), None);
}

#[test]
fn a_tokenizer_is_wanted_unless_another_one_is_named() {
    let facts = ModelFacts { tokenizer: Tokenizer::Missing, ..facts(ConfigFile::Read(config())) };
    assert_eq!(fatal(&facts, &plan(), &installed()).unwrap().code, Code::ModelFilesBroken);
    let otherwise = Plan { elsewhere: vec![Part::Tokenizer], ..plan() };
    assert_eq!(fatal(&facts, &otherwise, &installed()), None);
}

#[test]
fn heads_that_cannot_be_split_are_told_with_the_sizes_that_fit() {
    let of = |tensor_parallel| of_model(config(), &Plan { tensor_parallel, ..plan() });
    for size in [1, 2, 3, 4, 6, 12] {
        assert_eq!(of(size), None, "{size}");
    }
    for size in [5, 8, 24] {
        let cause = of(size).unwrap();
        assert_eq!(cause.code, Code::ParallelSizeUnfit);
        assert!(cause.remedy().ends_with("one of 1, 2, 3, 4, 6, 12"), "{}", cause.remedy());
    }
    let silent = ModelConfig { heads: None, ..config() };
    assert_eq!(of_model(silent, &Plan { tensor_parallel: 5, ..plan() }), None);
}

#[test]
fn a_context_that_is_longer_than_the_models_is_refused_unless_that_is_allowed() {
    let asks = |context| Plan { context: Some(context), ..plan() };
    assert_eq!(of_model(config(), &asks(2048)), None);
    let cause = of_model(config(), &asks(2049)).unwrap();
    assert_eq!(cause.code, Code::ArgumentsRejected);
    assert!(cause.remedy().contains("2048"), "{}", cause.remedy());
    assert_eq!(of_model(config(), &Plan { may_exceed: true, ..asks(4096) }), None);
    assert_eq!(of_model(ModelConfig { context: None, ..config() }, &asks(4096)), None);
}

#[test]
fn a_quantisation_of_checkpoints_wants_such_weights() {
    let asks = |method: &str| Plan { quantisation: Some(method.to_owned()), ..plan() };
    assert_eq!(of_model(config(), &asks("awq")).unwrap().code, Code::ModelUnsupported);
    assert_eq!(of_model(config(), &asks("fp8")), None);
    let quantised = ModelConfig { quantisation: Some("awq".to_owned()), ..config() };
    assert_eq!(of_model(quantised, &asks("awq_marlin")), None);
}
