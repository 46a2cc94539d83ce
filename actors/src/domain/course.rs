//! How far a load is by the clock: beside the course that an earlier one of the same kind took on this host.

use std::time::Duration;

use crate::domain::loading::{DOWNLOADED, LoadStatus, ModelLoadProgress};

/// When a load had come how far, from the start of its process until it served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Percentages by the marks of the log, and when each was reached; both rise.
    marks: Vec<(u8, Duration)>,
    total: Duration,
}

impl Course {
    /// One that was kept; `None` if its marks do not rise, or it took no time.
    pub fn new(marks: Vec<(u8, Duration)>, total: Duration) -> Option<Self> {
        let rises = marks.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1);
        let ends = marks.last().is_none_or(|(percent, at)| *percent < 100 && *at <= total);
        (rises && ends && !total.is_zero()).then_some(Self { marks, total })
    }

    /// The marks, each with the time at which it was reached.
    pub fn marks(&self) -> &[(u8, Duration)] {
        &self.marks
    }

    /// How long the load took.
    pub fn total(&self) -> Duration {
        self.total
    }

    fn reach(&mut self, percent: u8, at: Duration) {
        if self.marks.last().is_none_or(|(last, _)| *last < percent) {
            self.marks.push((percent, at));
        }
    }

    /// When it had come so far, and when it came further; between two marks by proportion.
    fn span(&self, percent: u8) -> (Duration, Duration) {
        let ends = [(0, Duration::ZERO)].into_iter().chain(self.marks.iter().copied());
        let before =
            ends.take_while(|(mark, _)| *mark <= percent).fold((0, Duration::ZERO), |_, it| it);
        let after = self.marks.iter().copied().find(|(mark, _)| *mark > percent);
        let after = after.unwrap_or((100, self.total));
        let share = f64::from(percent - before.0) / f64::from(after.0 - before.0);
        (before.1 + after.1.saturating_sub(before.1).mul_f64(share), after.1)
    }
}

/// Follows a load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Since when there is a process; `None` before.
    since: Option<Duration>,
    earlier: Option<Course>,
    course: Course,
    /// How far it is by the marks of its log, and since when.
    mark: (u8, Duration),
    download: Download,
}

/// What is known of a download.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Download {
    /// There was none.
    #[default]
    None,
    /// There was one, since then, beginning at so many bytes.
    Seen { since: Duration, bytes: u64 },
}

impl Pace {
    /// The process of the load is there. `earlier` is the course of the last load like it.
    pub fn begin(&mut self, earlier: Option<Course>, now: Duration) {
        (self.since, self.earlier, self.mark) = (Some(now), earlier, (0, now));
    }

    /// How far it is by the marks of its log.
    pub fn mark(&self) -> u8 {
        self.mark.0
    }

    /// How far the load is by the clock, and how long it still takes, of what its log says. `shown` is
    /// what was said last.
    #[must_use]
    pub fn judge(
        &mut self,
        said: ModelLoadProgress,
        shown: u8,
        now: Duration,
    ) -> ModelLoadProgress {
        if said.status == LoadStatus::Downloading {
            let time_left = self.time_of_download(&said, now);
            return ModelLoadProgress { percent: said.percent.max(shown), time_left, ..said };
        }
        let since = *self.since.get_or_insert(now);
        // What a download has brought it to is no mark of the log.
        let is_of_download = self.download != Download::None && said.percent <= DOWNLOADED;
        if said.percent > self.mark.0 && !is_of_download {
            self.mark = (said.percent, now);
            self.course.reach(said.percent, now.saturating_sub(since));
        }
        let Some(earlier) = &self.earlier else {
            return ModelLoadProgress { percent: said.percent.max(shown), ..said };
        };
        let (from, until) = earlier.span(self.mark.0);
        let along = from + now.saturating_sub(self.mark.1);
        // One that is slower waits where the one before was at the end of this part, nobody knows how long.
        let time_left = (along <= until).then(|| earlier.total.saturating_sub(along));
        let along = along.min(until);
        let share = along.as_secs_f64() / earlier.total.as_secs_f64() * 100.0;
        let percent = (0..=99).rev().find(|percent| f64::from(*percent) <= share).unwrap_or(0);
        let percent = percent.max(shown);
        ModelLoadProgress { percent, time_left, is_progress_known: false, ..said }
    }

    /// As long as the rest takes at the rate so far, and then the load.
    fn time_of_download(&mut self, said: &ModelLoadProgress, now: Duration) -> Option<Duration> {
        let bytes = said.bytes_downloaded;
        let (since, first) = match self.download {
            Download::Seen { since, bytes } => (since, bytes),
            Download::None => (now, bytes),
        };
        self.download = Download::Seen { since, bytes: first };
        let total = said.total_bytes?;
        let (came, took) = (bytes.checked_sub(first)?, now.saturating_sub(since));
        let left = total.saturating_sub(bytes);
        if came == 0 || took.is_zero() {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a ratio of bytes")]
        let rest = took.mul_f64((left as f64 / came as f64).min(1e6));
        let load = self.earlier.as_ref().map(|it| it.total.saturating_sub(it.span(self.mark.0).0));
        Some(rest + load.unwrap_or_default())
    }

    /// The load is done. `None` if its course says nothing of the next one, which has nothing to download.
    pub fn finish(self, now: Duration) -> Option<Course> {
        let total = now.saturating_sub(self.since?);
        let is_of_use = self.download == Download::None && !self.course.marks.is_empty();
        Course::new(self.course.marks, total).filter(|_| is_of_use)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::domain::spec::ModelId;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn said(percent: u8) -> ModelLoadProgress {
        let model = ModelId::new("org/a").unwrap();
        ModelLoadProgress::loading(model, percent, SystemTime::UNIX_EPOCH)
    }

    fn told(progress: &ModelLoadProgress) -> (u8, Option<u64>) {
        (progress.percent, progress.time_left.map(|left| left.as_secs()))
    }

    /// Begun at 100 s; at 20 % after 10 s, at 50 % after 70 s, over after 100 s.
    fn earlier() -> Course {
        let mut pace = Pace::default();
        pace.begin(None, seconds(100));
        for (percent, at) in [(20, 110), (50, 170)] {
            assert_eq!(told(&pace.judge(said(percent), 0, seconds(at))), (percent, None));
        }
        pace.finish(seconds(200)).unwrap()
    }

    #[test]
    fn a_load_is_as_far_as_the_one_before_was_by_the_clock() {
        let mut pace = Pace::default();
        pace.begin(Some(earlier()), seconds(0));
        let mut shown = 0;
        for (mark, at, expected) in [
            (0, 5, (5, Some(95))),
            (20, 8, (10, Some(90))),
            (20, 38, (40, Some(60))),
            // The half of what was between 20 and 50.
            (35, 39, (40, Some(60))),
            (35, 139, (70, None)),
            (50, 140, (70, Some(30))),
            (80, 150, (88, Some(12))),
            (99, 300, (99, Some(0))),
            (99, 302, (99, None)),
        ] {
            let judged = pace.judge(said(mark), shown, seconds(at));
            shown = judged.percent;
            assert_eq!(told(&judged), expected, "{mark} at {at}");
        }
    }

    #[test]
    fn it_never_turns_back() {
        let mut pace = Pace::default();
        pace.begin(Some(earlier()), seconds(0));
        assert_eq!(pace.judge(said(2), 30, seconds(1)).percent, 30);
    }

    #[test]
    fn a_download_is_judged_by_its_rate_and_kept_out_of_the_course() {
        let mut pace = Pace::default();
        pace.begin(Some(earlier()), seconds(0));
        let fetch = |bytes| ModelLoadProgress {
            status: LoadStatus::Downloading,
            bytes_downloaded: bytes,
            total_bytes: Some(1000),
            ..said(20)
        };
        assert_eq!(told(&pace.judge(fetch(100), 0, seconds(10))), (20, None));
        assert_eq!(told(&pace.judge(fetch(400), 0, seconds(40))), (20, Some(60 + 100)));
        let read = |percent, at| told(&pace.clone().judge(said(percent), 20, seconds(at)));
        assert_eq!(read(40, 80), (20, None), "nothing of it is read yet");
        assert_eq!(read(50, 81), (70, Some(30)));
        assert_eq!(pace.finish(seconds(200)), None);
    }

    #[test]
    fn a_download_of_unknown_size_is_no_course_either() {
        let mut pace = Pace::default();
        pace.begin(None, seconds(0));
        let fetch = ModelLoadProgress { status: LoadStatus::Downloading, ..said(20) };
        assert_eq!(pace.judge(fetch, 0, seconds(10)).time_left, None);
        assert_eq!(pace.judge(said(55), 0, seconds(600)).time_left, None);
        assert_eq!(pace.finish(seconds(700)), None);
    }

    #[test]
    fn what_is_no_course_is_none() {
        let marks = |marks: &[(u8, u64)]| marks.iter().map(|(p, at)| (*p, seconds(*at))).collect();
        assert!(Course::new(marks(&[(2, 1), (20, 5)]), seconds(5)).is_some());
        for spoiled in [&[(20, 1), (20, 5)][..], &[(2, 5), (20, 1)], &[(2, 9)], &[(100, 1)]] {
            assert_eq!(Course::new(marks(spoiled), seconds(5)), None, "{spoiled:?}");
        }
        assert_eq!(Course::new(Vec::new(), Duration::ZERO), None);
        assert_eq!(Pace::default().finish(seconds(1)), None, "nothing was seen of it");
    }
}
