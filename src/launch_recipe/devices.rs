//! Which GPUs vLLM will use, by its words and variables.

use std::env;

use vllm_supervisor_actors::domain::gpu::Devices;

use super::value_of;
use crate::config::{Argument, Config};

/// NVIDIA's variable, and AMD's two.
const VISIBLE: [&str; 3] = ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"];

/// vLLM's own choice among them (vLLM from 0.24 on, `engine/arg_utils.py`).
const DEVICE_IDS: &str = "--device-ids";

/// Copies of the model, each with GPUs of its own (vLLM 0.32, `engine/arg_utils.py`).
const COPIES: [&str; 2] = ["--data-parallel-size", "-dp"];

/// The words among these that choose GPUs.
pub(super) fn choices(words: &[String]) -> Vec<String> {
    let chosen = value_of(words, is_device_ids).map(|ids| [DEVICE_IDS.to_owned(), ids.to_owned()]);
    let copies = value_of(words, is_copies).map(|n| [COPIES[0].to_owned(), n.to_owned()]);
    chosen.into_iter().chain(copies).flatten().collect()
}

/// Also by its beginning, where that can be no other flag: `--device` was one once.
fn is_device_ids(argument: &Argument<'_>) -> bool {
    argument.is(DEVICE_IDS) || argument.is("--device-id") || argument.is("--device-i")
}

/// Its beginnings are those of other flags, too.
fn is_copies(argument: &Argument<'_>) -> bool {
    COPIES.iter().any(|name| argument.is(name))
}

pub(crate) fn devices(config: &Config) -> Devices {
    of(config, |name| env::var(name).ok())
}

fn of(config: &Config, inherited: impl Fn(&str) -> Option<String>) -> Devices {
    let given = |name: &&str| config.env.get(*name).cloned().or_else(|| inherited(name));
    let mut named = VISIBLE.iter().filter_map(given);
    let visible = named.next();
    if named.next().is_some() {
        // One counts within another.
        return Devices::Unknown;
    }
    let chosen = value_of(&config.extra_args, is_device_ids);
    let visible = match (visible, chosen) {
        (visible, None) => visible,
        (None, Some(chosen)) => Some(chosen.to_owned()),
        (Some(visible), Some(chosen)) => match within(&visible, chosen) {
            Some(names) => Some(names),
            None => return Devices::Unknown,
        },
    };
    let copies = value_of(&config.extra_args, is_copies).map_or(Ok(1), str::parse::<u32>);
    let (width, depth) =
        (config.gpu.tensor_parallel_size.get(), config.gpu.pipeline_parallel_size.get());
    let count = copies.ok().and_then(|copies| copies.checked_mul(width)?.checked_mul(depth));
    count.map_or(Devices::Unknown, |count| Devices::new(visible.as_deref(), count))
}

/// Whether vLLM wants its whole share of the GPUs' memory to be free when it starts: not what another
/// process holds the weights in for it (vLLM 0.32, `v1/worker/utils.py`, `request_memory`).
pub(super) fn fills_its_share(config: &Config) -> bool {
    let is_meant = |argument: &Argument<'_>| argument.is("--load-format");
    value_of(&config.extra_args, is_meant) != Some("ipc_cache")
}

/// vLLM's choice is by place among those that are visible (vLLM 0.32, `engine/arg_utils.py`).
fn within(visible: &str, chosen: &str) -> Option<String> {
    let visible: Vec<&str> = visible.split(',').collect();
    let name = |place: &str| visible.get(place.trim().parse::<usize>().ok()?).copied();
    let names: Option<Vec<&str>> = chosen.split(',').map(name).collect();
    Some(names?.join(","))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::ModelReference;

    fn config(arguments: &[&str]) -> Config {
        let mut config =
            Config::with_defaults(ModelReference::Hub("org/model".to_owned()), "/state");
        config.extra_args = arguments.iter().map(|it| (*it).to_owned()).collect();
        config
    }

    #[test]
    fn the_first_gpus_are_used_where_nothing_says_otherwise() {
        let mut config = config(&["--data-parallel-size", "2"]);
        config.gpu.tensor_parallel_size = NonZeroU32::new(2).unwrap();
        assert_eq!(of(&config, |_| None), Devices::First(4));
    }

    #[test]
    fn what_vllm_is_told_counts_more_than_what_it_is_given() {
        let inherited = |name: &str| (name == "CUDA_VISIBLE_DEVICES").then(|| "7".to_owned());
        assert_eq!(of(&config(&[]), inherited), Devices::new(Some("7"), 1));
        let mut given = config(&[]);
        given.env.insert("CUDA_VISIBLE_DEVICES".to_owned(), "5".to_owned());
        assert_eq!(of(&given, inherited), Devices::new(Some("5"), 1));
    }

    #[test]
    fn vllm_chooses_among_those_that_it_sees() {
        let told = config(&["--device-ids=2,0", "--seed", "1"]);
        assert_eq!(of(&told, |_| None), Devices::new(Some("2,0"), 1));
        let inherited = |name: &str| (name == "CUDA_VISIBLE_DEVICES").then(|| "4,5,6".to_owned());
        assert_eq!(of(&told, inherited), Devices::new(Some("6,4"), 1));
        let few = |name: &str| (name == "CUDA_VISIBLE_DEVICES").then(|| "4".to_owned());
        assert_eq!(of(&told, few), Devices::Unknown);
    }

    #[test]
    fn two_choices_one_within_the_other_are_not_told_apart() {
        let both = |name: &str| (name != "CUDA_VISIBLE_DEVICES").then(|| "0".to_owned());
        assert_eq!(of(&config(&[]), both), Devices::Unknown);
    }

    #[test]
    fn weights_that_another_process_holds_need_no_room() {
        assert!(fills_its_share(&config(&["--load-format=auto"])));
        assert!(!fills_its_share(&config(&["--load-format", "ipc_cache"])));
    }

    #[test]
    fn a_number_that_is_none_is_no_answer() {
        assert_eq!(of(&config(&["-dp", "many"]), |_| None), Devices::Unknown);
    }
}
