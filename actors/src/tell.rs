//! Speaking to an actor that may be gone, and work that ends with the actor it was begun for.

use std::future::Future;
use std::time::Duration;

use ractor::{ActorCell, ActorRef, DerivedActorRef, Message};
use tokio::task::JoinHandle;
use tracing::debug;

/// Tells a parent a fact. A parent that is gone ends its children anyway, so nothing is lost.
pub(crate) fn report<M: Message>(parent: &DerivedActorRef<M>, fact: M) {
    if parent.send_message(fact).is_err() {
        debug!("the parent is gone; a report was dropped");
    }
}

/// Tells an actor to do something. One that is gone is its supervisor's business.
pub(crate) fn tell<M: Message>(actor: &ActorRef<M>, message: M) {
    if actor.send_message(message).is_err() {
        debug!(actor = %actor.get_id(), "the actor is gone; a message was dropped");
    }
}

/// Tells an actor something after a while, unless the returned task is dropped before.
pub(crate) fn tell_after<M: Message>(
    actor: &ActorRef<M>,
    after: Duration,
    message: M,
) -> OwnedTask {
    let listener = actor.clone();
    OwnedTask::begin(actor.get_cell(), async move {
        tokio::time::sleep(after).await;
        tell(&listener, message);
    })
}

/// A pause within an owned task; a handler never waits.
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// A background task that belongs to an actor: kept in the actor's state, it is aborted when that
/// is dropped. If it panics, the actor is killed, so that its supervisor hears of it.
#[derive(Debug)]
pub(crate) struct OwnedTask(JoinHandle<()>);

impl OwnedTask {
    /// Begins `work` on behalf of `owner`.
    #[expect(clippy::disallowed_methods, reason = "this is the owner that other tasks lack")]
    pub(crate) fn begin(owner: ActorCell, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(async move {
            let _fuse = Fuse(owner);
            work.await;
        }))
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Fuse(ActorCell);

impl Drop for Fuse {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.kill();
        }
    }
}

#[cfg(test)]
mod tests;
