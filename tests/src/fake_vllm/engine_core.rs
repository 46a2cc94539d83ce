//! `VLLM::EngineCore`: starts the workers, brings them up, and passes requests on to all of them.
//!
//! It does not notice when the API server dies: the real one waits for its next request for ever.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;

use super::child::{Orders, Role};
use super::crew::{Crew, Report};
use super::link::{self, Answer, Ear, Mouth, Order};
use super::log::Log;
use super::segment::{self, Segment};
use super::signals::StopSignals;
use super::transcript;

/// What tearing down costs before the workers are told: too long for the API server, which follows
/// its SIGTERM with SIGKILL.
const TEARDOWN: Duration = Duration::from_millis(150);
/// How long workers get between SIGTERM and SIGKILL; 4 s in the real one.
const WORKER_GRACE: Duration = Duration::from_millis(300);

pub(super) async fn run(orders: Orders) -> ExitCode {
    // While it starts, the real one only takes note of a stop signal; so does this.
    let mut engine = EngineCore::new(&orders, StopSignals::listen());
    engine.log.print(transcript::ENGINE_STARTS);
    for rank in 0..orders.world_size {
        let segment = Some(engine.segment.path().to_owned());
        let worker = Orders { engine_segment: segment, ..orders.for_role(Role::Worker { rank }) };
        engine.workers.hire(&worker);
    }
    if let Err(WorkerLost) = engine.bring_up().await {
        engine.workers.dismiss(WORKER_GRACE).await;
        engine.log.print(transcript::ENGINE_FAILED_TO_START);
        return ExitCode::FAILURE;
    }
    engine.serve().await
}

/// A worker died before all were ready.
struct WorkerLost;

struct EngineCore {
    log: Log,
    ear: Ear,
    mouth: Mouth,
    stops: StopSignals,
    workers: Crew,
    segment: Segment,
    /// For each request the workers that have answered.
    answers: BTreeMap<u64, usize>,
}

impl EngineCore {
    fn new(orders: &Orders, stops: StopSignals) -> Self {
        let (ear, mouth) = link::to_starter().expect("stdin is the line to the API server");
        let log = Log::with(vec![
            ("model", orders.model.clone()),
            ("served", orders.served_model.clone()),
            ("world", orders.world_size.to_string()),
        ]);
        let segment = Segment::create(orders.tracker_pipe).expect("/dev/shm can be written");
        let (workers, answers) = (Crew::new(), BTreeMap::new());
        Self { log, ear, mouth, stops, workers, segment, answers }
    }

    /// Until all workers are warm.
    async fn bring_up(&mut self) -> Result<(), WorkerLost> {
        self.hear_from_each_worker().await?;
        self.log.print(transcript::ENGINE_CACHES);
        self.workers.tell_all(Order::WarmUp).await;
        self.hear_from_each_worker().await?;
        self.log.print(transcript::ENGINE_READY);
        self.mouth.say(&Answer::Ready).await;
        Ok(())
    }

    async fn hear_from_each_worker(&mut self) -> Result<(), WorkerLost> {
        for _ in 0..self.workers.size() {
            match self.workers.next().await {
                Report::Answered(Answer::Loaded { segment }) => segment::attach(&segment).ok(),
                Report::Answered(_) => None,
                Report::Exited { .. } => return Err(WorkerLost),
            };
        }
        Ok(())
    }

    async fn serve(mut self) -> ExitCode {
        let mut api_server_lives = true;
        loop {
            tokio::select! {
                // A stop of which it took note while it started comes before all else.
                biased;
                signal = self.stops.next() => return self.shut_down(signal).await,
                report = self.workers.next() => match report {
                    Report::Answered(answer) => self.pass_on(answer).await,
                    Report::Exited { rank, status } => return self.worker_died(rank, status).await,
                },
                order = self.ear.hear(), if api_server_lives => match order {
                    Some(Order::Describe) => self.mouth.say(&Answer::Described).await,
                    Some(order) => self.workers.tell_all(order).await,
                    None => api_server_lives = false,
                },
            }
        }
    }

    /// A step is done when every worker has done its part.
    async fn pass_on(&mut self, answer: Answer) {
        if let Answer::Completed { number, .. } = &answer {
            let count = self.answers.entry(*number).or_default();
            *count += 1;
            if *count == self.workers.size() {
                self.answers.remove(number);
                self.mouth.say(&answer).await;
            }
        }
    }

    /// In order: the exit code tells the API server that this was no accident.
    async fn shut_down(mut self, signal: Signal) -> ExitCode {
        let name = if signal == Signal::INT { "SIGINT" } else { "SIGTERM" };
        self.log.print_with(transcript::ENGINE_TERMINATED, &[("signal", name.to_owned())]);
        tokio::time::sleep(TEARDOWN).await;
        self.workers.dismiss(WORKER_GRACE).await;
        ExitCode::SUCCESS
    }

    /// One worker less is the end of all. The API server is quick to follow when the worker left by
    /// itself; hence the two exit codes. (The real engine reports `None` for the worker's code when
    /// it has not read it yet, which is a matter of luck.)
    async fn worker_died(mut self, rank: usize, status: ExitStatus) -> ExitCode {
        self.workers.dismiss(WORKER_GRACE).await;
        let code = status.code().or(status.signal().map(|signal| -signal)).unwrap_or_default();
        let values = [("rank", rank.to_string()), ("status", code.to_string())];
        self.log.print_with(transcript::WORKER_DIED, &values);
        if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
