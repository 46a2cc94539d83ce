//! Following a supervisor: its events, and the progress of one load.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use futures_core::Stream;
use tokio::sync::broadcast::Receiver;
use vllm_supervisor_actors::domain::event::{Event, EventKind};
use vllm_supervisor_actors::domain::id::Sequence;
use vllm_supervisor_actors::domain::loading::{LoadStatus, ModelLoadProgress};
use vllm_supervisor_actors::domain::spec::ModelId;
use vllm_supervisor_actors::ports::PastEvents;

use crate::error::CommandError;

mod follower;

use follower::Follower;

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Something happened.
    Event(Arc<Event>),
    /// These many events cannot be told. The subscriber was too slow for them, and
    /// [`SupervisorHandle::subscribe_from`](crate::SupervisorHandle::subscribe_from) may still have
    /// them; or, for a subscriber who has come that way, the journal does not have them: they are
    /// older than what it keeps, were lost in a crash or on a full disk, or their numbers were
    /// reserved and perhaps never given. [`SupervisorHandle::status`](crate::SupervisorHandle::status)
    /// tells the present.
    Gap {
        /// How many.
        missed: u64,
    },
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Every event of a supervisor from the subscription on, in order; ends with the supervisor.
///
/// It is a `Stream`; [`EventStream::next`] serves those who do without the traits.
#[must_use = "a subscription that nobody reads only gathers a gap"]
pub struct EventStream {
    /// The wait for the next notice; it owns the follower meanwhile. `None` after the end.
    next: Option<Boxed<(Option<Notice>, Follower)>>,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("ended", &self.next.is_none()).finish()
    }
}

impl EventStream {
    /// What happens from now on.
    pub(crate) fn live(events: Option<Receiver<Arc<Event>>>) -> Self {
        Self { next: Some(Box::pin(Follower::live(events).next())) }
    }

    /// What has happened from a number on, then what happens. `events` was subscribed to before
    /// the past is read, so nothing falls between the two.
    pub(crate) fn from(
        sequence: Sequence,
        past: Box<dyn PastEvents>,
        events: Option<Receiver<Arc<Event>>>,
    ) -> Self {
        Self { next: Some(Box::pin(Follower::from(sequence, past, events).next())) }
    }

    /// The next notice; `None` when the supervisor has ended.
    pub async fn next(&mut self) -> Option<Notice> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for EventStream {
    type Item = Notice;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Notice>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let (notice, follower) = ready!(next.as_mut().poll(context));
        self.next = notice.is_some().then(|| Box::pin(follower.next()) as Boxed<_>);
        Poll::Ready(notice)
    }
}

/// The progress of one load; the last item says that the model is loaded, or why it is not.
///
/// The load has begun when there is a stream of it. Dropping the stream does not call it off.
#[must_use = "a load goes on without a reader, but nobody sees it"]
pub struct LoadStream {
    events: EventStream,
    /// What is loaded; `None` if the text names no model, which the command will say.
    model: Option<ModelId>,
    /// The command; `None` once it has been answered.
    command: Option<Boxed<Result<(), CommandError>>>,
    /// What was last known, to make the last item of.
    last: Option<ModelLoadProgress>,
}

impl fmt::Debug for LoadStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadStream").field("model", &self.model).finish_non_exhaustive()
    }
}

impl LoadStream {
    pub(crate) fn new(
        events: EventStream,
        model: Option<ModelId>,
        command: Boxed<Result<(), CommandError>>,
    ) -> Self {
        Self { events, model, command: Some(command), last: None }
    }

    /// The next item; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<ModelLoadProgress, CommandError>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl LoadStream {
    /// Notes an event of this load; returns what is worth passing on.
    fn note(&mut self, notice: Notice) -> Option<ModelLoadProgress> {
        let Notice::Event(event) = notice else { return None };
        let EventKind::LoadProgressed { progress } = &event.kind else { return None };
        if self.model.as_ref() != Some(&progress.model) {
            return None;
        }
        self.last = Some(progress.clone());
        // The last words are the command's.
        let is_last = matches!(progress.status, LoadStatus::Loaded | LoadStatus::Failed);
        (!is_last).then(|| progress.clone())
    }

    fn end(
        &mut self,
        outcome: Result<(), CommandError>,
    ) -> Result<ModelLoadProgress, CommandError> {
        self.command = None;
        outcome?;
        let last = self.last.take().filter(|last| last.status == LoadStatus::Loaded);
        // Without one it was served already.
        let served = self.model.take().map(|model| {
            let now = SystemTime::now();
            ModelLoadProgress::loading(model, 99, now).complete(now)
        });
        last.or(served).ok_or(CommandError::SupervisorEnded)
    }
}

impl Stream for LoadStream {
    type Item = Result<ModelLoadProgress, CommandError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(command) = &mut self.command else { return Poll::Ready(None) };
        let answer = command.as_mut().poll(context);
        // What happened before the answer was published before it.
        while let Poll::Ready(Some(notice)) = Pin::new(&mut self.events).poll_next(context) {
            if let Some(progress) = self.note(notice)
                && answer.is_pending()
            {
                return Poll::Ready(Some(Ok(progress)));
            }
        }
        match answer {
            Poll::Ready(outcome) => Poll::Ready(Some(self.end(outcome))),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests;
