//! `cargo chaos`: many seeds, for long.
//!
//!     cargo chaos --seeds 20 --minutes 3
//!     cargo chaos --seed 17 --minutes 0.1

#![expect(clippy::print_stdout, reason = "it tells its reader what happens")]

use std::collections::BTreeSet;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use vllm_supervisor_tests::chaos::{Programs, run_seeds};
use vllm_supervisor_tests::siblings;

const USAGE: &str =
    "usage: cargo chaos [--seeds COUNT | --seed SEED] [--minutes MINUTES] [--jobs COUNT]";

/// What is asked for.
struct Wish {
    seeds: Vec<u64>,
    length: Duration,
    jobs: usize,
    /// Prints what happened also where nothing is broken.
    verbose: bool,
}

impl Wish {
    fn of_this_process() -> Result<Self, Box<dyn Error>> {
        let length = Duration::from_secs(180);
        let mut wish = Self { seeds: (1..=20).collect(), length, jobs: 2, verbose: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().ok_or(USAGE)?;
            match word.as_str() {
                "--seeds" => wish.seeds = (1..=value.parse()?).collect(),
                "--seed" => (wish.seeds, wish.verbose) = (vec![value.parse()?], true),
                "--minutes" => wish.length = Duration::from_secs_f64(value.parse::<f64>()? * 60.0),
                "--jobs" => wish.jobs = value.parse()?,
                _ => return Err(USAGE.into()),
            }
        }
        Ok(wish)
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let wish = Wish::of_this_process()?;
    let names = ["vllmd_under_test", "embedder_under_test", "fake_vllm"];
    // Copies: a build in the meantime would put others in their place.
    let directory = tempfile::tempdir()?;
    let mut copies = Vec::new();
    for built in siblings::built(names)? {
        let copy = directory.path().join(built.file_name().unwrap_or_default());
        std::fs::copy(&built, &copy)?;
        copies.push(copy);
    }
    let [vllmd, embedder, fake_vllm] = copies.try_into().map_err(|_| "three programs")?;
    let programs = Programs { vllmd, embedder, fake_vllm };
    let (mut unchecked, mut broken) = (BTreeSet::new(), Vec::new());
    let runs =
        run_seeds(wish.seeds, wish.length, wish.jobs, &programs, |seed, outcome| match outcome {
            Ok(report) => {
                println!("seed {seed}: {} faults, every invariant held", report.faults);
                if wish.verbose {
                    println!("{}", report.story);
                }
                unchecked.extend(report.unchecked);
            }
            Err(failure) => {
                println!("{failure}\nagain: cargo chaos --seed {seed}\n");
                broken.push(format!("seed {seed}: {}", failure.what));
            }
        });
    // Whoever has enough of it gets what was found so far, and nothing is left behind.
    tokio::select! {
        () = runs => {}
        _ = tokio::signal::ctrl_c() => println!("broken off"),
    }
    for what in unchecked {
        println!("not checked: {what}");
    }
    for what in &broken {
        println!("{what}");
    }
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
