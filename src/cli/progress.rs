//! The progress bar that stands on a terminal while a model loads.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{Output, plain, render};
use crate::{LoadStatus, ModelLoadProgress};

const TEMPLATE: &str = "{bar:32} {percent:>3} %  {msg}{left}  ({elapsed} so far)";

/// How often the elapsed time is drawn anew while nothing moves.
const TICK: Duration = Duration::from_secs(1);

/// A progress bar, or none where there is no terminal to show it. Clones are the same bar.
#[derive(Clone, Debug)]
pub(super) struct Progress(Option<Bar>);

/// A bar, and when the load is expected to be over.
#[derive(Clone, Debug)]
struct Bar {
    bar: ProgressBar,
    over: Arc<Mutex<Option<SystemTime>>>,
}

impl Progress {
    /// The bar for this output; nothing stands on the screen yet.
    pub(super) fn for_output(output: Output) -> Self {
        if output == Output::Json || !io::stdout().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stdout());
        let over = Arc::<Mutex<Option<SystemTime>>>::default();
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            let over = Arc::clone(&over);
            let left = move |_: &ProgressState, line: &mut dyn fmt::Write| {
                let over = *over.lock().unwrap_or_else(PoisonError::into_inner);
                let left = over.and_then(|over| over.duration_since(SystemTime::now()).ok());
                // What cannot be drawn is drawn the next time.
                line.write_str(&left.map(render::time_left).unwrap_or_default()).ok();
            };
            bar.set_style(style.with_key("left", left));
        }
        bar.finish_and_clear();
        Self(Some(Bar { bar, over }))
    }

    /// Shows how far the load is at `now`, as far as there is something to show it on.
    pub(super) fn show(&self, load: &ModelLoadProgress, now: SystemTime) -> Shown {
        let Some(Bar { bar, over }) = &self.0 else { return Shown::Nowhere };
        if matches!(load.status, LoadStatus::Loaded | LoadStatus::Failed) {
            self.hide();
            return Shown::Nowhere;
        }
        bar.set_message(plain::line(&render::doing(load)));
        *over.lock().unwrap_or_else(PoisonError::into_inner) =
            load.time_left.map(|left| now + left);
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
        if let Some(Bar { bar, .. }) = &self.0
            && !bar.is_finished()
        {
            bar.disable_steady_tick();
            bar.finish_and_clear();
        }
    }

    /// Writes something else to the terminal, with the bar out of the way.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(Bar { bar, .. }) => bar.suspend(write),
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
