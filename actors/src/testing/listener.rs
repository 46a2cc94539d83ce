//! The place of the root, taken by somebody who only writes down what it is told.

use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, DerivedActorRef, SupervisionEvent};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::domain::report::{GpuReport, HealthReport, LoaderReport};
use crate::message::messages;
use crate::process::ProcessNews;
use crate::testing::harness::in_time;

messages!(ProcessNews, HealthReport, LoaderReport, GpuReport);

/// Hears the reports of a child actor, and outlives it.
#[derive(Debug)]
pub struct Listener<R: ractor::Message> {
    actor: ActorRef<R>,
    heard: mpsc::UnboundedReceiver<R>,
}

impl<R: ractor::Message + Sync + std::fmt::Debug> Listener<R> {
    /// Begins to listen.
    ///
    /// # Panics
    ///
    /// When its actor cannot be started.
    pub async fn begin() -> Self {
        let (hears, heard) = mpsc::unbounded_channel();
        let ear = Ear(std::marker::PhantomData);
        let (actor, _) = Actor::spawn(None, ear, hears).await.expect("the listener starts");
        Self { actor, heard }
    }

    /// Where a child sends its reports.
    pub fn reports(&self) -> DerivedActorRef<R>
    where
        R: TryFrom<R>,
    {
        self.actor.get_derived()
    }

    /// The parent to link a child to.
    pub fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }

    /// The next report.
    ///
    /// # Panics
    ///
    /// When none comes.
    pub async fn next(&mut self) -> R {
        in_time(self.heard.recv()).await.expect("the listener has ended")
    }

    /// Waits for as long, in which no report may come.
    ///
    /// # Panics
    ///
    /// When one comes.
    pub async fn hears_nothing_for(&mut self, long: Duration) {
        let heard = timeout(long, self.heard.recv()).await;
        assert!(heard.is_err(), "heard {heard:?}");
    }
}

impl<R: ractor::Message> Drop for Listener<R> {
    fn drop(&mut self) {
        self.actor.stop(None);
    }
}

struct Ear<R>(std::marker::PhantomData<R>);

#[ractor::actor(message = R, state = mpsc::UnboundedSender<R>, arguments = mpsc::UnboundedSender<R>)]
impl<R: ractor::Message + Sync> Ear<R> {
    async fn pre_start(
        &self,
        _: ActorRef<R>,
        hears: mpsc::UnboundedSender<R>,
    ) -> Result<mpsc::UnboundedSender<R>, ActorProcessingErr> {
        Ok(hears)
    }

    async fn handle(
        &self,
        _: ActorRef<R>,
        report: R,
        hears: &mut mpsc::UnboundedSender<R>,
    ) -> Result<(), ActorProcessingErr> {
        // A test that has heard enough listens no more.
        drop(hears.send(report));
        Ok(())
    }

    /// By default an actor ends with its first child.
    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<R>,
        _: SupervisionEvent,
        _: &mut mpsc::UnboundedSender<R>,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}
