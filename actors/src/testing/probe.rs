//! A probe that finds what a test says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::domain::health::{Check, HealthFailure, Healthy, InHand};
use crate::domain::liveness::{Pulse, Trial};
use crate::domain::spec::ModelId;
use crate::ports::{Pending, Probe};

const URL: &str = "http://scripted.invalid/health";

/// A [`Probe`] that asks nobody. Until told otherwise it finds nobody there, at once.
#[derive(Debug, Default)]
pub struct ScriptedProbe {
    script: Arc<Mutex<Script>>,
    questions: watch::Sender<u32>,
}

#[derive(Debug, Default)]
struct Script {
    finding: Finding,
    /// Questions that are to panic.
    panics: u32,
    delay: Duration,
    in_hand: Option<InHand>,
    counters: Counters,
    asked: Vec<Instant>,
    /// What is made of the fixed prompt.
    completion: Option<String>,
    pulse: Option<Pulse>,
    /// What comes of asking for a token, and how often it was.
    trial: Option<Trial>,
    trials: u32,
    under_way: u32,
    most_under_way: u32,
}

/// Whether the counters can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Counters {
    #[default]
    Readable,
    Unreadable,
}

/// What it finds.
#[derive(Clone, Debug, Default)]
enum Finding {
    #[default]
    Nobody,
    /// Whatever it is asked for is served.
    Everything,
    Only(Vec<ModelId>),
}

impl ScriptedProbe {
    /// From now on every model that it is asked for is served.
    pub fn serve(&self) {
        self.script().finding = Finding::Everything;
    }

    /// From now on these models are served, and no other.
    pub fn serve_only(&self, models: &[ModelId]) {
        self.script().finding = Finding::Only(models.to_vec());
    }

    /// From now on the fixed prompt is completed so; `None`, as at first: it is not.
    pub fn completes(&self, text: Option<&str>) {
        self.script().completion = text.map(str::to_owned);
    }

    /// From now on the counters say this; `None`, as at first: there are none.
    pub fn beats(&self, pulse: Option<Pulse>) {
        self.script().pulse = pulse;
    }

    /// From now on this comes of asking for a token; at first none can be had of this model.
    pub fn tries(&self, trial: Trial) {
        self.script().trial = Some(trial);
    }

    /// How often it was asked for a token.
    pub fn trials(&self) -> u32 {
        self.script().trials
    }

    /// From now on the server has as much in hand; `None`, as at first: it does not say.
    pub fn has_in_hand(&self, in_hand: Option<InHand>) {
        let mut script = self.script();
        script.in_hand = in_hand;
        script.counters = Counters::Readable;
    }

    /// From now on nobody can read what the server has in hand.
    pub fn hides_its_counters(&self) {
        self.script().counters = Counters::Unreadable;
    }

    /// From now on nobody answers.
    pub fn fall_silent(&self) {
        self.script().finding = Finding::Nobody;
    }

    /// As many of the next questions panic instead of being answered.
    pub fn panic_next(&self, questions: u32) {
        self.script().panics = questions;
    }

    /// From now on an answer takes this long, and tells what is true when it comes.
    pub fn delay(&self, delay: Duration) {
        self.script().delay = delay;
    }

    /// When it was asked, in order.
    pub fn asked(&self) -> Vec<Instant> {
        self.script().asked.clone()
    }

    /// How many questions have been under way at the same time, at most.
    pub fn most_under_way(&self) -> u32 {
        self.script().most_under_way
    }

    /// Resolves once it has been asked this many times.
    pub async fn asked_times(&self, times: u32) {
        let mut questions = self.questions.subscribe();
        // The sender is ours, so it cannot be gone.
        drop(questions.wait_for(|asked| *asked >= times).await);
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        open(&self.script)
    }
}

impl Probe for ScriptedProbe {
    fn check(&self, name: &str) -> Pending<'static, Check> {
        let question = Question::begin(&self.script);
        self.questions.send_modify(|asked| *asked += 1);
        let (delay, name) = (self.script().delay, name.to_owned());
        Box::pin(async move {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            assert!(!question.panics(), "the question was scripted to panic");
            let finding = open(&question.0).finding.clone();
            finding.check(&name, delay)
        })
    }

    fn complete(&self, _: &str) -> Pending<'static, Option<String>> {
        Box::pin(std::future::ready(self.script().completion.clone()))
    }

    fn pulse(&self) -> Pending<'static, Option<Pulse>> {
        Box::pin(std::future::ready(self.script().pulse))
    }

    fn try_token(&self, _: &str) -> Pending<'static, Trial> {
        let mut script = self.script();
        script.trials += 1;
        Box::pin(std::future::ready(script.trial.unwrap_or(Trial::Unknown)))
    }

    fn in_hand(&self) -> Pending<'static, Result<Option<InHand>, HealthFailure>> {
        let script = self.script();
        let answer = match script.counters {
            Counters::Readable => Ok(script.in_hand),
            Counters::Unreadable => Err(unreachable()),
        };
        Box::pin(std::future::ready(answer))
    }
}

fn open(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A question under way, answered or abandoned when dropped.
struct Question(Arc<Mutex<Script>>);

impl Question {
    fn begin(script: &Arc<Mutex<Script>>) -> Self {
        let mut book = open(script);
        book.asked.push(Instant::now());
        book.under_way += 1;
        book.most_under_way = book.most_under_way.max(book.under_way);
        Self(Arc::clone(script))
    }

    /// Whether this is one of those that are to panic.
    fn panics(&self) -> bool {
        let mut script = open(&self.0);
        let left = script.panics.checked_sub(1);
        script.panics = left.unwrap_or_default();
        left.is_some()
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        open(&self.0).under_way -= 1;
    }
}

impl Finding {
    fn check(self, name: &str, latency: Duration) -> Check {
        let listed = match self {
            Self::Nobody => return Err(unreachable()),
            Self::Everything => vec![name.to_owned()],
            Self::Only(models) => models.iter().map(ToString::to_string).collect(),
        };
        let wanted = name.to_owned();
        if listed.contains(&wanted) {
            Ok(Healthy { latency, models: listed })
        } else {
            Err(HealthFailure::ModelMissing { wanted, listed })
        }
    }
}

fn unreachable() -> HealthFailure {
    HealthFailure::Unreachable { url: URL.to_owned(), reason: "nobody is there".to_owned() }
}
