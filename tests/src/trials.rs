//! What a supervised vLLM must go through, written once and run against the stand-in and against
//! a real one.

use std::io::Write;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;
use vllm_supervisor::ServiceState::{Crashed, Running, Starting, Stopped, Stopping};
use vllm_supervisor::config::{Config, GpuMonitor, ModelReference};
use vllm_supervisor::{
    Code, CommandError, Exit, Incident, LaunchKind, LifecycleMode, ModelRequest, Role,
    ServiceState, Supervisor,
};

use crate::scenario::{Scenario, Server, Victim, are_gone};

/// As much as vLLM takes a while to say.
const TOKENS: u32 = 400;

/// Every way to die by a signal that each of vLLM's processes is put through.
pub const DEATHS: [(Victim, Signal); 9] = [
    (Victim::Worker, Signal::KILL),
    (Victim::Worker, Signal::TERM),
    (Victim::Worker, Signal::SEGV),
    (Victim::EngineCore, Signal::KILL),
    (Victim::EngineCore, Signal::TERM),
    (Victim::EngineCore, Signal::SEGV),
    (Victim::ApiServer, Signal::KILL),
    (Victim::ApiServer, Signal::TERM),
    (Victim::ApiServer, Signal::SEGV),
];

/// Starts, serves, loses a process in each of these ways, serves again each time, and stops; each time
/// from nothing.
pub async fn every_death_is_survived(server: Server, deaths: &[(Victim, Signal)]) {
    let scenario = Scenario::configure(server, |config| {
        config.lifecycle.launch = vllm_supervisor::config::LaunchPolicy::Cold;
        config.lifecycle.max_restarts_per_minute = std::num::NonZeroU32::MAX;
        config.lifecycle.stable_after = std::time::Duration::ZERO;
    })
    .await;
    scenario.start_service().await;
    let first_words = scenario.complete().await;
    for (victim, signal) in deaths {
        let before = scenario.wait_for(Running).await.incarnation.get();
        let segments = scenario.shared_memory();
        assert!(!segments.is_empty(), "{}", scenario.story());
        scenario.kill(*victim, *signal);
        scenario.wait_for_successor_of(before).await;
        are_gone(&segments);
        is_explained(&scenario.incident(before), *victim, *signal);
        assert_eq!(scenario.complete().await, first_words, "after {victim:?} got {signal:?}");
    }
    let mut expected = vec![Starting, Running];
    expected.extend([Crashed, Starting, Running].repeat(deaths.len()));
    assert_eq!(scenario.states(), expected, "{}", scenario.story());
    scenario.end().await;
}

/// Who has died, and how, of a vLLM that served.
fn is_explained(incident: &Incident, victim: Victim, signal: Signal) {
    let said = format!("after {victim:?} got {signal:?}: {incident:#?}");
    assert_eq!(incident.cause.code, Code::EngineDied, "{said}");
    let first = incident.exits.first().unwrap_or_else(|| panic!("{said}"));
    // Who is faster, whoever writes it or the kill, is chance; another line than these is wrong.
    let telling: &[&str] = match victim {
        Victim::Worker => &["died unexpectedly", "Segfault encountered"],
        Victim::EngineCore => &["engine core exited unexpectedly", "Segfault encountered"],
        Victim::ApiServer | Victim::ResourceTracker | Victim::Helper => &["Segfault encountered"],
    };
    let is_telling = |line: &str| telling.iter().any(|words| line.contains(words));
    assert!(incident.cause.line().is_none_or(|line| is_telling(&line.text)), "{said}");
    // At a SIGTERM an engine ends its workers first, and everybody ends as it likes.
    if signal == Signal::TERM {
        return;
    }
    let role = match victim {
        Victim::ApiServer => Role::ApiServer,
        Victim::EngineCore => Role::EngineCore,
        Victim::Worker => Role::Worker,
        Victim::ResourceTracker | Victim::Helper => Role::Helper,
    };
    assert_eq!((first.role, first.exit), (role, Exit::Signal(signal.as_raw())), "{said}");
}

/// A stop while the model loads is heeded, though vLLM swallows the first SIGTERM.
pub async fn a_stop_while_loading_leaves_nothing(server: Server) {
    let scenario = Scenario::prepare(server).await;
    let handle = scenario.handle().clone();
    let started = async { scenario.handle().start().await };
    let stopped = async {
        scenario.wait_until(|now| now.progress.is_some()).await;
        handle.stop().await
    };
    let (started, stopped) = tokio::join!(started, stopped);
    assert_eq!((started, stopped), (Err(CommandError::Stopped), Ok(())), "{}", scenario.story());
    scenario.nothing_is_left().await;
    assert_eq!(scenario.states(), [Starting, Stopping, Stopped], "{}", scenario.story());
    scenario.end().await;
}

/// A supervisor that is told to leave vLLM running is followed by one that takes it over, without
/// a restart.
pub async fn a_successor_adopts_what_is_left_running(server: Server) {
    let scenario = Scenario::configure(server, |config| {
        config.lifecycle.stop_on_exit = vllm_supervisor::config::ExitPolicy::Detach;
    })
    .await;
    scenario.start_service().await;
    let first = scenario.wait_for(Running).await;
    let successor = scenario.succeed().await;
    let second = successor.wait_for(ServiceState::Running).await;
    assert_eq!((second.pid, second.incarnation), (first.pid, first.incarnation));
    assert!(!successor.complete().await.is_empty());
    let before = second.incarnation.get();
    successor.kill(Victim::ApiServer, Signal::KILL);
    successor.wait_for_successor_of(before).await;
    successor.end().await;
}

/// A switch to another model serves it, and says so.
pub async fn another_model_can_be_loaded(server: Server) {
    let other = server.other_model().to_owned();
    let scenario = Scenario::start(server).await;
    let mut progress = scenario.handle().load_model_stream(&other);
    let mut last = None;
    while let Some(item) = progress.next().await {
        last = Some(item.expect("a load that succeeds"));
    }
    let last = last.expect("at least one item");
    assert_eq!((last.model.as_str(), last.percent), (other.as_str(), 100));
    assert_eq!(scenario.handle().loaded_models(), [other]);
    assert!(!scenario.complete().await.is_empty());
    scenario.end().await;
}

/// The second load of a model tells how long it still takes.
pub async fn a_load_is_told_by_the_clock_of_the_one_before(server: Server) {
    let scenario = Scenario::configure(server, |config| {
        // Each launch is like the other.
        config.lifecycle.launch = vllm_supervisor::config::LaunchPolicy::Cold;
    })
    .await;
    let times = |scenario: &Scenario| {
        let loads = scenario.loads().into_iter();
        loads.map(|load| load.time_left).collect::<Vec<_>>()
    };
    scenario.start_service().await;
    assert_eq!(times(&scenario).into_iter().flatten().next(), None, "{}", scenario.story());
    let took = scenario.wait_for(Running).await.phases.expect("it was launched").total();
    let first = times(&scenario).len();
    scenario.handle().restart().await.expect("a restart");
    let left: Vec<_> = times(&scenario).split_off(first).into_iter().flatten().collect();
    let story = || scenario.story();
    assert!(left.len() > 1 && left.is_sorted_by(|one, next| one >= next), "{left:?}\n{}", story());
    assert!(left.iter().all(|left| *left <= took), "{left:?} of {took:?}");
    scenario.end().await;
}

/// The model that is served is told something else. The next supervisor takes it over as it is, and goes back
/// when it is told to; what vLLM may not be told is refused while it serves on.
pub async fn the_same_model_can_be_told_something_else(server: Server) {
    let configured = server.arguments().to_vec();
    let scenario = Scenario::configure(server, |config| {
        config.lifecycle.stop_on_exit = vllm_supervisor::config::ExitPolicy::Detach;
    })
    .await;
    scenario.start_service().await;
    let model = scenario.wait_for(Running).await.model.to_string();
    let told = |words: &[String]| ModelRequest::new(&model).extra_args(words);
    let renaming = ["--served-model-name", "renamed"].map(str::to_owned);
    let renamed = [&configured[..], &renaming[..]].concat();
    scenario.handle().load_model(told(&renamed)).await.expect("it is served otherwise");
    let first = scenario.wait_for(Running).await;
    assert_eq!(first.listed_models, ["renamed"]);
    let ours = ["--port".to_owned(), "1".to_owned()];
    let refused = scenario.handle().load_model(told(&ours)).await.expect_err("the port is ours");
    assert_eq!(refused.code(), Some(Code::InvalidConfiguration), "{refused}");
    let successor = scenario.succeed().await;
    let second = successor.wait_for(Running).await;
    assert_eq!((second.pid, second.incarnation), (first.pid, first.incarnation));
    assert_eq!(second.extra_args, Some(renamed));
    assert!(!successor.complete().await.is_empty());
    successor.handle().load_model(told(&configured)).await.expect("it is served as before");
    let third = successor.wait_for(Running).await;
    assert_eq!((&third.listed_models, third.extra_args), (&vec![model], None));
    successor.end().await;
}

/// A process that vLLM needs is stopped, as in a kernel that never ends: `/health` goes on to say 200.
/// It is found, and vLLM killed and restarted; also if nobody asks it for anything.
pub async fn whoever_stands_still_is_found(server: Server, standstills: &[(Victim, Load)]) {
    let scenario = Scenario::configure(server, |config| {
        config.lifecycle.launch = vllm_supervisor::config::LaunchPolicy::Auto;
        config.lifecycle.max_restarts_per_minute = std::num::NonZeroU32::MAX;
        config.lifecycle.stable_after = std::time::Duration::ZERO;
    })
    .await;
    scenario.start_service().await;
    let first_words = scenario.complete().await;
    for (victim, load) in standstills {
        let before = scenario.wait_for(Running).await.incarnation.get();
        let request = match load {
            Load::None => None,
            Load::Some => Some(scenario.open_request(TOKENS).await.expect("an answer that begins")),
        };
        let stopped = tokio::time::Instant::now();
        scenario.kill(*victim, Signal::STOP);
        scenario.wait_until(|now| now.state != Running || now.incarnation.get() != before).await;
        let found = stopped.elapsed();
        assert!(found <= FOUND_WITHIN, "{victim:?}, {load:?}: {found:?}\n{}", scenario.story());
        scenario.wait_for_successor_of(before).await;
        let history = scenario.handle().history().await;
        let incident = history.last().expect("it is kept");
        assert_eq!(incident.cause.code, Code::EngineHung, "{victim:?}, {load:?}: {incident:?}");
        // What was not answered before is not answered now.
        drop(request);
        assert_eq!(scenario.complete().await, first_words);
        writeln!(std::io::stderr(), "{victim:?}, {load:?}: found after {found:.1?}").ok();
    }
    scenario.end().await;
}

/// Within what a hang is to be found.
const FOUND_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

/// Whether vLLM has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nobody asks for anything.
    None,
    /// A request runs.
    Some,
}

/// Who may stand still, and when.
pub const STANDSTILLS: [(Victim, Load); 6] = [
    (Victim::Worker, Load::None),
    (Victim::EngineCore, Load::None),
    (Victim::ApiServer, Load::None),
    (Victim::Worker, Load::Some),
    (Victim::EngineCore, Load::Some),
    (Victim::ApiServer, Load::Some),
];

/// A request that runs when a stop comes, and can end within the grace period, is answered.
pub async fn a_request_that_runs_is_answered_before_a_stop(server: Server) {
    let scenario = Scenario::start(server).await;
    // The first request of all warms up.
    scenario.complete().await;
    let request = scenario.open_request(TOKENS).await.expect("an answer that begins");
    let handle = scenario.handle().clone();
    let (text, stopped) = tokio::join!(request.text(), handle.stop());
    assert_eq!(stopped, Ok(()), "{}", scenario.story());
    assert!(!text.expect("a whole answer").is_empty());
    scenario.nothing_is_left().await;
    scenario.end().await;
}

/// What is launched warm serves the same, is gone when it is stopped, and comes back sooner than its
/// imports take.
pub async fn a_warm_launch_comes_back(server: Server) {
    let scenario = Scenario::configure(server, |config| {
        config.lifecycle.launch = vllm_supervisor::config::LaunchPolicy::Auto;
        config.lifecycle.stable_after = std::time::Duration::ZERO;
        config.lifecycle.max_restarts_per_minute = std::num::NonZeroU32::MAX;
    })
    .await;
    scenario.start_service().await;
    let mut before = scenario.wait_for(Running).await;
    assert_eq!(before.launch, Some(LaunchKind::Warm), "{}", scenario.story());
    let first_words = scenario.complete().await;
    for (victim, signal) in DEATHS {
        scenario.kill(victim, signal);
        let after = scenario.wait_for_successor_of(before.incarnation.get()).await;
        assert_eq!(after.launch, Some(LaunchKind::Warm), "{}", scenario.story());
        assert_eq!(scenario.complete().await, first_words, "after {victim:?} got {signal:?}");
        before = after;
    }
    scenario.handle().stop().await.expect("a stop");
    scenario.nothing_is_left().await;
    scenario.end().await;
}

/// A second supervisor watches a vLLM that is not its own: it tells when that serves and when it is gone,
/// refuses to do anything about it, and leaves it alone at its end.
pub async fn one_that_is_not_ours_is_watched(server: Server) {
    let patience = server.patience();
    let scenario = Scenario::start(server).await;
    let place = tempfile::tempdir().expect("a directory");
    let name = scenario.handle().loaded_models().swap_remove(0);
    let port = scenario.handle().base_url().rsplit(':').next().and_then(|it| it.parse().ok());
    let mut config = Config::with_defaults(ModelReference::Listed(name), place.path());
    config.port = port.expect("a port");
    config.lifecycle.mode = LifecycleMode::External;
    config.lifecycle.health_check_interval = Duration::from_millis(200);
    config.gpu.monitor = GpuMonitor::Off;
    let watcher = Supervisor::builder().config(config).spawn().await.expect("a watcher");
    let mut seen = watcher.watch();
    let mut sees = async |states: &[ServiceState]| {
        let seen = timeout(patience, seen.wait_for(|now| states.contains(&now.state))).await;
        seen.unwrap_or_else(|_| panic!("{states:?} is not seen\n{}", scenario.story()))
            .expect("it lives");
    };
    sees(&[Running]).await;
    assert_eq!(watcher.ensure_healthy(None).await, Ok(()));
    for refused in [watcher.stop().await, watcher.restart().await] {
        assert!(matches!(refused, Err(CommandError::NotManaged { .. })), "{refused:?}");
    }
    scenario.handle().stop().await.expect("a stop");
    // On its way down it may say that its engine is dead.
    sees(&[ServiceState::Unknown, Crashed]).await;
    assert!(watcher.ensure_healthy(None).await.is_err());
    scenario.start_service().await;
    sees(&[Running]).await;
    watcher.shutdown().await;
    assert!(!scenario.complete().await.is_empty());
    scenario.end().await;
}
