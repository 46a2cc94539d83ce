//! How long launches of a real vLLM take: by a shell's loop, by supervisord, and by `vllmd`, from
//! nothing or warm. All have the same vLLM, flags and environment, and they take turns, so that
//! whatever else the machine does falls on all of them.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use vllm_supervisor_tests::real_vllm::RealVllm;

use crate::Plan;
use crate::figure::Figure;
use crate::supervisord;

mod client;
mod contestant;
mod results;
mod switch;

use contestant::{Contestant, Running};
use results::{Measure, Results};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Whatever is waited for here comes sooner.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long vLLM is left alone before its memory is looked at.
const SETTLED: Duration = Duration::from_secs(3);

/// How vLLM is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Variant {
    /// As it is written.
    Eager,
    /// With torch.compile, whose results are there from before.
    Compile,
}

impl Variant {
    const ALL: [Self; 2] = [Self::Eager, Self::Compile];

    fn name(self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Compile => "compile",
        }
    }
}

/// What all contestants have in common.
struct Stage<'a> {
    plan: &'a Plan,
    /// Its command, if it takes part.
    supervisord: Option<PathBuf>,
    vllm: String,
    model: String,
    other_model: String,
    variant: Variant,
    /// What vLLM, Python and `vllmd` keep from one start to the next.
    kept: &'a TempDir,
}

impl<'a> Stage<'a> {
    fn new(plan: &'a Plan, real: &RealVllm, kept: &'a TempDir) -> Self {
        let text = |path: &Path| path.display().to_string();
        Self {
            plan,
            supervisord: None,
            vllm: text(&real.command),
            model: text(&real.tiny_model),
            other_model: text(&real.other_model),
            variant: Variant::Eager,
            kept,
        }
    }

    /// vLLM's arguments but for the model and what `vllmd` sets.
    fn arguments(&self) -> Vec<&'static str> {
        let is_wanted = |word: &&str| self.variant == Variant::Eager || *word != "--enforce-eager";
        RealVllm::quick_arguments().into_iter().filter(is_wanted).collect()
    }

    /// The whole command line, with the flags that `vllmd` gives.
    fn command_line(&self, model: &str, port: u16) -> String {
        format!(
            "{} serve {model} --host 127.0.0.1 --port {port} --tensor-parallel-size 1 \
             --pipeline-parallel-size 1 --gpu-memory-utilization 0.9 {}",
            self.vllm,
            self.arguments().join(" ")
        )
    }

    /// The environment but for the mark of a census.
    fn environment(&self) -> Outcome<Vec<(String, String)>> {
        let mut environment: Vec<(String, String)> = RealVllm::quick_environment()
            .into_iter()
            // So that vLLM's processes keep the mark of their census in sight.
            .chain([("SPT_NOENV", "1"), ("VLLM_NO_USAGE_STATS", "1")])
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        for (name, directory) in [
            ("HOME", "home"),
            ("TMPDIR", "tmp"),
            ("XDG_CACHE_HOME", "cache"),
            ("VLLM_CACHE_ROOT", "vllm"),
            ("TORCHINDUCTOR_CACHE_DIR", "inductor"),
        ] {
            let directory = self.kept.path().join(directory);
            fs::create_dir_all(&directory)?;
            environment.push((name.to_owned(), directory.display().to_string()));
        }
        let programs = Path::new(&self.vllm).parent().unwrap_or(Path::new("/")).display();
        let path = std::env::var("PATH").unwrap_or_default();
        environment.push(("PATH".to_owned(), format!("{programs}:{path}")));
        Ok(environment)
    }

    /// Starts that are not measured: nobody is to pay for a cold disk or the first compilation, and
    /// a warm launch has learnt what it can.
    async fn rehearse(&self, contestants: &[Contestant]) -> Outcome<()> {
        eprintln!("{}: a rehearsal of plain …", self.variant.name());
        let mut running = Running::start(self, Contestant::Plain)?;
        running.client.completes(&self.model).await?;
        running.stop().await?;
        running.run(&self.other_model)?;
        running.client.completes(&self.other_model).await?;
        running.end().await?;
        if contestants.contains(&Contestant::Warm) {
            eprintln!("{}: a rehearsal of warm …", self.variant.name());
            let mut running = Running::start(self, Contestant::Warm)?;
            running.serves().await?;
            running.completes_after_a_death().await?;
            running.stop().await?;
            switch::by_handle(&running).await?;
            running.end().await?;
        }
        Ok(())
    }

    /// Everything of one contestant, once.
    async fn go_through(&self, contestant: Contestant, results: &mut Results) -> Outcome<()> {
        let mut note = |measure, value| results.note(self.variant, measure, contestant, value);
        let mut running = Running::start(self, contestant)?;
        note(Measure::FirstStart, running.serves().await?.as_secs_f64());
        running.client.completes(&self.model).await?;
        tokio::time::sleep_until(tokio::time::Instant::now() + SETTLED).await;
        note(Measure::Memory, running.memory()?);
        let (elapsed, delay) = running.completes_after_a_death().await?;
        note(Measure::KillToServed, elapsed.as_secs_f64());
        if let Some(delay) = delay {
            note(Measure::KillToServedLessDelay, elapsed.saturating_sub(delay).as_secs_f64());
        }
        let switched = if contestant.is_vllmd() {
            running.stop().await?;
            switch::by_handle(&running).await?
        } else {
            switch::by_hand(&mut running).await?
        };
        note(Measure::Switch, switched.as_secs_f64());
        running.end().await
    }
}

/// What the words choose, each so many times.
pub(crate) async fn figures(
    plan: &Plan,
    real: &RealVllm,
    times: usize,
    words: &[String],
) -> Outcome<Vec<Figure>> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // What runs is ended when the measuring is dropped.
    tokio::select! {
        figures = measure(plan, real, times, words) => figures,
        _ = interrupt.recv() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
    }
}

async fn measure(
    plan: &Plan,
    real: &RealVllm,
    times: usize,
    words: &[String],
) -> Outcome<Vec<Figure>> {
    let variants = chosen(words, Variant::ALL, Variant::name);
    let mut contestants = chosen(words, Contestant::ALL, Contestant::name);
    let is_known = |word: &&String| {
        let names = Variant::ALL.map(Variant::name).into_iter();
        names.chain(Contestant::ALL.map(Contestant::name)).any(|name| name == word.as_str())
    };
    if let Some(unknown) = words.iter().find(|word| !is_known(word)) {
        return Err(format!("`{unknown}` is neither a contestant nor a variant").into());
    }
    let kept = tempfile::tempdir()?;
    let mut stage = Stage::new(plan, real, &kept);
    if contestants.contains(&Contestant::Supervisord) {
        match supervisord::installed().await {
            Ok(command) => stage.supervisord = Some(command),
            Err(error) => {
                println!("supervisord is left out: {error}");
                contestants.retain(|it| *it != Contestant::Supervisord);
            }
        }
    }
    let mut results = Results::default();
    for variant in variants {
        stage.variant = variant;
        stage.rehearse(&contestants).await?;
        for round in 1..=times {
            for contestant in &contestants {
                eprintln!("{}, {round} of {times}: {} …", variant.name(), contestant.name());
                if let Err(error) = stage.go_through(*contestant, &mut results).await {
                    eprintln!("came to nothing: {error}");
                    results.note_failure(variant, *contestant, &error.to_string());
                }
            }
        }
    }
    Ok(results.figures())
}

/// Those that the words name; all, if they name none.
fn chosen<T: Copy, const N: usize>(
    words: &[String],
    all: [T; N],
    name: impl Fn(T) -> &'static str,
) -> Vec<T> {
    let is_named = |it: &T| words.iter().any(|word| word == name(*it));
    let named: Vec<T> = all.into_iter().filter(is_named).collect();
    if named.is_empty() { all.to_vec() } else { named }
}
