//! SIGKILL of `vllmd` with `stop_on_exit: true`, in each phase.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tokio::time::{Instant, interval, timeout};
use vllm_supervisor_tests::fake_vllm::{Step, fake_vllm};
use vllm_supervisor_tests::real_vllm::RealVllm;

use super::{CLEAN, Place, Vllmd};
use crate::Plan;
use crate::figure::{Figure, Unit};

const PHASES: [&str; 4] = ["importing", "loading", "serving", "stopping"];

/// How often it is looked whether a phase has come.
const PAUSE: Duration = Duration::from_millis(20);

/// From SIGKILL to nothing alive, and what is left then. With `real`, of that one.
pub(crate) async fn killed(
    plan: &Plan,
    real: Option<&RealVllm>,
    words: &[String],
) -> io::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let wanted = |phase: &&str| words.is_empty() || words.iter().any(|word| word == phase);
    for phase in PHASES.into_iter().filter(wanted) {
        let (mut times, mut left) = (Vec::new(), BTreeSet::new());
        for _ in 0..plan.few {
            let place = match real {
                Some(real) => Place::of_the_real(plan, real)?,
                None => stand_in(plan, phase)?,
            };
            let mut vllmd = place.start()?;
            reach(phase, &place, &mut vllmd).await?;
            let segments = place.census.shared_memory();
            let killed = Instant::now();
            vllmd.kill().await?;
            match place.census.wait_until_empty(CLEAN).await {
                Ok(()) => times.push(killed.elapsed()),
                Err(living) => left.extend(living.into_iter().map(|it| it.title)),
            }
            left.extend(place.leftovers(&segments).await);
            eprintln!("killed while {phase}: {:?}, left: {left:?}", times.last());
        }
        let figure = Figure::of_times(
            format!("SIGKILL of vllmd while vLLM is {phase}, to nothing left"),
            Unit::Milliseconds,
            &times,
        );
        let slow = times.iter().filter(|time| **time > Duration::from_secs(2)).count();
        figures.push(figure.noting(format!("{slow} above 2 s; left: {left:?}")));
    }
    Ok(figures)
}

fn stand_in(plan: &Plan, phase: &str) -> io::Result<Place> {
    let quick = fake_vllm().loads_in(Duration::ZERO).leaves_stranger();
    // The gate is never opened.
    let fake = match phase {
        "importing" => quick.waits_at(Step::FrontImports, "/nonexistent/gate"),
        "loading" => quick.waits_at(Step::WeightsLoad, "/nonexistent/gate"),
        "stopping" => quick.ignores_sigterm(),
        _ => quick,
    };
    Place::of_the_stand_in(plan, "true", &fake)
}

/// Waits for the phase.
async fn reach(phase: &str, place: &Place, vllmd: &mut Vllmd) -> io::Result<()> {
    match phase {
        "importing" => place.has(vllmd, " serve ").await,
        "loading" => place.has(vllmd, "VLLM::Worker").await,
        _ => {
            vllmd.runs().await?;
            if phase == "stopping" {
                kill_process(vllmd.pid, Signal::TERM)?;
                vllmd.enters("stopping").await?;
            }
            Ok(())
        }
    }
}

impl Place {
    /// Waits for a process with these letters in its title.
    async fn has(&self, vllmd: &Vllmd, part: &str) -> io::Result<()> {
        let mut looks = interval(PAUSE);
        let there = async {
            while !self.census.processes().iter().any(|it| it.title.contains(part)) {
                looks.tick().await;
            }
        };
        Ok(timeout(vllmd.patience, there).await?)
    }

    /// Which of these segments, and which of vLLM's own files and directories, are left two seconds
    /// after the kill at the latest: the last to go is the guardian, and this outwaits it.
    async fn leftovers(&self, segments: &BTreeSet<PathBuf>) -> BTreeSet<String> {
        let mut looks = interval(PAUSE);
        let guardian = || {
            let all = vllm_supervisor_tests::process_table::processes();
            let (name, value) = self.census.variable();
            let ours = format!("{name}={value}");
            all.iter().any(|it| it.comm == "llm-guardian" && it.has_in_environment(&ours))
        };
        let gone = async {
            while guardian() {
                looks.tick().await;
            }
        };
        let mut left = BTreeSet::new();
        if timeout(CLEAN, gone).await.is_err() {
            left.insert("guardian".to_owned());
        }
        left.extend(segments.iter().filter(|it| it.exists()).map(|it| it.display().to_string()));
        let entries = fs::read_dir(self.directory.path()).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // Its configuration, its state, what a shell or Python keeps in a home.
        let known =
            |name: &String| name == "vllmd.yaml" || name == "state" || name.starts_with('.');
        left.extend(names.filter(|name| !known(name)));
        left
    }
}
