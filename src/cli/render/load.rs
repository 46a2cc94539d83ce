//! How far a load is, in words.

use std::time::Duration;

use indicatif::HumanBytes;

use crate::{LoadStatus, ModelLoadProgress};

pub(super) fn load(load: &ModelLoadProgress) -> String {
    match load.status {
        LoadStatus::Loaded => format!("loaded {}", load.model),
        LoadStatus::Failed => format!("the load failed at {} %", load.percent),
        LoadStatus::Downloading
        | LoadStatus::Loading
        | LoadStatus::Compiling
        | LoadStatus::Capturing
        | LoadStatus::Warming
        | _ => format!("{:>3} %  {}", load.percent, load_phase(load)),
    }
}

/// What a load is doing, and how long it still takes.
fn load_phase(load: &ModelLoadProgress) -> String {
    format!("{}{}", doing(load), load.time_left.map(time_left).unwrap_or_default())
}

/// How long a load still takes, by the one before.
pub(in crate::cli) fn time_left(left: Duration) -> String {
    match left.as_secs_f64().ceil() {
        seconds if seconds < 90.0 => format!(", about {seconds:.0} s left"),
        seconds => format!(", about {:.0} min left", (seconds / 60.0).ceil()),
    }
}

/// What a load is doing.
pub(in crate::cli) fn doing(load: &ModelLoadProgress) -> String {
    let status = load.status.as_str();
    match load.total_bytes {
        Some(total) if load.status == LoadStatus::Downloading => {
            format!("{status} {} of {}", HumanBytes(load.bytes_downloaded), HumanBytes(total))
        }
        _ => status.to_owned(),
    }
}

/// Whether two progresses of a load look the same to a reader.
pub(in crate::cli) fn looks_the_same(one: &ModelLoadProgress, other: &ModelLoadProgress) -> bool {
    (one.started_at, one.percent, one.status) == (other.started_at, other.percent, other.status)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::ModelId;

    #[test]
    fn a_load_shows_how_far_it_is() {
        let (model, began) = (ModelId::new("org/tiny").unwrap(), SystemTime::UNIX_EPOCH);
        let loading = ModelLoadProgress::loading(model.clone(), 12, began);
        let downloading = ModelLoadProgress::downloading(model, 1 << 30, Some(1 << 32), began);
        let left = |seconds| {
            let mut load = loading.clone();
            load.time_left = Some(Duration::from_secs_f32(seconds));
            load
        };
        for (progress, expected) in [
            (loading.clone(), " 12 %  loading"),
            (left(11.2), " 12 %  loading, about 12 s left"),
            (left(100.0), " 12 %  loading, about 2 min left"),
            (downloading, " 25 %  downloading 1.00 GiB of 4.00 GiB"),
            (loading.clone().failed(), "the load failed at 12 %"),
            (loading.clone().complete(began), "loaded org/tiny"),
        ] {
            assert_eq!(load(&progress), expected);
        }
    }
}
