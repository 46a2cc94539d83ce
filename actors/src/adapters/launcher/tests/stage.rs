//! Where launches are tried: a state directory of its own, and scripts in place of vLLM.

use super::*;
use crate::adapters::preflight::Preflight;
use crate::domain::gpu::Devices;
use crate::domain::spec::LaunchPolicy;
use crate::domain::trust::LaunchMethod;
use crate::testing::harness::target;

/// A state directory, a recipe, and everything launched, which is gone at the end.
pub(super) struct Stage {
    pub(super) directory: TempDir,
    pub(super) state: Arc<StateDirectory>,
    pub(super) recipe: LaunchRecipe,
    pub(super) launched: std::sync::Mutex<Vec<Arc<dyn Claim>>>,
    /// What nobody owns any more.
    left: std::sync::Mutex<Vec<Held>>,
}

impl Stage {
    pub(super) fn set() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let recipe = LaunchRecipe {
            before_model: Vec::new(),
            after_model: Vec::new(),
            // Port 0 is never taken.
            address: ([127, 0, 0, 1], 0).into(),
            environment: Vec::new(),
            secrets: Vec::new(),
            inherited_secrets: Vec::new(),
            withheld: Vec::new(),
            path: None,
            scratch: vec![directory.path().join("scratch")],
            launch: LaunchPolicy::Cold,
            kernels: None,
            configured: model(),
            foresee: Arc::new(|_| Foreseen {
                preflight: Preflight::default(),
                filled: Devices::Unknown,
            }),
            lessons: None,
            marker_prefix: fresh_marker_prefix().unwrap(),
            on_exit: ExitPolicy::Stop,
        };
        fs::create_dir(directory.path().join("scratch")).unwrap();
        let state = Arc::new(StateDirectory::open(&directory.path().join("state")).unwrap());
        let (launched, left) = (std::sync::Mutex::default(), std::sync::Mutex::default());
        Self { directory, state, recipe, launched, left }
    }

    /// A launcher of this script, as a supervisor has it; made again, it is that of the next one.
    pub(super) fn launcher(&self, script: &str) -> ProcessLauncher {
        self.launcher_at(&self.state, script)
    }

    /// The same, of a supervisor with this state directory.
    pub(super) fn launcher_at(&self, state: &Arc<StateDirectory>, script: &str) -> ProcessLauncher {
        let before_model = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        ProcessLauncher::new(
            LaunchRecipe { before_model, ..self.recipe.clone() },
            Arc::clone(state),
        )
    }

    /// A launcher of what the recipe says.
    pub(super) fn own_launcher(&self) -> ProcessLauncher {
        ProcessLauncher::new(self.recipe.clone(), Arc::clone(&self.state))
    }

    pub(super) async fn launch(&self, script: &str) -> Launched {
        self.launch_by(&self.launcher(script), FIRST).await
    }

    pub(super) async fn launch_by(
        &self,
        launcher: &ProcessLauncher,
        incarnation: Incarnation,
    ) -> Launched {
        self.launch_of(launcher, incarnation, &model()).await
    }

    pub(super) async fn launch_of(
        &self,
        launcher: &ProcessLauncher,
        incarnation: Incarnation,
        target: &Target,
    ) -> Launched {
        let claim = launcher.claim(incarnation, target, LaunchMethod::Tree).unwrap();
        self.launched.lock().unwrap().push(Arc::clone(&claim));
        let head = claim.start().await.unwrap();
        Launched { claim, head }
    }

    /// Why it starts nothing; nothing is left of the attempt.
    pub(super) async fn refuses(&self, launcher: &ProcessLauncher) -> Cause {
        let claim = launcher.claim(FIRST, &model(), LaunchMethod::Tree).unwrap();
        let cause = claim.start().await.unwrap_err();
        assert_eq!(claim.sweep().await, gone());
        cause
    }

    /// As if the supervisor had ended and left it running. Returns its number.
    pub(super) fn leave(&self, process: Launched) -> u32 {
        let pid = process.pid();
        let start_time = Stat::of(pid).unwrap().unwrap().start_time;
        self.left.lock().unwrap().extend(Held::open(pid, start_time).unwrap());
        process.claim.release();
        drop(process);
        self.launched.lock().unwrap().clear();
        pid
    }

    /// Until then it may be amid its exec.
    pub(super) async fn shows_its_marker(&self, process: &Launched) {
        until("it runs under its own name", || {
            carries_marker(process.pid(), &self.recipe.marker_prefix)
        })
        .await;
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.state.log_of(FIRST)).unwrap()
    }

    /// The number in the log's only line.
    pub(super) async fn pid_in_log(&self) -> u32 {
        until("there is a line", || self.log().ends_with('\n')).await;
        self.log().trim().parse().unwrap()
    }

    pub(super) fn marker(&self, incarnation: Incarnation) -> String {
        format!("{}-{incarnation}", self.recipe.marker_prefix)
    }

    pub(super) fn record(&self) -> RecordFile {
        RecordFile::in_directory(self.state.path())
    }

    pub(super) fn leaves_no_traces(&self) -> bool {
        let is_empty = fs::read_dir(&self.recipe.scratch[0]).unwrap().next().is_none();
        self.record().read().unwrap().is_none() && is_empty
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for held in &*self.left.lock().unwrap() {
            held.send(rustix::process::Signal::KILL);
        }
        let launched = std::mem::take(&mut *self.launched.lock().unwrap());
        for process in launched {
            let swept = process.sweep_blocking();
            assert!(swept.is_ok() || std::thread::panicking(), "{swept:?}");
        }
    }
}

/// A launch that was started.
pub(super) struct Launched {
    pub(super) claim: Arc<dyn Claim>,
    pub(super) head: Arc<dyn Head>,
}

impl Launched {
    pub(super) fn pid(&self) -> u32 {
        self.head.pid()
    }
}

pub(super) fn gone() -> Result<Proof, Doubt> {
    Proof::of(Ok(Vec::new()))
}

pub(super) fn model() -> Target {
    target("org/model")
}

pub(super) async fn ended(head: &dyn Head) -> Exit {
    timeout(DEADLINE, head.ended()).await.expect("it does not end")
}

pub(super) fn is_alive(pid: u32) -> bool {
    Stat::of(pid).unwrap().is_some_and(|stat| !stat.is_zombie())
}

/// Waits until something is so that nobody tells of.
pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// How many of our descriptors refer to a process.
pub(super) fn pidfds() -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("pidfd")).count()
}
