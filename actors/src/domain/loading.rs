//! How far a model is on its way from disk to service, told from the lines that vLLM prints.
//!
//! The lines are those of vLLM 0.8 to 0.32; `loading/lines.rs` has them with their sources.

use std::time::{Duration, SystemTime};

use crate::domain::spec::ModelId;

mod lines;

use lines::Mark;

/// What the loading model is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoadStatus {
    /// Weights come over the network.
    Downloading,
    /// vLLM starts, or reads weights.
    Loading,
    /// `torch.compile` is at work.
    Compiling,
    /// CUDA graphs are captured.
    Capturing,
    /// Memory is profiled, the KV cache made, the server set up.
    Warming,
    /// The model is served.
    Loaded,
    /// The load ended without a model.
    Failed,
}

impl LoadStatus {
    /// The status's name in lower case, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Downloading => "downloading",
            Self::Loading => "loading",
            Self::Compiling => "compiling",
            Self::Capturing => "capturing",
            Self::Warming => "warming",
            Self::Loaded => "loaded",
            Self::Failed => "failed",
        }
    }
}

/// How far a model has been loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelLoadProgress {
    /// The model.
    pub model: ModelId,
    /// 0 to 100; never runs backwards within one load. By the clock, where this host has loaded the like
    /// before, else by the phases of a typical load.
    pub percent: u8,
    /// Bytes downloaded so far.
    pub bytes_downloaded: u64,
    /// Bytes to download, if known.
    pub total_bytes: Option<u64>,
    /// What it is doing.
    pub status: LoadStatus,
    /// Whether the percentage is counted (bytes, shards, graphs) rather than told from the phase.
    pub is_progress_known: bool,
    /// How long it still takes, by the last load like it on this host, and of a download by its rate so far;
    /// `None` where nothing is known to tell it from.
    pub time_left: Option<Duration>,
    /// When the load began.
    pub started_at: SystemTime,
    /// When the model was loaded, if it is.
    pub completed_at: Option<SystemTime>,
}

impl ModelLoadProgress {
    /// A download that has got `bytes` of `total`.
    pub fn downloading(
        model: ModelId,
        bytes: u64,
        total: Option<u64>,
        started_at: SystemTime,
    ) -> Self {
        let percent = total.filter(|total| *total > 0).map_or(0, |total| {
            u8::try_from(bytes.min(total).saturating_mul(100) / total).unwrap_or(100)
        });
        Self {
            percent,
            bytes_downloaded: bytes,
            total_bytes: total,
            status: LoadStatus::Downloading,
            is_progress_known: total.is_some(),
            ..Self::loading(model, 0, started_at)
        }
    }

    /// A load that is `percent` (at most 99) on its way.
    pub fn loading(model: ModelId, percent: u8, started_at: SystemTime) -> Self {
        Self {
            model,
            percent: percent.min(99),
            bytes_downloaded: 0,
            total_bytes: None,
            status: LoadStatus::Loading,
            is_progress_known: false,
            time_left: None,
            started_at,
            completed_at: None,
        }
    }

    /// The same load, done.
    #[must_use]
    pub fn complete(self, at: SystemTime) -> Self {
        Self {
            percent: 100,
            status: LoadStatus::Loaded,
            is_progress_known: true,
            time_left: None,
            completed_at: Some(at),
            ..self
        }
    }

    /// The same load, ended without a model, where it stood.
    #[must_use]
    pub fn failed(self) -> Self {
        Self { status: LoadStatus::Failed, time_left: None, completed_at: None, ..self }
    }
}

/// What has come of a model over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download {
    /// Bytes that are there.
    pub bytes: u64,
    /// Bytes that there will be, if that is known.
    pub total: Option<u64>,
}

/// Between which percentages a download runs: it comes before the weights can be read, and takes long.
const DOWNLOAD: (u8, u8) = (20, DOWNLOADED);

/// The percentage that a download may bring a load to.
pub(super) const DOWNLOADED: u8 = 40;

/// What a line of the log means for the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadNews {
    /// The first output: the interpreter got as far as vLLM.
    Began,
    /// The load came further.
    Progressed(ModelLoadProgress),
    /// Nothing new for a while; this is where it stands.
    Stands(ModelLoadProgress),
    /// The server says that it is about to listen.
    Listens,
}

/// What a percentage is told from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Phase,
    Count,
}

/// Follows one load through its log.
#[derive(Clone, Debug)]
pub struct LoadTracker {
    progress: ModelLoadProgress,
    began: bool,
}

impl LoadTracker {
    /// A load of `model` that begins now.
    pub fn new(model: ModelId, started_at: SystemTime) -> Self {
        Self { progress: ModelLoadProgress::loading(model, 0, started_at), began: false }
    }

    /// Where the load stands.
    pub fn progress(&self) -> &ModelLoadProgress {
        &self.progress
    }

    /// What a line of vLLM's output means. Most mean nothing: vLLM prints `No available shared
    /// memory broadcast block found` every minute of a hang, too.
    pub fn read(&mut self, line: &str) -> Vec<LoadNews> {
        let mut news = Vec::new();
        if !self.began && !line.trim().is_empty() {
            self.began = true;
            news.push(LoadNews::Began);
        }
        match lines::read(line) {
            Some(Mark::Phase { percent, status }) => {
                news.extend(self.advance(percent, status, Measure::Phase));
            }
            Some(Mark::Count { percent, status }) => {
                news.extend(self.advance(percent, status, Measure::Count));
            }
            Some(Mark::Listens) => {
                news.extend(self.advance(99, LoadStatus::Warming, Measure::Count));
                news.push(LoadNews::Listens);
            }
            None => {}
        }
        news
    }

    /// More of the model has come. What is beyond its download stays so.
    pub fn downloaded(&mut self, download: Download) -> Option<LoadNews> {
        let Download { bytes, total } = download;
        let progress = &mut self.progress;
        let (from, to) = DOWNLOAD;
        let is_before = match progress.status {
            LoadStatus::Downloading => true,
            // Once shards are counted they are read.
            LoadStatus::Loading => !progress.is_progress_known && progress.percent <= to,
            LoadStatus::Compiling
            | LoadStatus::Capturing
            | LoadStatus::Warming
            | LoadStatus::Loaded
            | LoadStatus::Failed => false,
        };
        let is_more = bytes > progress.bytes_downloaded;
        let total = total.or(progress.total_bytes);
        let is_expected = total != progress.total_bytes;
        if !is_before || !(is_more || is_expected) {
            return None;
        }
        // What was counted before there was a list may not be on it.
        let bytes = bytes.max(progress.bytes_downloaded);
        (progress.bytes_downloaded, progress.total_bytes) = (bytes, total);
        let whole = total.filter(|total| *total > 0);
        let share = whole.map_or(0, |total| u64::from(to - from) * bytes.min(total) / total);
        let reached = from.saturating_add(u8::try_from(share).unwrap_or(0));
        // What comes before the weights is small, and says nothing of how far it is.
        let is_weights = progress.percent >= from;
        let percent = if is_weights { reached.max(progress.percent) } else { progress.percent };
        let begins = progress.status != LoadStatus::Downloading;
        let is_news = percent > progress.percent || begins || is_expected;
        progress.percent = percent;
        progress.status = LoadStatus::Downloading;
        progress.is_progress_known = is_weights && total.is_some();
        is_news.then(|| LoadNews::Progressed(progress.clone()))
    }

    fn advance(&mut self, percent: u8, status: LoadStatus, measure: Measure) -> Option<LoadNews> {
        // A phase that comes twice (one worker after another) or late must not turn the bar back.
        if percent <= self.progress.percent {
            let is_read = self.progress.status == LoadStatus::Downloading
                && (measure, status) == (Measure::Count, LoadStatus::Loading);
            if !is_read {
                return None;
            }
            self.progress.status = status;
            return Some(LoadNews::Progressed(self.progress.clone()));
        }
        self.progress.percent = percent;
        self.progress.status = status;
        self.progress.is_progress_known = measure == Measure::Count;
        Some(LoadNews::Progressed(self.progress.clone()))
    }
}

#[cfg(test)]
mod tests;
