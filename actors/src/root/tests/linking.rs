//! A supervisor under an actor of the program: each is told of the other's end.

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::mpsc;

use super::*;

/// An actor of the program, that writes down how its children end.
struct Parent;

/// What the parent is told.
enum Order {
    Stop,
    Panic,
    StopChildrenFirst,
}

crate::message::messages!(Order);

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Terminated,
    Failed(String),
}

#[ractor::actor(message = Order, state = mpsc::UnboundedSender<Seen>, arguments = mpsc::UnboundedSender<Seen>)]
impl Parent {
    async fn pre_start(
        &self,
        _: ActorRef<Order>,
        seen: mpsc::UnboundedSender<Seen>,
    ) -> Result<mpsc::UnboundedSender<Seen>, ActorProcessingErr> {
        Ok(seen)
    }

    async fn handle(
        &self,
        myself: ActorRef<Order>,
        order: Order,
        _: &mut mpsc::UnboundedSender<Seen>,
    ) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Stop => myself.stop(None),
            Order::Panic => panic!("a bug of the program"),
            Order::StopChildrenFirst => {
                myself.stop_children_and_wait(None, None).await;
                myself.stop(None);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Order>,
        event: SupervisionEvent,
        seen: &mut mpsc::UnboundedSender<Seen>,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(..) => drop(seen.send(Seen::Terminated)),
            SupervisionEvent::ActorFailed(_, failure) => {
                drop(seen.send(Seen::Failed(failure.to_string())));
            }
            // `SupervisionEvent` grows with ractor's features.
            _ => {}
        }
        Ok(())
    }
}

async fn parent() -> (ActorRef<Order>, mpsc::UnboundedReceiver<Seen>) {
    let (seen, ends) = mpsc::unbounded_channel();
    (Actor::spawn(None, Parent, seen).await.unwrap().0, ends)
}

fn last(harness: &Harness) -> Option<EventKind> {
    harness.events().pop().map(|event| event.kind)
}

const IN_ORDER: EventKind = EventKind::SupervisorEnded { reason: EndReason::ShutDown };

#[tokio::test(start_paused = true)]
async fn a_supervisor_ends_in_order_however_its_parent_ends() {
    for on_exit in [ExitPolicy::Stop, ExitPolicy::Detach] {
        for order in [Order::Stop, Order::Panic] {
            let (mut harness, process) = running(on_exit).await;
            let (parent, _ends) = parent().await;
            let _link = harness.link(parent.get_cell()).await;

            parent.send_message(order).unwrap();

            harness.wait_for_end().await;
            assert_eq!(harness.snapshot().ended, Some(EndReason::ShutDown));
            assert_eq!(last(&harness), Some(IN_ORDER));
            assert_eq!(process.is_alive(), on_exit == ExitPolicy::Detach);
            // It was asked to stop, or let go; nobody had to guard it.
            let asked = calls(&process).contains(&Call::Signalled(Signal::Terminate));
            assert_eq!(asked, on_exit == ExitPolicy::Stop, "{:?}", calls(&process));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_the_child_has_waited_for_vllm() {
    let (mut harness, process) = running(ExitPolicy::Stop).await;
    let (parent, _ends) = parent().await;
    let link = harness.link(parent.get_cell()).await;

    parent.send_message(Order::StopChildrenFirst).unwrap();

    in_time(link.actor.wait(None)).await.unwrap();
    assert!(!process.is_alive());
    assert_eq!(last(&harness), Some(IN_ORDER));
    harness.wait_for_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_parent_is_told_whether_its_supervisor_ended_in_order() {
    let (mut harness, _) = running(ExitPolicy::Stop).await;
    let (parent, mut ends) = parent().await;
    let _link = harness.link(parent.get_cell()).await;
    harness.send(Command::Shutdown.into());
    assert_eq!(in_time(ends.recv()).await, Some(Seen::Terminated));
    harness.wait_for_end().await;

    let (harness, _) = running(ExitPolicy::Stop).await;
    let _link = harness.link(parent.get_cell()).await;
    harness.kill();
    let Some(Seen::Failed(why)) = in_time(ends.recv()).await else { panic!("it did not fail") };
    assert!(why.contains("killed"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_killed_takes_the_supervisor_along() {
    let (mut harness, process) = running(ExitPolicy::Stop).await;
    let (parent, _ends) = parent().await;
    let link = harness.link(parent.get_cell()).await;
    link.actor.kill();
    harness.wait_for_end().await;
    assert!(!process.is_alive());
    assert_eq!(last(&harness), Some(IN_ORDER));
}

#[tokio::test(start_paused = true)]
async fn a_command_to_the_child_is_one_to_the_supervisor() {
    let harness = resting(ExitPolicy::Stop).await;
    let (parent, _ends) = parent().await;
    let link = harness.link(parent.get_cell()).await;
    let (reply, present) = tokio::sync::oneshot::channel();
    let child: ractor::DerivedActorRef<Command> = link.actor.get_derived();
    child.send_message(Command::Snapshot { reply: reply.into() }).unwrap();
    assert_eq!(in_time(present).await.unwrap().state, Stopped);
}
