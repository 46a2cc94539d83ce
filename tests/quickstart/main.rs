//! From nothing to a supervised vLLM: `cargo quickstart`.
//!
//! It needs neither a GPU nor a vLLM: without `--vllm PATH`, and without a `vllm` on the PATH, it
//! installs one for the CPU below the target directory (6 GB, once). What a program of yours would
//! do is in `main`; the scenery (installing, killing, counting processes) is in `scenery.rs`.

#![expect(clippy::print_stdout, reason = "it tells its reader what happens")]
#![expect(clippy::disallowed_methods, reason = "a program may spawn tasks; our actors may not")]

mod scenery;

use std::error::Error;

use scenery::Scenery;
use vllm_supervisor::config::ExitPolicy;
use vllm_supervisor::{EventKind, EventStream, Notice, ServiceState, Supervisor};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let scenery = Scenery::set()?;

    // A supervisor. Everything but the model has a default. A program that has a configuration
    // file loads it with `config::Resolved::load`, and passes it on with `.config(…)`.
    let supervisor = Supervisor::builder()
        .model(scenery.model())
        .port(scenery.port())
        .vllm_binary([scenery.vllm()])
        .extra_args(["--enforce-eager", "--max-model-len", "512"])
        .env("HF_HUB_OFFLINE", "1")
        .env("VLLM_CPU_KVCACHE_SPACE", "1")
        .env(scenery.marker().0, scenery.marker().1)
        // A killed vLLM leaves a small file (`vllm_dist_*`) in its temporary directory.
        .env("TMPDIR", scenery.state_dir().display().to_string())
        .state_dir(scenery.state_dir())
        // What it learns of vLLM is there for the next time.
        .cache_dir(scenery.cache_dir())
        // Nothing of vLLM survives this program. By default vLLM would live on, and the next
        // supervisor with the same state directory would adopt it.
        .on_exit(ExitPolicy::Stop)
        .spawn()
        .await?;

    // Whatever happens to the service is an event. Subscribe before you start, and you see all.
    let printer = tokio::spawn(print(supervisor.subscribe()));

    // Returns when the model is served, or with the cause why it cannot be.
    supervisor.start().await?;
    scenery.complete(supervisor.base_url()).await?;

    // Kill one of vLLM's processes, the one that holds the model, twice. vLLM itself would end with
    // exit status 0, and stay down. From its first launch it has been learnt what it imports: it is
    // forked from a process that has imported it.
    let mut recoveries = Vec::new();
    for _ in 0..2 {
        let mut present = supervisor.watch();
        let killed_at = scenery::kill_the_worker(present.borrow().pid)?;
        present.wait_for(|now| now.state == ServiceState::Crashed).await?;
        let noticed_after = killed_at.elapsed();

        // Returns when the model is served again. It answers from the state as last known, so a
        // request that comes between a death and its notice still fails, and is to be tried again.
        supervisor.ensure_healthy(None).await?;
        recoveries.push((noticed_after, killed_at.elapsed()));
        scenery.complete(supervisor.base_url()).await?;
    }

    // Returns when nothing of vLLM is alive.
    supervisor.stop().await?;
    for restart in supervisor.history().await {
        println!("history: incarnation {} ended: {}", restart.incarnation, restart.cause);
    }
    supervisor.shutdown().await;
    printer.await?;
    scenery.nothing_is_left().await?;
    println!();
    for (noticed, recovered) in recoveries {
        let (noticed, recovered) = (noticed.as_secs_f64(), recovered.as_secs_f64());
        println!("killed: noticed after {noticed:.2} s, served again after {recovered:.1} s");
    }
    println!("nothing is left");
    Ok(())
}

/// Prints every event until the supervisor ends.
async fn print(mut events: EventStream) {
    while let Some(notice) = events.next().await {
        match notice {
            Notice::Event(event) => match &event.kind {
                EventKind::StateChanged { from, to, cause: None } => println!("{from} -> {to}"),
                EventKind::StateChanged { from, to, cause: Some(cause) } => {
                    println!("{from} -> {to}: {cause}\n  remedy: {}", cause.remedy());
                }
                EventKind::LoadProgressed { progress } => {
                    println!("  {:>3} % {:?}", progress.percent, progress.status);
                }
                EventKind::LaunchTimed { launch, phases } => {
                    println!("  launched {} in {:.1?}", launch.as_str(), phases.total());
                }
                EventKind::RestartScheduled { attempt, delay, .. } => {
                    println!("  restart {attempt} in {delay:?}");
                }
                // There are more kinds, and there will be others.
                _ => {}
            },
            // A subscriber that is too slow is told so, rather than left in the dark.
            Notice::Gap { missed } => println!("  ({missed} events were missed)"),
        }
    }
}
