//! A supervisor in a process of its own, and what is heard of it.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::fault::Order;

/// A supervisor that may still run.
#[derive(Debug)]
pub(super) struct Supervisor {
    child: Child,
    pub(super) pid: Pid,
    /// Orders go here, where it takes any.
    stdin: Option<ChildStdin>,
    _reader: JoinSet<()>,
}

impl Supervisor {
    pub(super) fn start(mut command: Command, heard: &Heard) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let number = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = number.ok_or_else(|| io::Error::other("it has ended already"))?;
        heard.lock().begin_life();
        let mut reader = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            let heard = heard.clone();
            reader.spawn(async move {
                let mut lines = BufReader::new(stdout).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    heard.lock().note(&line);
                }
            });
        }
        let stdin = child.stdin.take();
        Ok(Self { child, pid, stdin, _reader: reader })
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end. The caller sets the deadline.
    pub(super) async fn end(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends a signal; one that has ended gets none.
    pub(super) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            kill_process(self.pid, signal).ok();
        }
    }

    /// Passes an order on; nothing can be said to one that has ended.
    pub(super) async fn order(&mut self, ticket: u64, order: Order) {
        if let Some(stdin) = &mut self.stdin {
            let line = format!("{ticket} {}\n", order.word());
            stdin.write_all(line.as_bytes()).await.ok();
        }
    }
}

/// What is heard of all supervisors of a run, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<Record>>);

impl Heard {
    pub(super) fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Heard`].
#[derive(Debug, Default)]
pub(super) struct Record {
    /// The state that was published last, and when; `None` before the first word of a supervisor.
    pub(super) state: Option<(Instant, String)>,
    /// Why it gave up last.
    pub(super) gave_up_for: Option<String>,
    /// The reason of an end that it should not have given up for.
    gave_up_too_soon: Option<String>,
    /// Whether the last launch was asked for, rather than a restart.
    asked_for: bool,
    /// The number of the event before; `None` at the beginning of a life.
    previous: Option<u64>,
    /// The highest number that any of them used.
    highest: u64,
    /// What was asked for in this life and is not answered yet.
    pub(super) pending: BTreeMap<u64, Order>,
    /// What should not have been heard.
    pub(super) wrong: Vec<String>,
    /// All that was heard, for the story.
    pub(super) lines: Vec<(Instant, String)>,
}

impl Record {
    fn begin_life(&mut self) {
        self.state = None;
        self.previous = None;
        self.gave_up_for = None;
        self.pending.clear();
    }

    pub(super) fn state(&self) -> Option<&str> {
        self.state.as_ref().map(|(_, state)| state.as_str())
    }

    /// Why it gave up, if it should have gone on: whoever asks for a launch is told at once of a
    /// taken port or a full disk; a restart waits until that has passed, as long as its limit allows.
    pub(super) fn gave_up_too_soon(&self) -> Option<&str> {
        self.gave_up_too_soon.as_deref()
    }

    fn note_end(&mut self, code: Option<&str>) {
        self.gave_up_for = code.map(str::to_owned);
        let passes = |code: &&str| match *code {
            "VLM-018" => true,
            "VLM-005" | "VLM-024" => self.asked_for,
            _ => false,
        };
        let too_soon = code.filter(|code| !passes(code)).map(str::to_owned);
        self.gave_up_too_soon = self.gave_up_too_soon.take().or(too_soon);
    }

    fn note(&mut self, line: &str) {
        let now = Instant::now();
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            self.wrong.push(format!("a line that is not JSON: {line}"));
            return;
        };
        match value["type"].as_str() {
            Some("answer") => self.note_answer(&value),
            Some("gap") => {
                let missed = value["missed"].as_u64().unwrap_or_default();
                self.previous = self.previous.map(|number| number + missed);
            }
            _ => self.note_event(now, &value),
        }
        if value["type"] != "load_progressed" {
            self.lines.push((now, line.to_owned()));
        }
    }

    fn note_event(&mut self, now: Instant, event: &Value) {
        let Some(number) = event["seq"].as_u64() else {
            self.wrong.push(format!("an event without a number: {event}"));
            return;
        };
        match self.previous {
            Some(previous) if number != previous + 1 => {
                self.wrong.push(format!("event {number} follows event {previous}"));
            }
            None if number <= self.highest => {
                self.wrong.push(format!("event {number} was there before: {}", self.highest));
            }
            Some(_) | None => {}
        }
        self.previous = Some(number);
        self.highest = self.highest.max(number);
        if let Some(to) = event["to"].as_str().filter(|_| event["type"] == "state_changed") {
            self.state = Some((now, to.to_owned()));
            if to == "starting" {
                self.asked_for = event["from"] != "crashed";
            }
            if to == "failed" {
                self.note_end(event["cause"]["code"].as_str());
            }
        }
    }

    fn note_answer(&mut self, answer: &Value) {
        let ticket = answer["ticket"].as_u64().unwrap_or_default();
        if self.pending.remove(&ticket).is_none() {
            self.wrong.push(format!("an answer that nobody waits for: {answer}"));
        }
    }
}
