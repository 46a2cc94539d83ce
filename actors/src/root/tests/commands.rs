//! What callers ask for, and what they are told.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use tokio::sync::watch;

use super::*;
use crate::root::Snapshot;

const TERM: Call = Call::Signalled(Signal::Terminate);

#[tokio::test(start_paused = true)]
async fn a_start_is_answered_when_vllm_serves() {
    let (harness, process, mut started) = starting(ExitPolicy::Stop).await;
    harness.stays_for(Duration::from_secs(20), |snapshot| snapshot.state == Starting).await;
    assert!(started.is_open());

    harness.world.probe.serve();

    assert_eq!(started.answer().await, Some(Ok(())));
    assert_eq!(harness.path(), [Stopped, Starting, Running]);
    let snapshot = harness.snapshot();
    assert_eq!((snapshot.pid, snapshot.incarnation), (Some(process.pid()), FIRST));
    assert_eq!(snapshot.launch, Some(LaunchKind::Cold));
    assert_eq!(snapshot.listed_models, ["org/first"]);
}

#[tokio::test(start_paused = true)]
async fn two_starts_share_one_launch() {
    let harness = resting(ExitPolicy::Stop).await;
    harness.world.probe.serve();

    let (first, second) = (harness.ask(start), harness.ask(ensure));

    assert_eq!(first.answer().await, Some(Ok(())));
    assert_eq!(second.answer().await, Some(Ok(())));
    assert_eq!(launches(&harness), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_start_of_what_serves_is_answered_at_once() {
    let (harness, _) = running(ExitPolicy::Stop).await;
    let begun = Instant::now();

    for command in [start, ensure] {
        assert_eq!(harness.ask(command).answer().await, Some(Ok(())));
    }

    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(launches(&harness), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_start_before_anybody_has_looked_around_is_not_lost() {
    let world = World::default();
    world.probe.serve();
    world.launcher.hold_searches();
    let harness = Harness::begin(world, Plan::new(ExitPolicy::Stop)).await;
    let started = harness.ask(start);
    harness.stays_for(MINUTE, |snapshot| snapshot.state == Unknown).await;

    harness.world.launcher.answer_searches();

    assert_eq!(started.answer().await, Some(Ok(())));
    assert_eq!(launches(&harness), [1]);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_supervisor_left_is_taken_over_without_being_asked() {
    let world = World::default();
    world.probe.serve();
    let process = world.launcher.leave(Incarnation::new(7), model("org/first"));

    let harness = Harness::begin(world, Plan::new(ExitPolicy::Stop)).await;

    let snapshot = harness.wait_for(Running).await;
    assert_eq!(snapshot.launch, Some(LaunchKind::Adopted));
    assert_eq!((snapshot.pid, snapshot.incarnation.get()), (Some(process.pid()), 7));
    assert_eq!(launches(&harness), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_supervisor_left_of_use_to_nobody_is_cleared_before_a_launch() {
    let world = World::default();
    world.probe.serve();
    let left = world.launcher.leave(Incarnation::new(7), model("org/another"));
    let harness = Harness::begin(world, Plan::new(ExitPolicy::Stop)).await;

    assert_eq!(harness.ask(start).answer().await, Some(Ok(())));

    assert!(!left.is_alive());
    assert_eq!(launches(&harness), [8]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_starting_answers_both_callers() {
    let (harness, process, started) = starting(ExitPolicy::Stop).await;

    let stopped = harness.ask(stop);

    assert_eq!(started.answer().await, Some(Err(CommandError::Stopped)));
    assert_eq!(stopped.answer().await, Some(Ok(())));
    assert_eq!(harness.path(), [Stopped, Starting, Stopping, Stopped]);
    assert!(!process.is_alive());
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_what_is_stopped_is_answered_at_once() {
    let harness = resting(ExitPolicy::Stop).await;
    assert_eq!(harness.ask(stop).answer().await, Some(Ok(())));
    assert_eq!(harness.path(), [Stopped]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_answered_when_nothing_is_alive() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    process.ignore_sigterm();
    let mut stopped = harness.ask(stop);
    harness.wait_for(Stopping).await;
    harness.stays_for(Duration::from_secs(9), |snapshot| snapshot.state == Stopping).await;
    assert!(stopped.is_open());

    assert_eq!(stopped.answer().await, Some(Ok(())));

    assert!(!process.is_alive());
    assert_eq!(calls(&process), [TERM, Call::Swept]);
}

#[tokio::test(start_paused = true)]
async fn an_immediate_stop_hastens_a_graceful_one_and_both_callers_are_answered() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    process.ignore_sigterm();
    let begun = Instant::now();

    let (graceful, immediate) = (harness.ask(stop), harness.ask(stop_now));

    assert_eq!(graceful.answer().await, Some(Ok(())));
    assert_eq!(immediate.answer().await, Some(Ok(())));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_answered_when_another_incarnation_serves() {
    let (harness, first) = running(ExitPolicy::Stop).await;

    assert_eq!(harness.ask(restart).answer().await, Some(Ok(())));

    assert!(!first.is_alive());
    assert_eq!(launches(&harness), [1, 2]);
    assert_eq!(harness.snapshot().incarnation, SECOND);
}

#[tokio::test(start_paused = true)]
async fn another_model_is_served_after_a_load() {
    let (harness, first) = running(ExitPolicy::Stop).await;

    assert_eq!(harness.ask(load("org/second")).answer().await, Some(Ok(())));

    assert!(!first.is_alive());
    assert_eq!(harness.snapshot().model, model("org/second"));
    let (from, to) = (model("org/first"), model("org/second"));
    let switched = EventKind::ModelSwitched { from, to, extra_args: None };
    assert!(harness.events().iter().any(|event| event.kind == switched));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_cannot_be_loaded_gives_way_to_the_one_before() {
    let (harness, _) = running(ExitPolicy::Stop).await;
    harness.world.probe.serve_only(&[model("org/first")]);
    let loaded = harness.ask(load("org/second"));
    harness.wait_until(|snapshot| snapshot.incarnation == SECOND && snapshot.pid.is_some()).await;

    harness.world.launcher.last().end(Exit::Code(1));

    let Some(Err(CommandError::SwitchFailed { wanted, restored, cause })) = loaded.answer().await
    else {
        panic!("the load was not reverted");
    };
    assert_eq!((wanted, restored), (model("org/second"), model("org/first")));
    assert_eq!(cause.code, Code::Unrecognised, "it has written nothing");
    let snapshot = harness.wait_for(Running).await;
    assert_eq!((snapshot.model, snapshot.incarnation.get()), (model("org/first"), 3));
}

#[tokio::test(start_paused = true)]
async fn a_bystander_of_a_switch_that_fails_is_answered_by_the_model_that_is_brought_back() {
    let (harness, _) = running(ExitPolicy::Stop).await;
    harness.world.probe.serve_only(&[model("org/first")]);
    let needed = harness.ask(need("org/second"));
    harness.wait_until(|snapshot| snapshot.incarnation == SECOND && snapshot.pid.is_some()).await;
    let mut bystander = harness.ask(ensure);
    assert!(bystander.is_open());

    harness.world.launcher.last().end(Exit::Code(1));

    assert!(matches!(needed.answer().await, Some(Err(CommandError::SwitchFailed { .. }))));
    assert_eq!(bystander.answer().await, Some(Ok(())));
    assert_eq!(harness.snapshot().model, model("org/first"));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_another_one_overtakes_is_told_so() {
    let (harness, _) = running(ExitPolicy::Stop).await;

    let (second, third) = (harness.ask(load("org/second")), harness.ask(load("org/third")));

    let superseded = CommandError::Superseded { to: model("org/third") };
    assert_eq!(second.answer().await, Some(Err(superseded)));
    assert_eq!(third.answer().await, Some(Ok(())));
}

#[tokio::test(start_paused = true)]
async fn the_present_is_published_before_anybody_is_told_that_it_has_come() {
    let (harness, _, started) = starting(ExitPolicy::Stop).await;
    let mut answer = pin!(started.answer());
    let noted = Arc::new(Noted { present: harness.follow(), when_woken: Mutex::default() });
    let waker = Waker::from(Arc::clone(&noted));
    assert!(answer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());

    harness.world.probe.serve();

    harness.wait_for(Running).await;
    let snapshot = noted.when_woken.lock().unwrap().take().expect("nobody was told");
    assert_eq!(snapshot.state, Running);
    assert_eq!(Some(snapshot.sequence), harness.events().last().map(|event| event.sequence));
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_hears_what_the_journal_keeps_without_a_gap() {
    let (harness, _) = running(ExitPolicy::Stop).await;
    let (kept, mut subscriber) = (harness.events().len(), harness.subscribe());

    harness.ask(restart).answer().await;
    harness.ask(stop).answer().await;

    let kept = harness.events().split_off(kept);
    assert!(!kept.is_empty());
    for event in kept {
        assert_eq!(*subscriber.try_recv().unwrap(), event);
    }
    let numbers = harness.events().into_iter().map(|event| event.sequence.get());
    assert!(numbers.eq(1..=harness.snapshot().sequence.get()));
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_the_present_gets_what_is_published() {
    let (harness, _) = running(ExitPolicy::Stop).await;

    let answer = harness.ask_for_snapshot().await;

    assert_eq!((answer.state, answer.pid), (Running, harness.snapshot().pid));
}

#[tokio::test(start_paused = true)]
async fn the_progress_of_a_load_is_part_of_the_present_until_it_serves() {
    let (harness, _, started) = starting(ExitPolicy::Stop).await;

    harness.world.output.write(FIRST, &["Starting to load model org/first..."]);

    let snapshot = harness.wait_until(|snapshot| snapshot.progress.is_some()).await;
    assert_eq!(snapshot.progress.map(|progress| progress.model), Some(model("org/first")));
    harness.world.probe.serve();
    started.answer().await;
    assert_eq!(harness.snapshot().progress, None);
}

/// A caller that looks at the present in the very moment of being told.
struct Noted {
    present: watch::Receiver<Snapshot>,
    when_woken: Mutex<Option<Snapshot>>,
}

impl Wake for Noted {
    fn wake(self: Arc<Self>) {
        let mut seen = self.when_woken.lock().unwrap();
        seen.get_or_insert_with(|| self.present.borrow().clone());
    }
}
