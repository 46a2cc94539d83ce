//! The model loader between scripted output and a root that only listens.

use std::sync::atomic::{AtomicUsize, Ordering};

use ractor::Actor;
use tokio::time::Instant;

use super::*;
use crate::ports::{LineSource, Pending};
use crate::testing::downloads::ScriptedDownloads;
use crate::testing::harness::{eventually, in_time, target};
use crate::testing::listener::Listener;
use crate::testing::output::ScriptedOutput;

const FIRST: Incarnation = Incarnation::new(1);
const SECOND: Incarnation = Incarnation::new(2);
const HOUR: Duration = Duration::from_secs(3600);

const STARTS: &str = "INFO [core.py:1] Initializing a V1 LLM engine (v0.32.0)";
const LOADS: &str = "INFO [gpu_model_runner.py:1] Starting to load model org/first...";
const LISTENS: &str = "INFO:     Application startup complete.";

#[tokio::test(start_paused = true)]
async fn the_first_line_is_a_sign_of_life_and_says_nothing_of_the_load() {
    let mut scene = Scene::following(FIRST).await;
    scene.output.write(FIRST, &["WARNING: something odd"]);
    assert_eq!(scene.next().await, LoadNews::Began);
    scene.root.hears_nothing_for(STANDING_INTERVAL / 2).await;
}

#[tokio::test(start_paused = true)]
async fn the_lines_tell_how_far_the_load_is() {
    let mut scene = Scene::following(FIRST).await;

    scene.output.write(FIRST, &[STARTS, LOADS]);
    assert_eq!(scene.next().await, LoadNews::Began);
    let (first, second) = (scene.progress().await, scene.progress().await);
    assert!(0 < first && first < second, "{first} and {second}");

    scene.output.write(FIRST, &[LISTENS]);
    assert!(second < scene.progress().await);
    assert_eq!(scene.next().await, LoadNews::Listens);
}

#[tokio::test(start_paused = true)]
async fn what_comes_over_the_network_is_progress() {
    let mut scene = Scene::following(FIRST).await;
    scene.downloads.grow_to(500, Some(1000));
    let LoadNews::Progressed(progress) = scene.next().await else { panic!("no progress") };
    assert_eq!((progress.bytes_downloaded, progress.total_bytes), (500, Some(1000)));
    scene.downloads.grow_to(501, Some(1000));
    let LoadNews::Stands(progress) = scene.next().await else { panic!("news of a byte") };
    assert_eq!(progress.bytes_downloaded, 501);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_before_anybody_followed_is_read() {
    let mut scene = Scene::begin().await;
    scene.output.write(FIRST, &[LOADS]);
    scene.follow(FIRST);
    assert_eq!(scene.next().await, LoadNews::Began);
    scene.progress().await;
}

#[tokio::test(start_paused = true)]
async fn where_the_load_stands_is_said_every_ten_seconds() {
    let begun = Instant::now();
    let mut scene = Scene::following(FIRST).await;
    for times in 1..=3 {
        assert!(matches!(scene.next().await, LoadNews::Stands(_)));
        let (elapsed, due) = (begun.elapsed(), STANDING_INTERVAL * times);
        assert!(elapsed >= due && elapsed < due + STANDING_INTERVAL / 10, "{elapsed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn news_of_the_load_put_off_the_next_word_on_where_it_stands() {
    let mut scene = Scene::following(FIRST).await;
    scene.root.hears_nothing_for(STANDING_INTERVAL * 9 / 10).await;
    scene.output.write(FIRST, &[LOADS]);
    assert_eq!(scene.next().await, LoadNews::Began);
    let percent = scene.progress().await;

    scene.root.hears_nothing_for(STANDING_INTERVAL * 9 / 10).await;

    let LoadNews::Stands(progress) = scene.next().await else { panic!("it does not stand") };
    assert_eq!(progress.percent, percent);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_or_said_after_a_cease() {
    let mut scene = Scene::following(FIRST).await;

    tell(&scene.actor, ModelLoaderMessage::Cease);

    scene.nobody_reads(FIRST).await;
    scene.output.write(FIRST, &[LOADS]);
    scene.root.hears_nothing_for(HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn following_another_launch_leaves_the_one_before() {
    let mut scene = Scene::following(FIRST).await;

    scene.follow(SECOND);

    scene.nobody_reads(FIRST).await;
    scene.output.write(FIRST, &[LOADS]);
    scene.output.write(SECOND, &["hello"]);
    let began = LoaderReport { incarnation: SECOND, news: LoadNews::Began };
    assert_eq!(scene.root.next().await, began);
}

#[tokio::test(start_paused = true)]
async fn what_was_read_of_an_earlier_launch_is_dropped() {
    let mut scene = Scene::following(SECOND).await;

    let lines = vec![LOADS.to_owned()];
    let turn = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
    tell(&scene.actor, ModelLoaderMessage::Read { incarnation: FIRST, lines, turn });
    tell(&scene.actor, ModelLoaderMessage::StandingDue { incarnation: FIRST });

    scene.root.hears_nothing_for(STANDING_INTERVAL / 2).await;
}

#[tokio::test(start_paused = true)]
async fn output_whose_reading_panics_ends_the_actor() {
    let scene = Scene::following(FIRST).await;
    scene.output.panic(FIRST);
    in_time(scene.actor.get_cell().wait(None)).await.unwrap();
}

/// Output without end, each line of which has been written before it is asked for.
#[derive(Debug, Default)]
struct Flood(Arc<AtomicUsize>);

impl Output for Flood {
    fn lines(&self, _: Incarnation) -> Box<dyn LineSource> {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

impl LineSource for Flood {
    fn next_lines(&mut self) -> Pending<'_, Vec<String>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(vec![LISTENS.to_owned(); 100]))
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_read_no_faster_than_it_is_taken_and_a_cease_is_heard() {
    let (flood, mut root) = (Arc::<Flood>::default(), Listener::begin().await);
    let downloads = Arc::<ScriptedDownloads>::default();
    let args = ModelLoaderArgs { output: Arc::clone(&flood) as _, downloads, root: root.reports() };
    let (actor, _) = Actor::spawn_linked(None, ModelLoaderActor, args, root.cell()).await.unwrap();
    tell(&actor, ModelLoaderMessage::Follow { incarnation: FIRST, target: target("m") });

    let mut listens = 0;
    while listens < 10 {
        listens += usize::from(root.next().await.news == LoadNews::Listens);
    }
    tell(&actor, ModelLoaderMessage::Cease);

    eventually("nobody reads", || Arc::strong_count(&flood.0) == 1).await;
    let read = flood.0.load(Ordering::Relaxed);
    assert!(read < 1000, "{read} batches");
}

/// A model loader, what vLLM writes, and all that its root hears.
struct Scene {
    output: Arc<ScriptedOutput>,
    downloads: Arc<ScriptedDownloads>,
    root: Listener<LoaderReport>,
    actor: ActorRef<ModelLoaderMessage>,
}

impl Scene {
    async fn begin() -> Self {
        let (output, root) = (Arc::<ScriptedOutput>::default(), Listener::begin().await);
        let downloads = Arc::<ScriptedDownloads>::default();
        let args = ModelLoaderArgs {
            output: Arc::clone(&output) as _,
            downloads: Arc::clone(&downloads) as _,
            root: root.reports(),
        };
        let (actor, _) =
            Actor::spawn_linked(None, ModelLoaderActor, args, root.cell()).await.unwrap();
        Self { output, downloads, root, actor }
    }

    async fn following(incarnation: Incarnation) -> Self {
        let scene = Self::begin().await;
        scene.follow(incarnation);
        eventually("it reads", || scene.output.readers(incarnation) == 1).await;
        scene
    }

    fn follow(&self, incarnation: Incarnation) {
        tell(&self.actor, ModelLoaderMessage::Follow { incarnation, target: target("m") });
    }

    async fn next(&mut self) -> LoadNews {
        self.root.next().await.news
    }

    /// How far the load is, by the next report.
    async fn progress(&mut self) -> u8 {
        match self.next().await {
            LoadNews::Progressed(progress) => progress.percent,
            news @ (LoadNews::Began | LoadNews::Stands(_) | LoadNews::Listens) => {
                panic!("expected progress, heard {news:?}")
            }
        }
    }

    async fn nobody_reads(&self, incarnation: Incarnation) {
        eventually("nobody reads", || self.output.readers(incarnation) == 0).await;
    }
}
