//! Where one run takes place: a directory, a port, a configuration, and a disk that can be filled.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command as StdCommand, Stdio};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use tempfile::TempDir;
use tokio::process::Command;

use super::schedule::{Form, Launching, Schedule, StopOnExit};
use crate::census::Census;
use crate::fake_venv::FakeVenv;
use crate::fake_vllm::fake_vllm;
use crate::hangup::heed_hangup;
use crate::scenario::free_port;

/// The model that is configured, and the one that it is switched to.
pub(super) const MODELS: [&str; 2] = ["org/tiny", "org/other"];

/// The programs that a run is made of.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `vllmd_under_test`.
    pub vllmd: PathBuf,
    /// `embedder_under_test`.
    pub embedder: PathBuf,
    /// `fake_vllm`.
    pub fake_vllm: PathBuf,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) programs: Programs,
    pub(super) port: u16,
    /// Of the supervisor and its vLLM.
    pub(super) census: Census,
    /// Of a second supervisor and its vLLM.
    pub(super) second: Census,
    form: Form,
    launching: Launching,
    /// Where vLLM is a script of Python.
    venv: Option<FakeVenv>,
    restart_cap: u32,
    plan: (String, String),
    pub(super) disk: Result<Disk, String>,
    // Last: it is removed when the disk is no longer mounted there.
    directory: TempDir,
}

impl Place {
    pub(super) fn of(schedule: &Schedule, programs: &Programs) -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let within = |name: &str| directory.path().join(name);
        for name in ["state", "other-state", "tmp", "other-tmp"] {
            fs::create_dir(within(name))?;
        }
        let marker = |who: &str| Census::of(format!("CHAOS={}{who}", directory.path().display()));
        let place = Self {
            programs: programs.clone(),
            port: free_port(),
            census: marker(""),
            second: marker("#2"),
            form: schedule.form,
            launching: schedule.launching,
            venv: (schedule.launching != Launching::Program)
                .then(|| FakeVenv::of(&programs.fake_vllm.display().to_string())),
            restart_cap: schedule.restart_cap,
            plan: schedule.plan(&within("launches")).environment(),
            disk: Disk::mount(&within("state")),
            directory,
        };
        place.configure(schedule.stop_on_exit)?;
        Ok(place)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the configuration. Everything is quick, so that much fits into a run.
    pub(super) fn configure(&self, stop_on_exit: StopOnExit) -> io::Result<()> {
        let text = format!(
            "providers:\n  vllm:\n    model: {}\n    port: {}\n    vllm_binary: [\"{}\"]\n    \
             gpu: {{monitor: off}}\n    lifecycle:\n      launch: {}\n      \
             stop_on_exit: {}\n      \
             max_restarts_per_minute: {}\n      restart_backoff: 2s\n      stable_after: 0s\n      \
             health_check_interval: 500ms\n      max_consecutive_failures: 2\n      \
             start_timeout: 10s\n      model_load_timeout: 10s\n      \
             shutdown_grace_period: 1s\n      model_load_max_retries: 1000\n",
            MODELS[0],
            self.port,
            self.vllm(),
            if self.launching == Launching::Warm { "warm" } else { "auto" },
            stop_on_exit == StopOnExit::Yes,
            self.restart_cap,
        );
        fs::write(self.path("vllmd.yaml"), text)
    }

    fn vllm(&self) -> String {
        let program = || self.programs.fake_vllm.display().to_string();
        self.venv.as_ref().map_or_else(program, FakeVenv::command)
    }

    /// What vLLM's processes run.
    pub(super) fn images(&self) -> Vec<&Path> {
        let python = self.venv.as_ref().map(FakeVenv::python);
        python.into_iter().chain([self.programs.fake_vllm.as_path()]).collect()
    }

    /// The supervisor of this run.
    pub(super) fn supervisor(&self) -> io::Result<Command> {
        match self.form {
            Form::Command => {
                let mut command = self.vllmd(&self.census)?;
                command.arg("state");
                Ok(command)
            }
            Form::Embedded => {
                let mut command = self.command(&self.programs.embedder, &self.census)?;
                command.args(["vllmd.yaml", "state"]).stdin(Stdio::piped());
                Ok(command)
            }
        }
    }

    fn vllmd(&self, census: &Census) -> io::Result<Command> {
        let mut command = self.command(&self.programs.vllmd, census)?;
        command.args(["run", "--config", "vllmd.yaml", "--output", "json", "--state-dir"]);
        Ok(command)
    }

    /// A second `vllmd`, on that state directory. Its vLLM is healthy, and its scratch its own.
    pub(super) fn rival(&self, state: &str) -> io::Result<Command> {
        let mut command = self.vllmd(&self.second)?;
        let (name, plan) = fake_vllm().environment();
        command.arg(state).env(name, plan).env("TMPDIR", self.path("other-tmp"));
        Ok(command)
    }

    fn command(&self, program: &Path, census: &Census) -> io::Result<Command> {
        let stderr = OpenOptions::new().create(true).append(true).open(self.path("stderr"))?;
        #[expect(clippy::disallowed_methods, reason = "the supervisor is what is tested")]
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.directory.path())
            .env("TMPDIR", self.path("tmp"))
            .env(&self.plan.0, &self.plan.1)
            .env(census.variable().0, census.variable().1)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true);
        heed_hangup(command.as_std_mut());
        Ok(command)
    }

    /// How often vLLM was launched.
    pub(super) fn launches(&self) -> u32 {
        let length = fs::metadata(self.path("launches")).map_or(0, |it| it.len());
        u32::try_from(length).unwrap_or(u32::MAX)
    }

    /// Every launch from now on is a healthy one: counts as many as there are plans.
    pub(super) fn heal(&self, schedule: &Schedule) -> io::Result<()> {
        let mut counter =
            OpenOptions::new().append(true).create(true).open(self.path("launches"))?;
        io::Write::write_all(&mut counter, &vec![b'.'; schedule.launches.len()])
    }

    /// Whether a supervisor has named this segment as one whose owner nobody saw.
    pub(super) fn names(&self, segment: &Path) -> bool {
        let text = fs::read(self.path("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(&*segment.to_string_lossy())
    }

    /// What the supervisors said on stderr last.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read(self.path("stderr")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// What the scratch directory holds.
    pub(super) fn scratch(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("tmp")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.census.kill_all();
        self.second.kill_all();
    }
}

/// A small file system of its own, to be filled.
#[derive(Debug)]
pub(super) struct Disk(PathBuf);

impl Disk {
    /// Mounts one, which is a matter of privileges.
    fn mount(at: &Path) -> Result<Self, String> {
        #[expect(clippy::disallowed_methods, reason = "the test prepares its file system")]
        let mut mount = StdCommand::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs"]).arg(at);
        match mount.stderr(Stdio::null()).status() {
            Ok(status) if status.success() => Ok(Self(at.to_owned())),
            Ok(status) => Err(format!("tmpfs cannot be mounted here ({status})")),
            Err(error) => Err(format!("tmpfs cannot be mounted here: {error}")),
        }
    }

    /// Takes all the room there is.
    pub(super) fn fill(&self) -> io::Result<()> {
        let file = File::create(self.filler())?;
        let room = statvfs(&self.0)?;
        // The kernel rounds up to pages, and somebody may be faster by one.
        let length = room.f_bavail.saturating_sub(1) * room.f_frsize;
        match fallocate(&file, FallocateFlags::empty(), 0, length.max(1)) {
            // What is left is less than it said, or nothing: it is written full below.
            Ok(()) | Err(Errno::NOSPC) => {}
            Err(error) => return Err(error.into()),
        }
        let mut rest = OpenOptions::new().append(true).open(self.filler())?;
        while io::Write::write_all(&mut rest, &[0; 4096]).is_ok() {}
        Ok(())
    }

    /// Gives it back.
    pub(super) fn free(&self) {
        // Not there if it could not be filled.
        fs::remove_file(self.filler()).ok();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "the test clears its file system away")]
        let mut umount = StdCommand::new("umount");
        // Lazily: whoever still has a file open there is about to be killed.
        umount.arg("-l").arg(&self.0).stderr(Stdio::null()).status().ok();
    }
}
