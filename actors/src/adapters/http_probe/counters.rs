//! What vLLM's own counters say (`GET /metrics`; `v1/metrics/loggers.py`, 0.8 to 0.33).

use std::hash::{DefaultHasher, Hasher};

use crate::domain::liveness::Rest;

/// Those that move with the steps of the engine, and with nothing else: what the front counts by
/// itself, as a request that is given up, moves while an engine hangs. How many requests there are moves
/// with the clients.
const OF_THE_ENGINE: [&str; 7] = [
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:iteration_tokens_total_count",
    "vllm:num_preemptions_total",
    "vllm:kv_cache_usage_perc",
    // Until 0.10.
    "vllm:gpu_cache_usage_perc",
    "vllm:prefix_cache_queries_total",
];

const IN_HAND: [&str; 2] = ["vllm:num_requests_running", "vllm:num_requests_waiting"];

const SLEEP: &str = "vllm:engine_sleep_state";

/// All that is read of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counters {
    /// Requests that run or wait, summed over the engines.
    pub(super) requests: u64,
    /// Another one when an engine has made a step.
    pub(super) mark: u64,
    pub(super) rest: Rest,
}

impl Counters {
    /// `None` where there are none, as with `--disable-log-stats`.
    pub(super) fn read(metrics: &str) -> Option<Self> {
        let (mut requests, mut mark, mut rest) = (None, DefaultHasher::new(), Rest::Awake);
        for line in metrics.lines().filter(|line| line.starts_with("vllm:")) {
            let is = |name: &str| {
                line.strip_prefix(name).is_some_and(|after| after.starts_with(['{', ' ']))
            };
            if OF_THE_ENGINE.iter().any(|name| is(name)) {
                mark.write(line.as_bytes());
            }
            if IN_HAND.iter().any(|name| is(name)) {
                let sum = requests.get_or_insert(0_u64);
                *sum = sum.saturating_add(count(line)?);
            }
            if is(SLEEP) && line.contains("\"awake\"") && count(line) == Some(0) {
                rest = Rest::Asleep;
            }
        }
        Some(Self { requests: requests?, mark: mark.finish(), rest })
    }
}

/// The value of a gauge, which is printed as `2.0`; whatever else it may be is not zero.
fn count(line: &str) -> Option<u64> {
    let value = line.rsplit_once(' ')?.1;
    Some(value.split('.').next().and_then(|count| count.parse().ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::rounds;

    fn requests(metrics: &str) -> Option<u64> {
        Counters::read(metrics).map(|it| it.requests)
    }

    fn mark(metrics: &str) -> u64 {
        Counters::read(&format!("vllm:num_requests_running 1.0\n{metrics}\n")).unwrap().mark
    }

    #[test]
    fn the_requests_in_hand_are_those_that_run_and_those_that_wait() {
        let metrics = "# HELP vllm:num_requests_running Number of requests.\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"a b\"} 2.0\n\
            vllm:num_requests_running{engine=\"1\",model_name=\"a b\"} 1.0\n\
            vllm:num_requests_waiting{engine=\"0\",model_name=\"a b\"} 3.0\n\
            vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 3.0\n";
        assert_eq!(requests(metrics), Some(6));
        assert_eq!(requests("vllm:num_requests_running 0.0\n"), Some(0));
        assert_eq!(requests("vllm:num_requests_running NaN\n"), Some(1));
        assert_eq!(requests("python_gc_objects_collected_total 1\n"), None);
    }

    #[test]
    fn a_step_of_the_engine_moves_the_mark_and_nothing_else_does() {
        let before = mark("vllm:generation_tokens_total{engine=\"0\"} 17.0");
        assert_ne!(mark("vllm:generation_tokens_total{engine=\"0\"} 18.0"), before);
        assert_eq!(mark("vllm:generation_tokens_total{engine=\"0\"} 17.0"), before);
        let front = "vllm:generation_tokens_total{engine=\"0\"} 17.0\n\
            vllm:request_success_total{finished_reason=\"abort\"} 9.0\n\
            vllm:admission_rejections_total 3.0\nhttp_requests_total 12.0\n\
            vllm:num_requests_waiting 2.0\n\
            process_cpu_seconds_total 4.0";
        assert_eq!(mark(front), before);
    }

    #[test]
    fn who_sleeps_says_so() {
        let state = |awake: &str| {
            let metrics = format!(
                "vllm:num_requests_running 0.0\n\
                 vllm:engine_sleep_state{{engine=\"0\",sleep_state=\"awake\"}} {awake}\n\
                 vllm:engine_sleep_state{{engine=\"0\",sleep_state=\"discard_all\"}} 0.0\n"
            );
            Counters::read(&metrics).unwrap().rest
        };
        assert_eq!((state("1.0"), state("0.0")), (Rest::Awake, Rest::Asleep));
    }

    /// Whatever answers at `/metrics`, before, between and after what is looked for.
    #[test]
    fn anything_may_be_answered_and_the_requests_in_hand_are_found_in_it() {
        let noise = "#.{0,40}|vllm:[a-z_]{0,9}\\{?.{0,40}|(vllm:num_requests_(running|waiting))?[a-z]{1,9} .{0,9}|.{0,80}";
        let named = |name: &str| name.starts_with("vllm:num_requests_");
        let noise = noise.prop_filter("it is none of them", move |line| !line.lines().any(named));
        let gauge = (prop::sample::select(IN_HAND.to_vec()), 0..9_u64);
        for _ in rounds() {
            proptest!(|(parts in vec((&noise, &gauge), 0..20), rubbish in ".*")| {
                Counters::read(&rubbish);
                let line = |(before, (name, count)): &(String, (&str, u64))| {
                    format!("{before}\n{name}{{engine=\"0\"}} {count}.0\n")
                };
                let metrics: Vec<String> = parts.iter().map(line).collect();
                let sum = parts.iter().map(|(_, (_, count))| count).sum();
                let expected = (!parts.is_empty()).then_some(sum);
                prop_assert_eq!(requests(&metrics.concat()), expected);
            });
        }
    }
}
