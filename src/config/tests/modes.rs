//! A vLLM that somebody else owns.

use super::mistakes::are_reported;
use super::*;

#[test]
fn the_model_of_one_that_is_not_ours_is_whatever_it_lists() {
    for name in ["gpt-4", "/models/of/another/machine", "org/name", "a b"] {
        let settings = format!("model: {name}\nlifecycle: {{mode: external}}");
        let config = Place::with_settings(&settings).config();
        assert_eq!(config.model, ModelReference::Listed(name.to_owned()));
        let mut place = Place::with_settings("lifecycle: {mode: monitored}");
        place.sources.overrides.model = Some(name.to_owned());
        assert_eq!(place.config().model.to_string(), name);
    }
    let nameless = Place::with_settings("model: ''\nlifecycle: {mode: external}").load();
    assert_eq!(nameless.unwrap_err().problems[0].key, "providers.vllm.model");
}

#[test]
fn one_that_is_not_ours_may_be_anywhere_and_needs_no_key() {
    let config = Place::with_settings("model: m\nhost: 192.0.2.7\nlifecycle: {mode: external}");
    assert_eq!(config.config().host, "192.0.2.7".parse::<IpAddr>().unwrap());
}

#[test]
fn a_program_may_say_afterwards_that_it_is_not_ours() {
    let place = Place::empty();
    let named = |mode| {
        let mut draft = Draft::of_model("gpt-4", &place.sources);
        draft.edit(move |config| config.lifecycle.mode = mode);
        draft.settle()
    };
    let model = named(LifecycleMode::External).unwrap().model;
    assert_eq!(model, ModelReference::Listed("gpt-4".to_owned()));
    let error = named(LifecycleMode::Managed).unwrap_err();
    let keys: Vec<&str> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["model"]);
}

#[test]
fn a_unit_is_asked_only_where_it_owns_vllm() {
    let unit = "lifecycle: {mode: monitored, monitored_unit: vllm@a.service}";
    let config = Place::with_settings(&format!("model: m\n{unit}")).config();
    assert_eq!(config.lifecycle.monitored_unit.as_deref(), Some("vllm@a.service"));
}

/// A setting, the key to report, the value found, and a part of what is told of it.
const WRONG_SETTINGS: &[(&str, &str, &str, &str)] = &[
    (
        "lifecycle: {monitored_unit: vllm.service}",
        "lifecycle.monitored_unit",
        "vllm.service",
        "mode",
    ),
    (
        "lifecycle: {mode: external, monitored_unit: a.service}",
        "lifecycle.monitored_unit",
        "a.service",
        "monitored",
    ),
    (
        "lifecycle: {mode: monitored, monitored_unit: vllm}",
        "lifecycle.monitored_unit",
        "vllm",
        "`vllm.service`",
    ),
    (
        "lifecycle: {mode: monitored, monitored_unit: a b.service}",
        "lifecycle.monitored_unit",
        "a b.service",
        "systemctl",
    ),
    (
        "lifecycle: {mode: monitored, monitored_unit: vllm@.service}",
        "lifecycle.monitored_unit",
        "vllm@.service",
        "systemctl",
    ),
    ("lifecycle: {mode: monitored, monitored_unit: 3}", "lifecycle.monitored_unit", "3", "a text"),
    (
        "lifecycle: {mode: external, stop_on_exit: true}",
        "lifecycle.stop_on_exit",
        "true",
        "managed",
    ),
];

#[test]
fn what_does_not_go_together_is_told_with_what_to_write() {
    are_reported(WRONG_SETTINGS);
}
