//! Ten seeds of chaos, two at a time; one of them with `VLLMD_CHAOS_SEED=…`. `cargo chaos` is the
//! long form.

use std::collections::BTreeSet;
use std::time::Duration;

use vllm_supervisor_tests::chaos::{Programs, run_seeds};

/// The seeds of every day.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=10;

/// How long faults come; recovery and end are not counted.
const LENGTH: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_the_invariants_hold() {
    let programs = Programs {
        vllmd: env!("CARGO_BIN_EXE_vllmd_under_test").into(),
        embedder: env!("CARGO_BIN_EXE_embedder_under_test").into(),
        fake_vllm: env!("CARGO_BIN_EXE_fake_vllm").into(),
    };
    let wanted: Option<u64> =
        std::env::var("VLLMD_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = wanted.map_or_else(|| SEEDS.collect(), |seed| vec![seed]);
    let (mut unchecked, mut broken) = (BTreeSet::new(), Vec::new());
    run_seeds(seeds, LENGTH, 2, &programs, |seed, outcome| match outcome {
        Ok(report) => {
            println!("seed {seed}: {} faults, every invariant held", report.faults);
            if wanted.is_some() {
                println!("{}", report.story);
            }
            unchecked.extend(report.unchecked);
        }
        Err(failure) => {
            println!("{failure}\nagain: VLLMD_CHAOS_SEED={seed}\n");
            broken.push(format!("seed {seed}: {}", failure.what));
        }
    })
    .await;
    for what in unchecked {
        println!("not checked: {what}");
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
