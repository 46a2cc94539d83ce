//! The health actor between a scripted probe and a root that only listens.

use ractor::Actor;

use super::*;
use crate::domain::health::{DRAIN_QUIET, HealthFailure, InHand};
use crate::testing::harness::in_time;
use crate::testing::listener::Listener;
use crate::testing::probe::ScriptedProbe;

const FIRST: Incarnation = Incarnation::new(1);
const SECOND: Incarnation = Incarnation::new(2);
const INTERVAL: Duration = Duration::from_secs(60);
const STEADY: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

/// The timers tick in milliseconds.
const TICK: Duration = Duration::from_millis(2);

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_before_there_is_a_launch() {
    let mut scene = Scene::begin().await;
    scene.root.hears_nothing_for(HOUR).await;
    assert_eq!(scene.probe.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn a_launch_is_asked_at_once_and_often() {
    let mut scene = Scene::begin().await;
    let begun = Instant::now();
    scene.watch(FIRST);

    for _ in 0..10 {
        let report = scene.next_check().await;
        assert_eq!(report.incarnation, FIRST);
        assert!(matches!(report.check, Err(HealthFailure::Unreachable { .. })));
    }

    assert_eq!(scene.probe.asked()[0], begun);
    scene.paused_for(Duration::from_millis(50));
    tell(&scene.actor, HealthMessage::Probe { incarnation: FIRST });
    scene.next_check().await;
    scene.next_question().await;
    scene.next_question().await;
    scene.paused_for(Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_drags_on_is_asked_less_often() {
    let scene = Scene::begin().await;
    scene.watch(FIRST);

    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        scene.next_question().await;
    }

    scene.paused_for(Duration::from_millis(250));

    // It says that it listens.
    tell(&scene.actor, HealthMessage::Probe { incarnation: FIRST });
    scene.next_question().await;
    scene.next_question().await;
    scene.paused_for(Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_settled_vllm_is_asked_steadily_and_reported_by_the_interval() {
    let mut scene = Scene::steady().await;
    let steady = Instant::now();
    for _ in 0..3 {
        scene.next_question().await;
        scene.paused_for(STEADY);
    }
    scene.next_check().await;
    assert!(steady.elapsed() >= INTERVAL, "reported after {:?}", steady.elapsed());
    scene.next_check().await;
    assert!(steady.elapsed() >= 2 * INTERVAL, "reported after {:?}", steady.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_check_that_passes_after_one_that_failed_is_reported_at_once() {
    let mut scene = Scene::steady().await;
    scene.probe.fall_silent();
    assert!(scene.next_check().await.check.is_err());
    scene.probe.serve();
    let begun = Instant::now();
    assert!(scene.next_check().await.check.is_ok());
    assert!(begun.elapsed() < STEADY);
}

#[tokio::test(start_paused = true)]
async fn a_launch_is_drained_when_nothing_has_run_for_a_while() {
    let mut scene = Scene::steady().await;
    let in_hand = |requests| Some(InHand { requests, connections: None });
    scene.probe.has_in_hand(in_hand(1));
    tell(&scene.actor, HealthMessage::Cease);
    tell(&scene.actor, HealthMessage::Drain { incarnation: FIRST });
    scene.root.hears_nothing_for(HOUR).await;

    scene.probe.has_in_hand(in_hand(0));
    let begun = Instant::now();
    assert_eq!(scene.root.next().await, HealthNews::Drained(FIRST));
    // The last look that found something was up to a pause before.
    assert!(begun.elapsed() + DRAIN_PAUSE >= DRAIN_QUIET, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_does_not_tell_what_runs_is_not_waited_for() {
    let mut scene = Scene::steady().await;
    let begun = Instant::now();
    tell(&scene.actor, HealthMessage::Drain { incarnation: FIRST });
    assert_eq!(scene.root.next().await, HealthNews::Drained(FIRST));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_vllm_that_failed_a_check_is_asked_sooner_until_it_passes_one() {
    let mut scene = Scene::steady().await;
    scene.probe.fall_silent();
    scene.next_question().await;
    for _ in 0..2 {
        scene.next_question().await;
        scene.paused_for(Duration::from_secs(1));
        assert!(scene.next_check().await.check.is_err());
    }

    scene.probe.serve();
    scene.next_question().await;
    scene.paused_for(Duration::from_secs(1));

    scene.next_question().await;
    scene.paused_for(STEADY);
}

#[tokio::test(start_paused = true)]
async fn one_question_is_asked_at_a_time() {
    let mut scene = Scene::begin().await;
    scene.probe.delay(Duration::from_secs(5));
    scene.watch(FIRST);
    for _ in 0..3 {
        tell(&scene.actor, HealthMessage::Probe { incarnation: FIRST });
        tell(&scene.actor, HealthMessage::ProbeDue { incarnation: FIRST });
        tell(&scene.actor, HealthMessage::ProbeSteadily { incarnation: FIRST });
    }

    for _ in 0..3 {
        scene.root.next().await;
    }

    assert_eq!(scene.probe.most_under_way(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_probe_does_not_wait_for_the_interval() {
    let scene = Scene::steady().await;
    let begun = Instant::now();

    tell(&scene.actor, HealthMessage::Probe { incarnation: FIRST });

    scene.next_question().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    scene.next_question().await;
    scene.paused_for(STEADY);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_any_more_after_a_cease() {
    let mut scene = Scene::begin().await;
    scene.watch(FIRST);
    scene.root.next().await;
    scene.probe.delay(Duration::from_secs(5));
    scene.next_question().await;

    tell(&scene.actor, HealthMessage::Cease);

    let asked = scene.probe.asked().len();
    scene.root.hears_nothing_for(HOUR).await;
    assert_eq!(scene.probe.asked().len(), asked);
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_an_earlier_launch_is_dropped() {
    let mut scene = Scene::begin().await;
    scene.probe.delay(Duration::from_secs(5));
    scene.watch(FIRST);
    scene.next_question().await;

    scene.watch(SECOND);
    let check = Err(HealthFailure::NotVllm { url: "late".to_owned() });
    tell(&scene.actor, HealthMessage::Answered { incarnation: FIRST, check });

    for _ in 0..3 {
        assert_eq!(scene.next_check().await.incarnation, SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_another_launch_changes_nothing() {
    let scene = Scene::steady().await;
    let asked = scene.probe.asked().len();

    tell(&scene.actor, HealthMessage::Probe { incarnation: SECOND });
    tell(&scene.actor, HealthMessage::ProbeDue { incarnation: SECOND });
    tell(&scene.actor, HealthMessage::ProbeSteadily { incarnation: SECOND });

    scene.next_question().await;
    assert_eq!(scene.probe.asked().len(), asked + 1);
    scene.paused_for(STEADY);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_ends_the_actor() {
    let scene = Scene::begin().await;
    scene.probe.panic_next(1);
    scene.watch(FIRST);
    in_time(scene.actor.get_cell().wait(None)).await.unwrap();
}

/// A health actor, its probe, and all that its root hears.
struct Scene {
    probe: Arc<ScriptedProbe>,
    root: Listener<HealthNews>,
    actor: ActorRef<HealthMessage>,
}

impl Scene {
    async fn begin() -> Self {
        let (probe, root) = (Arc::<ScriptedProbe>::default(), Listener::begin().await);
        let args =
            HealthArgs { probe: Arc::clone(&probe) as _, interval: INTERVAL, root: root.reports() };
        let (actor, _) = Actor::spawn_linked(None, HealthActor, args, root.cell()).await.unwrap();
        Self { probe, root, actor }
    }

    /// One that has passed a check, and is asked by the interval since.
    async fn steady() -> Self {
        let mut scene = Self::begin().await;
        scene.probe.serve();
        scene.watch(FIRST);
        assert!(scene.next_check().await.check.is_ok());
        tell(&scene.actor, HealthMessage::ProbeSteadily { incarnation: FIRST });
        scene
    }

    fn watch(&self, incarnation: Incarnation) {
        tell(&self.actor, HealthMessage::Watch { incarnation, name: "m".to_owned() });
    }

    async fn next_check(&mut self) -> HealthReport {
        match self.root.next().await {
            HealthNews::Checked(report) => report,
            news @ (HealthNews::Drained(_)
            | HealthNews::Completed(..)
            | HealthNews::Felt(..)
            | HealthNews::Tried(..)) => panic!("{news:?}"),
        }
    }

    async fn next_question(&self) {
        let asked = u32::try_from(self.probe.asked().len()).unwrap();
        in_time(self.probe.asked_times(asked + 1)).await;
    }

    /// The last two questions were as far apart.
    fn paused_for(&self, pause: Duration) {
        let asked = self.probe.asked();
        let [.., before, last] = asked.as_slice() else { panic!("asked {} times", asked.len()) };
        let paused = last.duration_since(*before);
        assert!(paused >= pause && paused <= pause + TICK, "{paused:?} instead of {pause:?}");
    }
}
