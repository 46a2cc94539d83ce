//! The process actor between a scripted launcher and a root that only listens.

use ractor::{Actor, ActorStatus};
use tokio::task::JoinHandle;

use super::*;
use crate::domain::absence::{Doubt, Leftover, ScanError};
use crate::domain::cause::{Cause, Code};
use crate::domain::diagnosis::Exit;
use crate::domain::report::{Role, Sample, Work};
use crate::domain::trust::{LaunchMethod, Memories};
use crate::ports::Signal;
use crate::testing::harness::{eventually, in_time, model, target};
use crate::testing::journal::MemoryJournal;
use crate::testing::launcher::ScriptedLauncher;
use crate::testing::listener::Listener;
use crate::testing::process::{Call, ScriptedProcess};

mod doubting;
mod guard;
mod ready;

const FIRST: Incarnation = Incarnation::new(1);
const SECOND: Incarnation = Incarnation::new(2);
const HOUR: Duration = Duration::from_secs(3600);
const TERM: Call = Call::Signalled(Signal::Terminate);

#[tokio::test(start_paused = true)]
async fn a_launch_is_reported_and_so_is_its_end() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    scene.tell(launch_of_first());
    let process = scene.launched().await;

    process.write_last(&["it hurts"]);
    process.end(Exit::Code(1));

    let exited = ProcessReport::Exited { incarnation: FIRST, exit: Exit::Code(1) };
    assert_eq!(scene.next().await, exited);

    scene.tell(ProcessMessage::Diagnose { incarnation: FIRST });
    let ProcessReport::Diagnosed { evidence, .. } = scene.next().await else {
        panic!("no evidence")
    };
    assert_eq!(evidence.last_lines, ["it hurts"]);
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_fails_is_reported_with_its_cause_and_leaves_nothing_in_hand() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    let cause = Cause::new(Code::PortInUse, "somebody has it");
    scene.launcher.refuse_next(cause.clone());

    scene.tell(launch_of_first());

    assert_eq!(scene.next().await, ProcessReport::LaunchFailed { incarnation: FIRST, cause });
    scene.end().await;
    assert!(scene.journal.orphaned().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_serving_vllm_that_heeds_the_sigterm_is_swept_and_vacated_at_once() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;

    scene.stop(FIRST, StopMode::Graceful, Phase::Serving);

    scene.vacates(FIRST).await;
    assert_eq!(calls(&process), [(0, TERM), (0, Call::Swept)]);
}

#[tokio::test(start_paused = true)]
async fn a_serving_vllm_that_does_not_heed_it_is_killed_after_the_grace() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    process.ignore_sigterm();

    scene.stop(FIRST, StopMode::Graceful, Phase::Serving);

    scene.vacates(FIRST).await;
    assert_eq!(calls(&process), [(0, TERM), (10, Call::Swept)]);
}

#[tokio::test(start_paused = true)]
async fn a_loading_vllm_that_swallows_the_first_sigterm_heeds_the_second() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    process.heed_sigterm(2);

    scene.stop(FIRST, StopMode::Graceful, Phase::Loading);

    scene.vacates(FIRST).await;
    assert_eq!(calls(&process), [(0, TERM), (1, TERM), (1, Call::Swept)]);
}

#[tokio::test(start_paused = true)]
async fn a_loading_vllm_that_heeds_neither_is_killed_within_the_same_grace() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    process.ignore_sigterm();

    scene.stop(FIRST, StopMode::Graceful, Phase::Loading);

    scene.vacates(FIRST).await;
    assert_eq!(calls(&process), [(0, TERM), (1, TERM), (10, Call::Swept)]);
}

#[tokio::test(start_paused = true)]
async fn an_immediate_stop_kills_without_asking() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;

    scene.stop(FIRST, StopMode::Immediate, Phase::Serving);

    scene.vacates(FIRST).await;
    assert_eq!(calls(&process), [(0, Call::Swept)]);
}

#[tokio::test(start_paused = true)]
async fn an_immediate_stop_hastens_a_graceful_one() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    process.ignore_sigterm();
    scene.stop(FIRST, StopMode::Graceful, Phase::Serving);
    scene.root.hears_nothing_for(Duration::from_secs(3)).await;

    scene.stop(FIRST, StopMode::Immediate, Phase::Serving);

    scene.vacates(FIRST).await;
    assert_eq!(calls(&process), [(0, TERM), (3, Call::Swept)]);
}

#[tokio::test(start_paused = true)]
async fn what_the_main_process_leaves_behind_is_killed_before_it_counts_as_vacated() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    process.grow(&[7, 8]);
    process.end(Exit::Signal(11));
    assert!(matches!(scene.next().await, ProcessReport::Exited { .. }));

    scene.stop(FIRST, StopMode::Immediate, Phase::Loading);

    scene.vacates(FIRST).await;
    assert!(!process.is_alive());
}

#[tokio::test(start_paused = true)]
async fn what_outlives_sigkill_is_reported_once_after_ten_seconds_and_vacated_in_the_end() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    process.get_stuck(&[7]);
    let begun = tokio::time::Instant::now();

    scene.stop(FIRST, StopMode::Immediate, Phase::Serving);

    assert!(matches!(scene.next().await, ProcessReport::Exited { .. }));
    let left = vec![Leftover::Process { pid: 7, name: "stuck".to_owned() }];
    let lingered = ProcessReport::Lingered { incarnation: FIRST, doubt: Doubt::Left(left) };
    assert_eq!(scene.next().await, lingered);
    assert!(begun.elapsed() >= Duration::from_secs(10), "{:?}", begun.elapsed());
    scene.root.hears_nothing_for(HOUR).await;

    process.come_loose();

    assert_eq!(scene.next().await, vacated(FIRST));
}

#[tokio::test(start_paused = true)]
async fn a_stop_with_nothing_in_hand_is_vacated_at_once() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    scene.stop(FIRST, StopMode::Graceful, Phase::Serving);
    assert_eq!(scene.next().await, vacated(FIRST));
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_another_incarnation_does_nothing_to_this_one() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;

    scene.stop(SECOND, StopMode::Immediate, Phase::Serving);
    assert_eq!(scene.next().await, vacated(SECOND));
    scene.tell(ProcessMessage::Sample { incarnation: SECOND });
    scene.tell(ProcessMessage::Vacated { incarnation: SECOND, proof: proof() });

    scene.root.hears_nothing_for(HOUR).await;
    assert_eq!(calls(&process), []);
    scene.stop(FIRST, StopMode::Graceful, Phase::Serving);
    scene.vacates(FIRST).await;
}

#[tokio::test(start_paused = true)]
async fn the_work_of_the_tree_is_told_when_asked_for() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    let work = Work { cpu: Duration::from_secs(5), io_bytes: 42 };
    process.show_work(work);

    scene.tell(ProcessMessage::Sample { incarnation: FIRST });

    let sample = Sample { work, ..Sample::default() };
    assert_eq!(scene.next().await, ProcessReport::Sampled { incarnation: FIRST, sample });
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_owner_left_is_adopted_and_its_end_is_heard() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    let process = scene.launcher.leave(FIRST, model("m"));

    scene.tell(ProcessMessage::Adopt { target: target("m") });

    assert_eq!(scene.next().await, adopted(&process));
    process.end(Exit::Unknown);
    assert!(matches!(scene.next().await, ProcessReport::Exited { exit: Exit::Unknown, .. }));
}

/// It may end by itself while its requests are waited for.
#[tokio::test(start_paused = true)]
async fn the_end_of_what_has_other_settings_is_heard_as_well() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    let process = scene.launcher.leave(FIRST, model("another"));

    scene.tell(ProcessMessage::Adopt { target: target("m") });

    let pid = Some(process.pid());
    assert_eq!(scene.next().await, ProcessReport::RemnantFound { incarnation: FIRST, pid });
    process.end(Exit::Unknown);
    assert!(matches!(scene.next().await, ProcessReport::Exited { exit: Exit::Unknown, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_looking_waits_until_nothing_was_found() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    scene.look_and_stop().await;

    scene.launcher.answer_searches();

    assert_eq!(scene.next().await, ProcessReport::NothingFound { proof: proof() });
    assert_eq!(scene.next().await, vacated(FIRST));
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_looking_stops_the_vllm_that_was_found() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    let process = scene.launcher.leave(FIRST, model("m"));
    scene.look_and_stop().await;

    scene.launcher.answer_searches();

    assert_eq!(scene.next().await, adopted(&process));
    scene.vacates(FIRST).await;
    assert!(!process.is_alive());
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_looking_clears_the_remnant_that_was_found() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    let process = scene.launcher.leave(FIRST, model("another"));
    scene.look_and_stop().await;

    scene.launcher.answer_searches();

    let pid = Some(process.pid());
    assert_eq!(scene.next().await, ProcessReport::RemnantFound { incarnation: FIRST, pid });
    scene.vacates(FIRST).await;
    assert!(!process.is_alive());
}

#[tokio::test(start_paused = true)]
async fn a_look_that_is_not_over_does_not_find_what_is_launched_meanwhile() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    scene.launcher.hold_searches();
    scene.tell(ProcessMessage::Adopt { target: target("m") });
    scene.tell(launch_of_first());
    scene.launched().await;

    scene.launcher.answer_searches();

    scene.root.hears_nothing_for(HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn every_report_names_the_actor_that_it_comes_from() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    scene.stop(FIRST, StopMode::Graceful, Phase::Serving);
    assert_eq!(scene.root.next().await.epoch, epoch());
}

/// A process actor, its launcher, and all that its root hears.
struct Scene {
    launcher: Arc<ScriptedLauncher>,
    journal: Arc<MemoryJournal>,
    root: Listener<ProcessNews>,
    actor: ActorRef<ProcessMessage>,
    ended: Option<JoinHandle<()>>,
}

impl Scene {
    async fn begin(outcome: OrphanOutcome) -> Self {
        let (launcher, journal) =
            (Arc::<ScriptedLauncher>::default(), Arc::<MemoryJournal>::default());
        let root = Listener::begin().await;
        let args = ProcessArgs {
            launcher: Arc::clone(&launcher) as _,
            orphans: Arc::clone(&journal) as _,
            outcome,
            epoch: epoch(),
            root: root.reports(),
        };
        let (actor, ended) =
            Actor::spawn_linked(None, ProcessActor, args, root.cell()).await.unwrap();
        Self { launcher, journal, root, actor, ended: Some(ended) }
    }

    async fn with_process(outcome: OrphanOutcome) -> (Self, ScriptedProcess) {
        let mut scene = Self::begin(outcome).await;
        scene.tell(launch_of_first());
        let process = scene.launched().await;
        (scene, process)
    }

    fn tell(&self, message: ProcessMessage) {
        tell(&self.actor, message);
    }

    fn stop(&self, incarnation: Incarnation, mode: StopMode, phase: Phase) {
        self.tell(ProcessMessage::Stop {
            incarnation,
            mode,
            phase,
            grace: Duration::from_secs(10),
        });
    }

    async fn next(&mut self) -> ProcessReport {
        self.root.next().await.report
    }

    async fn launched(&mut self) -> ScriptedProcess {
        let launched = self.next().await;
        let process = self.launcher.last();
        let (incarnation, pid) = (process.incarnation(), process.pid());
        assert_eq!(launched, launched_cold(incarnation, pid));
        process
    }

    /// The process may be proven gone before its end was noticed, or after.
    async fn vacates(&mut self, incarnation: Incarnation) {
        let mut report = self.next().await;
        if matches!(report, ProcessReport::Exited { .. }) {
            report = self.next().await;
        }
        assert_eq!(report, vacated(incarnation));
        assert!(!self.launcher.last().is_alive());
    }

    /// Looks without an answer, and is told to stop meanwhile.
    async fn look_and_stop(&mut self) {
        self.launcher.hold_searches();
        self.tell(ProcessMessage::Adopt { target: target("m") });
        self.stop(FIRST, StopMode::Graceful, Phase::Loading);
        self.root.hears_nothing_for(HOUR).await;
    }

    async fn end(&mut self) {
        self.actor.stop(None);
        self.ends().await;
    }

    async fn ends(&mut self) {
        in_time(self.ended.take().unwrap()).await.unwrap();
        assert_eq!(self.actor.get_status(), ActorStatus::Stopped);
    }
}

fn adopted(process: &ScriptedProcess) -> ProcessReport {
    let (incarnation, pid) = (process.incarnation(), process.pid());
    ProcessReport::Adopted { incarnation, pid, target: target("m"), phase: Phase::Serving }
}

fn vacated(incarnation: Incarnation) -> ProcessReport {
    ProcessReport::Vacated { incarnation, proof: proof() }
}

fn proof() -> Proof {
    Proof::of(Ok(Vec::new())).unwrap()
}

fn no_descriptors() -> ScanError {
    ScanError::new("/proc", &"Too many open files")
}

fn epoch() -> Epoch {
    Epoch::default().next()
}

/// What was done to a process, and in which second of its life.
fn calls(process: &ScriptedProcess) -> Vec<(u64, Call)> {
    process.calls().into_iter().map(|(age, call)| (age.as_secs(), call)).collect()
}

fn launch_of_first() -> ProcessMessage {
    let method = LaunchMethod::Tree;
    ProcessMessage::Launch { incarnation: FIRST, target: target("m"), method }
}

fn launched_cold(incarnation: Incarnation, pid: u32) -> ProcessReport {
    let (method, memories) = (LaunchMethod::Cold, Memories::default());
    ProcessReport::Launched { incarnation, pid, method, memories }
}
