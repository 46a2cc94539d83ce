//! The trials against a real vLLM on the CPU.
//!
//! Without one in `target/vllm` they say so in one line and pass, unless
//! `VLLMD_REQUIRE_REAL_VLLM` is set.

use std::io::Write;

use vllm_supervisor::config::{Config, ModelReference, reserved_flags};
use vllm_supervisor_tests::real_vllm::{RealVllm, Unavailable};
use vllm_supervisor_tests::scenario::Server;
use vllm_supervisor_tests::trials;

mod failing;
mod loading;

/// A server that runs the real one, or `None` after one line that says why not.
fn real_vllm() -> Option<Server> {
    installed().map(Server::real)
}

/// The real one, or `None` after one line that says why not.
fn installed() -> Option<RealVllm> {
    match RealVllm::installed() {
        Ok(vllm) => Some(vllm),
        Err(Unavailable(reason)) => {
            let required = std::env::var_os("VLLMD_REQUIRE_REAL_VLLM").is_some();
            assert!(!required, "a real vLLM is required: {reason}");
            // Past the test runner, which would keep the line to itself.
            writeln!(std::io::stderr(), "left out: {reason}").expect("a standard error");
            None
        }
    }
}

#[tokio::test]
async fn every_death_is_survived() {
    let Some(server) = real_vllm() else { return };
    trials::every_death_is_survived(server, &trials::DEATHS).await;
}

#[tokio::test]
async fn a_warm_launch_comes_back() {
    let Some(server) = real_vllm() else { return };
    trials::a_warm_launch_comes_back(server).await;
}

#[tokio::test]
async fn a_stop_while_loading_leaves_nothing() {
    let Some(server) = real_vllm() else { return };
    trials::a_stop_while_loading_leaves_nothing(server).await;
}

#[tokio::test]
async fn a_successor_adopts_what_is_left_running() {
    let Some(server) = real_vllm() else { return };
    trials::a_successor_adopts_what_is_left_running(server).await;
}

#[tokio::test]
async fn another_model_can_be_loaded() {
    let Some(server) = real_vllm() else { return };
    trials::another_model_can_be_loaded(server).await;
}

#[tokio::test]
async fn a_load_is_told_by_the_clock_of_the_one_before() {
    let Some(server) = real_vllm() else { return };
    trials::a_load_is_told_by_the_clock_of_the_one_before(server).await;
}

#[tokio::test]
async fn the_same_model_can_be_told_something_else() {
    let Some(server) = real_vllm() else { return };
    trials::the_same_model_can_be_told_something_else(server).await;
}

#[tokio::test]
async fn a_model_that_is_downloaded_tells_how_much_has_come() {
    let Some(vllm) = installed() else { return };
    loading::a_model_that_is_downloaded_tells_how_much_has_come(vllm).await;
}

#[tokio::test]
async fn one_that_is_not_ours_is_watched() {
    let Some(server) = real_vllm() else { return };
    trials::one_that_is_not_ours_is_watched(server).await;
}

#[tokio::test]
async fn a_request_that_runs_is_answered_before_a_stop() {
    let Some(server) = real_vllm() else { return };
    trials::a_request_that_runs_is_answered_before_a_stop(server).await;
}

#[tokio::test]
async fn whoever_stands_still_is_found() {
    let Some(server) = real_vllm() else { return };
    trials::whoever_stands_still_is_found(server, &trials::STANDSTILLS).await;
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_is_explained() {
    let Some(vllm) = installed() else { return };
    failing::a_model_that_cannot_be_loaded_is_explained(vllm).await;
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_is_refused_beforehand() {
    let Some(vllm) = installed() else { return };
    failing::a_model_that_cannot_be_loaded_is_refused_beforehand(vllm).await;
}

#[tokio::test]
async fn a_model_that_the_hub_refuses_is_explained() {
    let Some(vllm) = installed() else { return };
    failing::a_model_that_the_hub_refuses_is_explained(vllm).await;
}

#[tokio::test]
async fn a_model_that_is_not_in_the_cache_is_explained() {
    let Some(vllm) = installed() else { return };
    failing::a_model_that_is_not_in_the_cache_is_explained(vllm).await;
}

#[tokio::test]
async fn arguments_that_do_not_fit_the_model_are_explained() {
    let Some(vllm) = installed() else { return };
    failing::arguments_that_do_not_fit_the_model_are_explained(vllm).await;
}

#[tokio::test]
async fn a_model_that_fails_its_requests_is_explained_and_given_up() {
    let Some(vllm) = installed() else { return };
    failing::a_model_that_fails_its_requests_is_explained_and_given_up(vllm).await;
}

#[test]
fn the_reserved_flags_are_flags_of_vllm_and_no_other_flag_is_refused() {
    let Some(vllm) = installed() else { return };
    let known = vllm.flags().expect("vLLM tells its flags");
    let gone: Vec<_> = reserved_flags().filter(|flag| !known.contains(*flag)).collect();
    assert!(gone.is_empty(), "this vLLM has renamed or dropped {gone:?}");
    let is_refused = |flag: &&String| {
        let model = ModelReference::Hub("org/tiny".to_owned());
        let mut config = Config::with_defaults(model, "/state");
        config.extra_args = vec![(*flag).clone(), "1".to_owned()];
        !config.problems().is_empty()
    };
    let refused: Vec<_> = known.iter().filter(is_refused).collect();
    let others: Vec<_> =
        refused.iter().filter(|flag| reserved_flags().all(|it| it != flag.as_str())).collect();
    assert!(others.is_empty(), "refused, and not reserved: {others:?}");
    assert!(refused.len() > 20, "{refused:?}");
}
