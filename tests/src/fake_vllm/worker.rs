//! `VLLM::Worker`: holds the weights, and answers when the engine asks.

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tokio::time::Instant;

use super::child::{Orders, Role};
use super::link::{self, Answer, Ear, Mouth, Order};
use super::log::{self, Log};
use super::plan::{Plan, Quirk, Step};
use super::program::freeze;
use super::segment::{self, Segment};
use super::signals::StopSignals;
use super::transcript;

/// What it completes every prompt with, so many times.
const WORD_VARIABLE: &str = "FAKE_VLLM_WORD";

/// The directory of a stand-in for NVIDIA's driver.
const GPU_VARIABLE: &str = "FAKE_NVML";

/// What a worker has of its GPU once its weights are there.
const WEIGHTS_BYTES: u64 = 20 << 30;

/// A stop signal raises `SystemExit` at once, at any time (vLLM 0.32, `multiproc_executor.py`).
pub(super) async fn run(orders: Orders) -> ExitCode {
    let mut stops = StopSignals::listen();
    let worker = Worker::new(orders);
    tokio::select! {
        biased;
        _ = stops.next() => ExitCode::SUCCESS,
        code = worker.work() => code,
    }
}

struct Worker {
    plan: Plan,
    rank: u32,
    log: Log,
    ear: Ear,
    mouth: Mouth,
    segment: Segment,
}

impl Worker {
    fn new(orders: Orders) -> Self {
        let rank = if let Role::Worker { rank } = orders.role { rank } else { 0 };
        let name = orders.title().replace("VLLM::", "");
        let dist = format!("{:032x}", std::process::id());
        let log = Log::with(vec![
            ("worker", name),
            ("rank", rank.to_string()),
            ("world", orders.world_size.to_string()),
            ("model", orders.model),
            ("dist", dist),
        ]);
        if let Some(engine_segment) = &orders.engine_segment {
            segment::attach(engine_segment).ok();
        }
        let segment = Segment::create(orders.tracker_pipe).expect("/dev/shm can be written");
        let (ear, mouth) = link::to_starter().expect("stdin is the line to the engine");
        Self { plan: orders.plan, rank, log, ear, mouth, segment }
    }

    /// Where there is a stand-in for the driver, the weights are on the GPU of this worker's rank.
    fn hold_gpu_memory(&self) {
        if let Some(driver) = env::var_os(GPU_VARIABLE) {
            let held = fake_nvml::hold_memory(Path::new(&driver), self.rank, WEIGHTS_BYTES);
            held.expect("the driver's directory can be written");
        }
    }

    /// Until the engine is gone. While it loads it does not notice that: the death pipe is watched
    /// only afterwards.
    async fn work(mut self) -> ExitCode {
        self.log.print(transcript::WORKER_STARTS);
        self.plan.pass(Step::WeightsLoad).await;
        self.load_shards().await;
        self.hold_gpu_memory();
        self.log.print(transcript::WORKER_LOADED);
        self.mouth.say(&Answer::Loaded { segment: self.segment.path().to_owned() }).await;
        if let Some(Order::WarmUp) = self.ear.hear().await {
            tokio::time::sleep(self.plan.share_of_load_time(10)).await;
            self.log.print(transcript::WORKER_WARMS_UP);
            self.mouth.say(&Answer::Ready).await;
            self.serve().await
        } else {
            self.orphaned()
        }
    }

    async fn load_shards(&self) {
        let total = self.plan.shards;
        let pause = self.plan.share_of_load_time(20) / total.max(1);
        let started = Instant::now();
        for shard in 0..=total {
            if shard > 0 {
                tokio::time::sleep(pause).await;
            }
            if self.rank == 0 {
                log::progress(&shard_bar(shard, total, started.elapsed()));
            }
        }
        if self.rank == 0 {
            log::progress("");
        }
    }

    async fn serve(mut self) -> ExitCode {
        let dies_after = self.plan.worker_dies_after.filter(|_| self.rank == 0);
        let mut death = std::pin::pin!(after(dies_after));
        let mut hang = std::pin::pin!(after(self.plan.engine_hangs_after));
        loop {
            tokio::select! {
                biased;
                () = &mut death => {
                    kill_process(getpid(), Signal::KILL).ok();
                }
                () = &mut hang => freeze(),
                order = self.ear.hear() => match order {
                    None => return self.orphaned(),
                    Some(Order::WarmUp | Order::Describe) => {}
                    Some(Order::Complete { .. }) if self.plan.has(Quirk::DiesOnFirstRequest) => {
                        self.log.print(transcript::WORKER_RAISED);
                        return ExitCode::FAILURE;
                    }
                    Some(Order::Complete { number, tokens }) => {
                        self.plan.pass(Step::Answers).await;
                        let word = std::env::var(WORD_VARIABLE);
                        let text = word.as_deref().unwrap_or(" la").repeat(tokens as usize);
                        self.mouth.say(&Answer::Completed { number, text }).await;
                    }
                },
            }
        }
    }

    fn orphaned(&self) -> ExitCode {
        self.log.print(transcript::WORKER_ORPHANED);
        ExitCode::SUCCESS
    }
}

/// Waits for the time given, for ever when there is none. A delay of zero is over at the first
/// poll: tokio's timer would let a millisecond pass, in which a request can be answered.
pub(super) async fn after(delay: Option<Duration>) {
    match delay {
        Some(Duration::ZERO) => {}
        Some(delay) => tokio::time::sleep(delay).await,
        None => std::future::pending().await,
    }
}

/// One state of the bar, in the format of vLLM 0.32's `weight_utils.py`.
fn shard_bar(shard: u32, total: u32, elapsed: Duration) -> String {
    let percent = 100 * shard / total.max(1);
    let bar = format!("Loading safetensors checkpoint shards: {percent:3}% Completed");
    if shard == 0 {
        return format!("{bar} | 0/{total} [00:00<?, ?it/s]");
    }
    let rate = f64::from(shard) / elapsed.as_secs_f64().max(0.001);
    let clock = |seconds: u64| format!("{:02}:{:02}", seconds / 60, seconds % 60);
    let left = elapsed / shard * (total - shard);
    let (elapsed, left) = (clock(elapsed.as_secs()), clock(left.as_secs()));
    format!("{bar} | {shard}/{total} [{elapsed}<{left}, {rate:5.2}it/s]")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::shard_bar;

    #[test]
    fn the_bar_reads_like_that_of_the_real_one() {
        let bar = |shard, millis| shard_bar(shard, 5, Duration::from_millis(millis));
        let title = "Loading safetensors checkpoint shards:";
        assert_eq!(bar(0, 0), format!("{title}   0% Completed | 0/5 [00:00<?, ?it/s]"));
        assert_eq!(bar(2, 211), format!("{title}  40% Completed | 2/5 [00:00<00:00,  9.48it/s]"));
        assert_eq!(
            bar(5, 65_000),
            format!("{title} 100% Completed | 5/5 [01:05<00:00,  0.08it/s]")
        );
    }
}
