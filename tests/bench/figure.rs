//! What was measured, and how it is shown.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// What samples are counted in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    /// Time.
    Seconds,
    /// Time; samples are seconds.
    Milliseconds,
    /// Time; samples are seconds.
    Microseconds,
    /// Memory; samples are KiB.
    Megabytes,
    /// A share of one processor; samples are parts of one.
    Percent,
    /// Just a number.
    Count,
}

impl Unit {
    fn scale(self) -> f64 {
        match self {
            Self::Seconds | Self::Count => 1.0,
            Self::Milliseconds => 1e3,
            Self::Microseconds => 1e6,
            Self::Megabytes => 1.0 / 1024.0,
            Self::Percent => 100.0,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "µs",
            Self::Megabytes => "MiB",
            Self::Percent => "%",
            Self::Count => "",
        }
    }
}

/// One row.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    what: String,
    unit: Unit,
    /// In order.
    samples: Vec<f64>,
    note: String,
}

impl Figure {
    pub(crate) fn of(what: impl Into<String>, unit: Unit, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { what: what.into(), unit, samples, note: String::new() }
    }

    pub(crate) fn of_times(what: impl Into<String>, unit: Unit, times: &[Duration]) -> Self {
        Self::of(what, unit, times.iter().map(Duration::as_secs_f64).collect())
    }

    /// With a remark on how it was measured, or why it was not.
    pub(crate) fn noting(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Half of the samples are not above it; in the unit of samples.
    pub(crate) fn median(&self) -> Option<f64> {
        self.percentile(50).map(|value| value / self.unit.scale())
    }

    /// The sample that so many percent of all are not above.
    fn percentile(&self, percent: usize) -> Option<f64> {
        let rank = (self.samples.len() * percent).div_ceil(100).saturating_sub(1);
        self.samples.get(rank).map(|sample| sample * self.unit.scale())
    }

    fn cells(&self) -> [String; 6] {
        let number = |value: Option<f64>| value.map_or("–".to_owned(), shown);
        [
            self.what.clone(),
            self.unit.name().to_owned(),
            self.samples.len().to_string(),
            number(self.percentile(50)),
            number(self.percentile(99)),
            self.note.clone(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what, "unit": self.unit.name(), "samples": self.samples.len(),
            "p50": self.percentile(50), "p99": self.percentile(99), "max": self.percentile(100),
            "note": self.note,
        })
    }
}

/// Three digits that mean something.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

const HEADS: [&str; 6] = ["what", "unit", "n", "p50", "p99", "remark"];

/// All rows for a terminal.
pub(crate) fn table(figures: &[Figure]) -> String {
    let rows: Vec<[String; 6]> = rows(figures);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; 6] = std::array::from_fn(|column| width(column).unwrap_or_default());
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            // Numbers stand to the right.
            if (2..5).contains(&column) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:width$}")
            }
        });
        writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end()).ok();
    }
    text
}

/// All rows for a README.
pub(crate) fn markdown(figures: &[Figure]) -> String {
    let mut text = String::new();
    for (at, row) in rows(figures).iter().enumerate() {
        writeln!(text, "| {} |", row.join(" | ")).ok();
        if at == 0 {
            writeln!(text, "|---|---|--:|--:|--:|---|").ok();
        }
    }
    text
}

/// All rows for a program.
pub(crate) fn document(figures: &[Figure]) -> Value {
    json!({ "figures": figures.iter().map(Figure::json).collect::<Vec<_>>() })
}

fn rows(figures: &[Figure]) -> Vec<[String; 6]> {
    let heads = HEADS.map(str::to_owned);
    std::iter::once(heads).chain(figures.iter().map(Figure::cells)).collect()
}
