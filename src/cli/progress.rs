//! The progress bar that stands on a terminal while a model loads.

use std::io::{self, IsTerminal};
use std::time::{Duration, SystemTime};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Output, plain, render};
use crate::{LoadStatus, ModelLoadProgress};

const TEMPLATE: &str = "{bar:32} {percent:>3} %  {msg}  {elapsed}";

/// How often the elapsed time is drawn anew while nothing moves.
const TICK: Duration = Duration::from_secs(1);

/// A progress bar, or none where there is no terminal to show it. Clones are the same bar.
#[derive(Clone, Debug)]
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    /// The bar for this output; nothing stands on the screen yet.
    pub(super) fn for_output(output: Output) -> Self {
        if output == Output::Json || !io::stdout().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stdout());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        bar.finish_and_clear();
        Self(Some(bar))
    }

    /// Shows how far the load is at `now`, as far as there is something to show it on.
    pub(super) fn show(&self, load: &ModelLoadProgress, now: SystemTime) -> Shown {
        let Some(bar) = &self.0 else { return Shown::Nowhere };
        if matches!(load.status, LoadStatus::Loaded | LoadStatus::Failed) {
            self.hide();
            return Shown::Nowhere;
        }
        bar.set_message(plain::line(&render::load_phase(load)));
        if bar.is_finished() {
            bar.reset();
            bar.set_elapsed(now.duration_since(load.started_at).unwrap_or_default());
            bar.enable_steady_tick(TICK);
        }
        bar.set_position(load.percent.into());
        Shown::AsBar
    }

    /// Takes the bar off the screen.
    pub(super) fn hide(&self) {
        if let Some(bar) = &self.0
            && !bar.is_finished()
        {
            bar.disable_steady_tick();
            bar.finish_and_clear();
        }
    }

    /// Writes something else to the terminal, with the bar out of the way.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// Whether a load is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// As the bar.
    AsBar,
    /// Not at all: there is no bar, or the load is over.
    Nowhere,
}
