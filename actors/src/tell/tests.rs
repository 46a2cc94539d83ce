//! Tasks with an owner, and what becomes of either when the other ends.

use ractor::{Actor, ActorProcessingErr, SupervisionEvent};
use tokio::sync::oneshot;

use super::*;
use crate::testing::harness::in_time;

#[tokio::test(start_paused = true)]
async fn a_task_ends_when_its_owner_stops() {
    let mut scene = Scene::begin().await;
    scene.actor.stop(None);
    scene.the_task_ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_ends_when_its_owner_is_killed() {
    let mut scene = Scene::begin().await;
    scene.actor.kill();
    scene.the_task_ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_ends_when_its_owner_panics() {
    let mut scene = Scene::begin().await;
    tell(&scene.actor, Order::Panic);
    scene.the_task_ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_ends_when_it_is_dropped_and_its_owner_lives_on() {
    let mut scene = Scene::begin().await;
    tell(&scene.actor, Order::DropTask);
    scene.the_task_ends().await;
    scene.the_owner_answers().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_task_kills_its_owner() {
    let scene = Scene::begin().await;
    tell(&scene.actor, Order::PanicInTask);
    assert_eq!(in_time(scene.death).await.unwrap(), "killed");
}

#[tokio::test(start_paused = true)]
async fn a_delayed_word_arrives_after_its_delay() {
    let scene = Scene::begin().await;
    let begun = tokio::time::Instant::now();
    let (answer, answered) = oneshot::channel();
    let delay = Duration::from_secs(60);

    let _delayed = tell_after(&scene.actor, delay, Order::Answer(answer));

    in_time(answered).await.unwrap();
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_delayed_word_that_is_dropped_is_never_said() {
    let scene = Scene::begin().await;
    let (answer, answered) = oneshot::channel();

    drop(tell_after(&scene.actor, Duration::from_secs(60), Order::Answer(answer)));

    in_time(answered).await.unwrap_err();
    scene.the_owner_answers().await;
}

#[tokio::test(start_paused = true)]
async fn a_word_to_an_actor_that_is_gone_is_dropped_in_peace() {
    let scene = Scene::begin().await;
    scene.actor.stop(None);
    in_time(scene.actor.get_cell().wait(None)).await.unwrap();
    let (answer, answered) = oneshot::channel();

    tell(&scene.actor, Order::Answer(answer));

    in_time(answered).await.unwrap_err();
}

/// An actor that owns a task which waits for ever, and its parent.
struct Scene {
    actor: ActorRef<Order>,
    task: oneshot::Receiver<()>,
    /// The reason of its death.
    death: oneshot::Receiver<String>,
}

impl Scene {
    async fn begin() -> Self {
        let (tells, death) = oneshot::channel();
        let (parent, _) = Actor::spawn(None, Parent, Some(tells)).await.unwrap();
        let (ends, task) = oneshot::channel();
        let (actor, _) = Actor::spawn_linked(None, Owner, ends, parent.get_cell()).await.unwrap();
        Self { actor, task, death }
    }

    /// Its half of the channel is dropped with it.
    async fn the_task_ends(&mut self) {
        in_time(&mut self.task).await.unwrap_err();
    }

    async fn the_owner_answers(&self) {
        let (answer, answered) = oneshot::channel();
        tell(&self.actor, Order::Answer(answer));
        in_time(answered).await.unwrap();
    }
}

enum Order {
    Answer(oneshot::Sender<()>),
    DropTask,
    Panic,
    PanicInTask,
}

struct Owner;

impl Actor for Owner {
    type Msg = Order;
    type State = Option<OwnedTask>;
    type Arguments = oneshot::Sender<()>;

    async fn pre_start(
        &self,
        myself: ActorRef<Order>,
        ends: oneshot::Sender<()>,
    ) -> Result<Option<OwnedTask>, ActorProcessingErr> {
        Ok(Some(OwnedTask::begin(myself.get_cell(), async move {
            let _ends = ends;
            std::future::pending::<()>().await;
        })))
    }

    async fn handle(
        &self,
        myself: ActorRef<Order>,
        order: Order,
        task: &mut Option<OwnedTask>,
    ) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Answer(answer) => answer.send(()).unwrap(),
            Order::DropTask => *task = None,
            Order::Panic => panic!("as ordered"),
            Order::PanicInTask => {
                *task = Some(OwnedTask::begin(myself.get_cell(), async { panic!("as ordered") }));
            }
        }
        Ok(())
    }
}

struct Parent;

impl Actor for Parent {
    type Msg = ();
    type State = Option<oneshot::Sender<String>>;
    type Arguments = Option<oneshot::Sender<String>>;

    async fn pre_start(
        &self,
        _: ActorRef<()>,
        tells: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(tells)
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        tells: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorTerminated(_, _, reason) = event {
            // Most tests do not ask.
            drop(tells.take().map(|tells| tells.send(reason.unwrap_or_default())));
        }
        Ok(())
    }
}
