//! What keeps a service from starting, and says so before anything is started.

use std::net::TcpListener;

use vllm_supervisor::config::{Config, ModelReference};
use vllm_supervisor::{Code, CommandError, ServiceState, StartError, Supervisor};
use vllm_supervisor_tests::fake_venv::FakeVenv;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::hub::{GIVEN, Gift, Hub};
use vllm_supervisor_tests::scenario::{Scenario, Server};

use crate::FAKE;

#[tokio::test]
async fn every_problem_of_a_configuration_is_reported_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut config =
        Config::with_defaults(ModelReference::Hub("no slash".into()), directory.path());
    config.port = 0;
    config.gpu.memory_utilization = 1.2;
    let error = Supervisor::builder().config(config).spawn().await.unwrap_err();
    let StartError::Config(error) = error else { panic!("{error}") };
    let keys: Vec<&str> =
        error.problems.iter().map(|it| it.key.rsplit('.').next().unwrap()).collect();
    assert_eq!(keys, ["memory_utilization", "model", "port"], "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_vllm_that_does_not_exist_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = Supervisor::builder()
        .model(env!("CARGO_MANIFEST_DIR"))
        .vllm_binary(["/no/such/vllm"])
        .state_dir(directory.path())
        .spawn()
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::VllmNotFound));
    assert!(error.to_string().contains("/no/such/vllm"), "{error}");
}

#[tokio::test]
async fn a_builder_without_a_model_says_so() {
    let error = Supervisor::builder().spawn().await.unwrap_err();
    assert!(error.to_string().contains("no model is given"), "{error}");
}

#[tokio::test]
async fn a_state_directory_serves_one_supervisor() {
    let scenario = Scenario::prepare(Server::fake(FAKE, &fake_vllm())).await;
    let error = Supervisor::builder()
        .model(env!("CARGO_MANIFEST_DIR"))
        .vllm_binary([FAKE])
        .state_dir(scenario.state_dir())
        .spawn()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("another supervisor"), "{error}");
    scenario.end().await;
}

/// However far it had come: nobody holds a handle by which it could be ended.
#[tokio::test]
async fn a_spawn_that_is_dropped_half_way_leaves_nobody_in_the_state_directory() {
    let directory = tempfile::tempdir().unwrap();
    let spawn = || {
        let model = env!("CARGO_MANIFEST_DIR");
        Supervisor::builder().model(model).vllm_binary([FAKE]).state_dir(directory.path()).spawn()
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    for polls in 1..12 {
        let mut half_way = Box::pin(spawn());
        for _ in 0..polls {
            tokio::select! {
                biased;
                _ = &mut half_way => break,
                () = tokio::task::yield_now() => {}
            }
        }
        drop(half_way);
        let whole = loop {
            match spawn().await {
                Ok(handle) => break handle,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::task::yield_now().await;
        };
        whole.shutdown().await;
    }
}

#[tokio::test]
async fn a_port_in_use_ends_a_start_at_once_and_nothing_is_launched() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let server = Server::fake(FAKE, &fake_vllm());
    let scenario = Scenario::configure(server, |config| config.port = port).await;
    let handle = scenario.handle().clone();
    let Err(CommandError::Failed(cause)) = handle.start().await else {
        panic!("{}", scenario.story())
    };
    assert_eq!(cause.code, Code::PortInUse);
    assert!(scenario.processes().is_empty());
    // Whoever was told can do something about it, and start again.
    drop(holder);
    assert_eq!(handle.start().await, Ok(()), "{}", scenario.story());
    scenario.end().await;
}

#[tokio::test]
async fn a_text_that_names_no_model_is_refused_and_nothing_happens() {
    let scenario = Scenario::start(Server::fake(FAKE, &fake_vllm())).await;
    for text in ["", "two words/here", "no-slash", "/no/such/directory"] {
        let refused = scenario.handle().load_model(text).await;
        assert!(matches!(refused, Err(CommandError::InvalidModel { .. })), "{text:?} {refused:?}");
    }
    assert_eq!(scenario.handle().state(), ServiceState::Running);
    scenario.end().await;
}

#[tokio::test]
async fn a_model_that_fails_to_load_brings_the_old_one_back() {
    let directory = tempfile::tempdir().unwrap();
    let plan = fake_vllm()
        .then(fake_vllm().exits_while_loading(1, std::time::Duration::from_millis(20)))
        .then(fake_vllm())
        .counts_launches_in(directory.path().join("launches"));
    let server = Server::fake(FAKE, &plan);
    let other = server.other_model().to_owned();
    let scenario = Scenario::start(server).await;
    let old = scenario.wait_for(ServiceState::Running).await.model;
    let error = scenario.handle().load_model(&other).await.unwrap_err();
    let CommandError::SwitchFailed { wanted, restored, .. } = error else { panic!("{error}") };
    assert_eq!((wanted.as_str(), restored), (other.as_str(), old.clone()));
    scenario.handle().ensure_healthy(None).await.unwrap();
    assert_eq!(scenario.wait_for(ServiceState::Running).await.model, old);
    scenario.end().await;
}

#[tokio::test]
async fn a_model_that_the_hub_refuses_leaves_the_old_one_serving() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("config.json"), "{}").unwrap();
    let hub = Hub::giving(Gift::of(&model)).await;
    let venv = FakeVenv::of(FAKE).laid_out_as_vllm();
    let server = Server::fake_in(&venv, &fake_vllm());
    let scenario = Scenario::configure(server, |config| {
        let mut set = |name: &str, value: String| config.env.insert(name.to_owned(), value);
        set("HF_ENDPOINT", hub.endpoint.clone());
        set("HF_HOME", directory.path().display().to_string());
        config.model = ModelReference::Hub(GIVEN.to_owned());
    })
    .await;
    assert_eq!(scenario.handle().start().await, Ok(()), "{}", scenario.story());
    let before = scenario.wait_for(ServiceState::Running).await.incarnation;
    let outcome = scenario.handle().load_model("gated/model").await;
    let Err(CommandError::Refused { cause, .. }) = outcome else {
        panic!("{outcome:?}\n{}", scenario.story())
    };
    assert_eq!(cause.code, Code::ModelGated, "{cause}");
    let after = scenario.handle().watch().borrow().clone();
    assert_eq!((after.state, after.incarnation), (ServiceState::Running, before));
    scenario.end().await;
}
