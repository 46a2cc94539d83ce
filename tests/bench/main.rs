//! `cargo figures`: how fast and how small, measured against the stand-in, with supervisord beside
//! it. No figure is asserted.
//!
//!     cargo figures [--quick] [--markdown] [--times N] [NAME...]
//!     cargo figures --deaths|--killed [--real] [--warm] [--minutes N] [--times N] [WORD...]
//!     cargo figures --launches [--quick] [--markdown] [--times N] [WORD...]
//!     cargo figures --endurance [--markdown] [--times N]
//!     cargo figures --load [--markdown] [--minutes N]
//!
//! Names are `events`, `served`, `stops`, `questions`, `vllmd`, `idle` and `supervisord`.
//! `--deaths` puts vLLM through every death that there is, `--killed` kills `vllmd` in every phase;
//! with `--real` it is a real vLLM, which takes minutes (with `--warm` it is launched warm), and words
//! choose among cells or phases. `--launches` has a real vLLM launched by a shell's loop, by supervisord,
//! and by `vllmd`, from nothing and warm, five times each (`--quick`: three), which takes two hours;
//! words choose among `plain`, `supervisord`, `cold` and `warm`, and among `eager` and `compile`.
//! `--endurance` has the worker of a real vLLM killed a hundred times, and its model switched as often.
//! `--load` gives one more to do than it can, for an hour, and counts what is taken for a failure.
//!
//! The table goes to stdout, the same as JSON to `figures.json` in the target directory.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it shows what it measures")]

mod command;
mod deaths;
mod embedded;
mod endurance;
mod figure;
mod launches;
mod load;
mod supervisord;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vllm_supervisor::config::LaunchPolicy;
use vllm_supervisor_tests::real_vllm::{RealVllm, Unavailable};
use vllm_supervisor_tests::scenario::Server;
use vllm_supervisor_tests::siblings;

/// How much is measured, and with what.
struct Plan {
    fake_vllm: String,
    vllmd: String,
    /// Deaths of each victim.
    deaths: usize,
    /// Repetitions of what takes seconds.
    few: usize,
    /// How long nothing happens while the idle are watched.
    idle: Duration,
}

/// What was asked for.
#[derive(Default)]
struct Wish {
    flags: Vec<String>,
    minutes: Option<u64>,
    times: Option<usize>,
    words: Vec<String>,
}

const USAGE: &str = "usage: cargo figures [--quick] [--markdown] \
                     [--deaths|--killed|--launches|--endurance|--load] [--real] [--warm] [--minutes N] [--times N] [WORD...]";

impl Wish {
    /// None if it is only to say how it is used.
    fn of_this_process() -> Result<Option<Self>, Box<dyn Error>> {
        let mut wish = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--minutes" => wish.minutes = Some(words.next().ok_or(USAGE)?.parse()?),
                "--times" => wish.times = Some(words.next().ok_or(USAGE)?.parse()?),
                "--quick" | "--markdown" | "--deaths" | "--killed" | "--launches"
                | "--endurance" | "--load" | "--real" | "--warm" => wish.flags.push(word),
                _ if word.starts_with('-') => return Err(format!("`{word}`? {USAGE}").into()),
                _ => wish.words.push(word),
            }
        }
        Ok(Some(wish))
    }

    /// How long what has no end of its own may take.
    fn duration(&self) -> Duration {
        Duration::from_secs(60 * self.minutes.unwrap_or(60))
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|it| it == flag)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Some(wish) = Wish::of_this_process()? else {
        println!("{USAGE}");
        return Ok(());
    };
    let [fake_vllm, vllmd] = siblings::built(["fake_vllm", "vllmd_under_test"])?;
    let (deaths, few, idle) = if wish.has("--quick") { (20, 5, 5) } else { (200, 20, 60) };
    let plan = Plan {
        fake_vllm: fake_vllm.display().to_string(),
        vllmd: vllmd.display().to_string(),
        deaths: wish.times.unwrap_or(deaths),
        few: wish.times.unwrap_or(few),
        idle: Duration::from_secs(idle),
    };
    let is_of_real =
        ["--real", "--launches", "--endurance", "--load"].iter().any(|flag| wish.has(flag));
    let real = if is_of_real {
        Some(RealVllm::installed().map_err(|Unavailable(reason)| reason)?)
    } else {
        None
    };
    let figures = match real {
        Some(real) if wish.has("--launches") => {
            let times = wish.times.unwrap_or(if wish.has("--quick") { 3 } else { 5 });
            launches::figures(&plan, &real, times, &wish.words).await?
        }
        Some(real) if wish.has("--endurance") => {
            endurance::figures(Server::real(real), wish.times.unwrap_or(100)).await
        }
        Some(real) if wish.has("--load") => {
            load::figures(Server::real(real), wish.duration()).await
        }
        real if wish.has("--deaths") => of_deaths(&plan, real, &wish).await,
        real if wish.has("--killed") => command::killed(&plan, real.as_ref(), &wish.words).await?,
        _ => measure(&plan, &wish.words).await?,
    };
    let shown = if wish.has("--markdown") { figure::markdown } else { figure::table };
    println!("{}", shown(&figures));
    let file = target_directory().join("figures.json");
    std::fs::write(&file, format!("{:#}\n", figure::document(&figures)))?;
    eprintln!("as JSON: {}", file.display());
    Ok(())
}

/// The table of deaths is shown at once.
async fn of_deaths(plan: &Plan, real: Option<RealVllm>, wish: &Wish) -> Vec<figure::Figure> {
    let seen = match real {
        Some(real) => {
            let launch = if wish.has("--warm") { LaunchPolicy::Warm } else { LaunchPolicy::Cold };
            deaths::of_the_real(Server::real(real), launch, wish.duration(), &wish.words).await
        }
        None => deaths::of_the_stand_in(&plan.fake_vllm).await,
    };
    let (table, figures) = deaths::shown(&seen);
    println!("{table}\n");
    figures
}

/// What the words name; everything without any.
async fn measure(plan: &Plan, words: &[String]) -> Result<Vec<figure::Figure>, Box<dyn Error>> {
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    let mut figures = Vec::new();
    if wanted("events") {
        eprintln!("events, {} deaths of each victim …", plan.deaths);
        figures.extend(embedded::death_to_event(plan).await);
    }
    if wanted("served") {
        figures.push(embedded::death_to_served(plan).await);
    }
    if wanted("stops") {
        eprintln!("stops …");
        figures.extend(embedded::stops(plan).await);
    }
    if wanted("questions") {
        eprintln!("questions and subscribers …");
        figures.push(embedded::questions(plan).await);
        figures.push(embedded::fan_out(plan).await);
    }
    if wanted("vllmd") {
        eprintln!("vllmd killed …");
        figures.push(command::adoption(plan).await?);
        figures.push(command::kill_to_clean(plan).await?);
    }
    if wanted("idle") {
        eprintln!("vllmd idle …");
        figures.extend(command::idle(plan).await?);
    }
    if wanted("supervisord") {
        eprintln!("supervisord …");
        match supervisord::figures(plan).await {
            Ok(theirs) => figures.extend(theirs),
            Err(error) => println!("supervisord is left out: {error}"),
        }
    }
    Ok(figures)
}

/// Where Cargo builds.
fn target_directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    target.unwrap_or_else(|| workspace.join("target"))
}
