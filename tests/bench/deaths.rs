//! The table of deaths, against the stand-in or a real vLLM.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use vllm_supervisor::config::{Config, LaunchPolicy};
use vllm_supervisor_tests::deaths::{self, Cell, Outcome, Phase, Row};
use vllm_supervisor_tests::scenario::{Scenario, Server, Victim};

use crate::figure::{Figure, Unit};

/// Cells of the stand-in at a time; most of what they do is to wait out the backoff.
const AT_ONCE: usize = 4;

/// What became of a cell; `None` if it is not as it must be, which was said on stderr.
type Seen = (Cell, Option<Row>);

/// Every cell against the stand-in.
pub(crate) async fn of_the_stand_in(fake_vllm: &str) -> Vec<Seen> {
    let (mut waiting, mut underway) = (Cell::all().into_iter(), JoinSet::new());
    let mut seen = Vec::new();
    loop {
        while underway.len() < AT_ONCE
            && let Some(cell) = waiting.next()
        {
            let fake_vllm = fake_vllm.to_owned();
            underway
                .spawn(alone(cell, async move { deaths::of_the_stand_in(&fake_vllm, cell).await }));
        }
        match underway.join_next().await {
            None => return seen,
            Some(Ok(one)) => seen.push(one),
            Some(Err(error)) => eprintln!("{error}"),
        }
    }
}

/// As many cells against a real one as there is time for, whose names have one of these words.
pub(crate) async fn of_the_real(
    server: Server,
    launch: LaunchPolicy,
    time: Duration,
    words: &[String],
) -> Vec<Seen> {
    let began = Instant::now();
    let mut scenario = None;
    let mut seen = Vec::new();
    let is_wanted = |cell: &Cell| {
        let name = cell.to_string();
        let is_possible = launch == LaunchPolicy::Cold
            || cell.victim != Victim::Helper && cell.phase != Phase::Importing;
        is_possible && (words.is_empty() || words.iter().any(|word| name.contains(word.as_str())))
    };
    for cell in Cell::all().into_iter().filter(is_wanted) {
        if began.elapsed() >= time {
            break;
        }
        let present = if let Some(present) = scenario.take() {
            present
        } else {
            let configure = |config: &mut Config| {
                deaths::without_a_cap(config);
                config.lifecycle.launch = launch;
            };
            // Beside a helper it is a shell that starts vLLM, and nothing can be forked.
            let server = match launch {
                LaunchPolicy::Cold => server.clone().with_helper(),
                _ => server.clone(),
            };
            Arc::new(Scenario::configure(server, configure).await)
        };
        let theirs = Arc::clone(&present);
        let gate = present.state_dir().join("gate");
        let one = alone(cell, async move { deaths::go_through(&theirs, cell, &gate).await }).await;
        eprintln!("{}", line(&one));
        // After a failure with another supervisor, and nothing of this one.
        if one.1.is_some() {
            scenario = Some(present);
        }
        seen.push(one);
    }
    if let Some(scenario) = scenario.and_then(Arc::into_inner) {
        scenario.end().await;
    }
    seen
}

/// In a task of its own: the table goes on when a cell fails.
async fn alone(cell: Cell, row: impl Future<Output = Row> + Send + 'static) -> Seen {
    let mut task = JoinSet::from_iter([row]);
    (cell, task.join_next().await.and_then(Result::ok))
}

fn line((cell, row): &Seen) -> String {
    let Some(row) = row else { return format!("{cell}: NOT as it must be") };
    let what = match cell.outcome() {
        Outcome::Crash => "cleared and served again",
        Outcome::GoesOn => "serves on without it, and leaves nothing",
        Outcome::Survives => "lives and serves on, and leaves nothing",
    };
    let ms = |time: Option<Duration>| {
        time.map_or("–".to_owned(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3))
    };
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let (ended, told) = (ms(row.ended), ms(row.told));
    let (cleared, served) = (seconds(row.cleared), seconds(row.served));
    format!("{cell}: ended {ended}, told {told}, gone {cleared}, served {served}: {what}")
}

/// The table, and what it says as a whole.
pub(crate) fn shown(seen: &[Seen]) -> (String, Vec<Figure>) {
    let table: Vec<String> = seen.iter().map(line).collect();
    let rows: Vec<&Row> = seen.iter().filter_map(|(_, row)| row.as_ref()).collect();
    let told: Vec<Duration> = rows.iter().filter_map(|row| row.told).collect();
    let from_end = |row: &&Row| Some(row.told?.saturating_sub(row.ended?));
    let late: Vec<Duration> = rows.iter().filter_map(from_end).collect();
    let gone: Vec<Duration> = rows.iter().map(|row| row.cleared).collect();
    let kept = format!("{} of {} cells are as they must be", rows.len(), seen.len());
    let figures = vec![
        Figure::of_times("a death to its event, all cells", Unit::Milliseconds, &told).noting(kept),
        Figure::of_times("of it from the victim's end", Unit::Milliseconds, &late),
        Figure::of_times("a death to nothing left, all cells", Unit::Milliseconds, &gone),
    ];
    (table.join("\n"), figures)
}
