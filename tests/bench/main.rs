//! `cargo figures`: how fast and how small, measured against the stand-in, with supervisord beside
//! it. No figure is asserted.
//!
//!     cargo figures [--quick] [--markdown]
//!
//! The table goes to stdout, the same as JSON to `figures.json` in the target directory.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it shows what it measures")]

mod command;
mod embedded;
mod figure;
mod supervisord;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(word) =
        words.iter().find(|word| !["--quick", "--markdown"].contains(&word.as_str()))
    {
        return Err(format!("`{word}`? usage: cargo figures [--quick] [--markdown]").into());
    }
    let has = |wanted: &str| words.iter().any(|word| word == wanted);
    let [fake_vllm, vllmd] = siblings::built(["fake_vllm", "vllmd_under_test"])?;
    let (deaths, few, idle) = if has("--quick") { (20, 5, 5) } else { (200, 20, 30) };
    let plan = Plan {
        fake_vllm: fake_vllm.display().to_string(),
        vllmd: vllmd.display().to_string(),
        deaths,
        few,
        idle: Duration::from_secs(idle),
    };
    let figures = measure(&plan).await?;
    let shown = if has("--markdown") { figure::markdown } else { figure::table };
    println!("{}", shown(&figures));
    let file = target_directory().join("figures.json");
    std::fs::write(&file, format!("{:#}\n", figure::document(&figures)))?;
    eprintln!("as JSON: {}", file.display());
    Ok(())
}

async fn measure(plan: &Plan) -> Result<Vec<figure::Figure>, Box<dyn Error>> {
    let mut figures = Vec::new();
    eprintln!("deaths, {} of each victim …", plan.deaths);
    figures.extend(embedded::death_to_event(plan).await);
    figures.push(embedded::death_to_served(plan).await);
    eprintln!("stops …");
    figures.extend(embedded::stops(plan).await);
    eprintln!("questions and subscribers …");
    figures.push(embedded::questions(plan).await);
    figures.push(embedded::fan_out(plan).await);
    eprintln!("vllmd killed and idle …");
    figures.push(command::adoption(plan).await?);
    figures.push(command::kill_to_clean(plan).await?);
    figures.extend(command::idle(plan).await?);
    eprintln!("supervisord …");
    match supervisord::figures(plan).await {
        Ok(theirs) => figures.extend(theirs),
        Err(error) => println!("supervisord is left out: {error}"),
    }
    Ok(figures)
}

/// Where Cargo builds.
fn target_directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    target.unwrap_or_else(|| workspace.join("target"))
}
