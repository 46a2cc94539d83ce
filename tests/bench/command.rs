//! `vllmd run` as a process: what it costs, and what becomes of vLLM when it is killed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};
use vllm_supervisor_tests::census::Census;
use vllm_supervisor_tests::fake_vllm::{FakeVllm, fake_vllm};
use vllm_supervisor_tests::process_table::Process;
use vllm_supervisor_tests::process_table::resident_kib;
use vllm_supervisor_tests::real_vllm::RealVllm;
use vllm_supervisor_tests::scenario::free_port;

use crate::Plan;
use crate::figure::{Figure, Unit};

/// Nothing that is measured here takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is not gone by then is taken to stay.
const CLEAN: Duration = Duration::from_secs(5);

/// How long after its start a launch is taken to grow no more, and a little.
const GROWN: Duration = Duration::from_secs(62);

mod killed;

pub(crate) use killed::killed;

/// A directory and a port for one supervisor after the other.
pub(crate) struct Place {
    vllmd: String,
    /// For the stand-in or vLLM.
    pub(crate) environment: Vec<(String, String)>,
    patience: Duration,
    pub(crate) port: u16,
    pub(crate) census: Census,
    pub(crate) directory: TempDir,
}

/// A supervisor that runs.
pub(crate) struct Vllmd {
    pub(crate) child: Child,
    pid: Pid,
    patience: Duration,
    pub(crate) stdout: Lines<BufReader<ChildStdout>>,
}

/// The file with its configuration.
pub(crate) const CONFIGURATION: &str = "vllmd.yaml";

/// What a supervisor is to run, and how.
pub(crate) struct Settings<'a> {
    pub(crate) model: &'a str,
    /// vLLM's.
    pub(crate) command: &'a str,
    /// Further ones of vLLM, as a list of YAML.
    pub(crate) arguments: &'a str,
    /// Settings of the life cycle, with commas between.
    pub(crate) lifecycle: &'a str,
}

impl Place {
    fn new(plan: &Plan, stop_on_exit: &str) -> io::Result<Self> {
        let quick = fake_vllm().loads_in(Duration::ZERO);
        Self::of_the_stand_in(plan, stop_on_exit, &quick)
    }

    fn of_the_stand_in(plan: &Plan, stop_on_exit: &str, fake: &FakeVllm) -> io::Result<Self> {
        let place = Self::bare(plan, vec![fake.environment()], PATIENCE)?;
        place.configure(&Settings {
            model: "org/tiny",
            command: &plan.fake_vllm,
            arguments: "[]",
            lifecycle: &format!("stop_on_exit: {stop_on_exit}"),
        })?;
        Ok(place)
    }

    fn of_the_real(plan: &Plan, real: &RealVllm) -> io::Result<Self> {
        let path = |path: &Path| path.display().to_string();
        let variable = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let environment = RealVllm::quick_environment().map(variable).to_vec();
        let place = Self::bare(plan, environment, PATIENCE * 10)?;
        place.configure(&Settings {
            model: &path(&real.tiny_model),
            command: &path(&real.command),
            arguments: &format!("{:?}", RealVllm::quick_arguments()),
            lifecycle: "stop_on_exit: true",
        })?;
        Ok(place)
    }

    /// One without a configuration.
    pub(crate) fn bare(
        plan: &Plan,
        environment: Vec<(String, String)>,
        patience: Duration,
    ) -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let census = Census::of(format!("FIGURES={}", directory.path().display()));
        let (vllmd, port) = (plan.vllmd.clone(), free_port());
        Ok(Self { vllmd, environment, patience, port, census, directory })
    }

    /// Writes the configuration that supervisors are started with from now on.
    pub(crate) fn configure(&self, settings: &Settings<'_>) -> io::Result<()> {
        let Settings { model, command, arguments, lifecycle } = settings;
        let text = format!(
            "providers:\n  vllm:\n    model: {model}\n    port: {}\n    \
             vllm_binary: [\"{command}\"]\n    extra_args: {arguments}\n    \
             lifecycle: {{{lifecycle}, start_timeout: 5m}}\n",
            self.port,
        );
        fs::write(self.directory.path().join(CONFIGURATION), text)
    }

    /// A program that is run here, and is gone with this.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        #[expect(clippy::disallowed_methods, reason = "the command is what is measured")]
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.directory.path())
            .env("TMPDIR", self.directory.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().cloned())
            .env(self.census.variable().0, self.census.variable().1)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub(crate) fn start(&self) -> io::Result<Vllmd> {
        let mut command = self.command(&self.vllmd);
        command
            .args(["run", "--config", CONFIGURATION, "--output", "json", "--state-dir", "state"])
            .stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let (Some(pid), Some(stdout)) = (pid, child.stdout.take()) else {
            return Err(io::Error::other("vllmd has no pid or no stdout"));
        };
        let patience = self.patience;
        Ok(Vllmd { child, pid, patience, stdout: BufReader::new(stdout).lines() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.census.kill_all();
    }
}

impl Vllmd {
    async fn runs(&mut self) -> io::Result<()> {
        self.enters("running").await
    }

    async fn enters(&mut self, state: &str) -> io::Result<()> {
        let wanted = format!("\"to\":\"{state}\"");
        let said = async {
            while let Some(line) = self.stdout.next_line().await? {
                if line.contains(&wanted) {
                    return Ok(());
                }
            }
            Err(io::Error::other("vllmd ended"))
        };
        timeout(self.patience, said).await?
    }

    async fn kill(&mut self) -> io::Result<()> {
        kill_process(self.pid, Signal::KILL)?;
        self.child.wait().await.map(drop)
    }
}

/// From SIGKILL of one to "running" of the next, which finds its vLLM serving.
pub(crate) async fn adoption(plan: &Plan) -> io::Result<Figure> {
    let place = Place::new(plan, "false")?;
    let mut vllmd = place.start()?;
    vllmd.runs().await?;
    let mut times = Vec::new();
    for _ in 0..plan.few {
        let killed = Instant::now();
        vllmd.kill().await?;
        vllmd = place.start()?;
        vllmd.runs().await?;
        times.push(killed.elapsed());
    }
    Ok(Figure::of_times("SIGKILL of vllmd to adopted by the next", Unit::Milliseconds, &times))
}

/// From SIGKILL to nothing of vLLM alive, with `stop_on_exit: true`.
pub(crate) async fn kill_to_clean(plan: &Plan) -> io::Result<Figure> {
    let (mut times, mut left) = (Vec::new(), 0);
    for _ in 0..plan.few {
        let place = Place::new(plan, "true")?;
        let mut vllmd = place.start()?;
        vllmd.runs().await?;
        let killed = Instant::now();
        vllmd.kill().await?;
        match place.census.wait_until_empty(CLEAN).await {
            Ok(()) => times.push(killed.elapsed()),
            Err(_) => left += 1,
        }
    }
    let figure = Figure::of_times("SIGKILL of vllmd to nothing left", Unit::Milliseconds, &times);
    Ok(if left == 0 {
        figure
    } else {
        figure.noting(format!("{left} of {} left vLLM alive after {CLEAN:?}", plan.few))
    })
}

/// Memory and processor time while nothing happens.
pub(crate) async fn idle(plan: &Plan) -> io::Result<Vec<Figure>> {
    let place = Place::new(plan, "true")?;
    let mut vllmd = place.start()?;
    vllmd.runs().await?;
    let started = processor_time(vllmd.pid)?;
    // A launch is looked at more often while it may grow.
    tokio::time::sleep_until(Instant::now() + GROWN).await;
    let before = processor_time(vllmd.pid)?;
    tokio::time::sleep_until(Instant::now() + plan.idle).await;
    let while_running = processor_time(vllmd.pid)?.saturating_sub(before);
    let in_first_minute = before.saturating_sub(started);
    let resident = resident_kib(vllmd.pid);
    let share = |spent: Duration, of: Duration| vec![spent.as_secs_f64() / of.as_secs_f64()];
    Ok(vec![
        Figure::of("vllmd, resident while running", Unit::Megabytes, vec![as_f64(resident)]),
        Figure::of(
            "vllmd, processor while running",
            Unit::Percent,
            share(while_running, plan.idle),
        )
        .noting(format!("{while_running:.1?} in {:?}", plan.idle)),
        Figure::of(
            "vllmd, processor in its first minute",
            Unit::Percent,
            share(in_first_minute, GROWN),
        ),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn as_f64(number: u64) -> f64 {
    number as f64
}

/// Processor time so far, of the threads that live, to the nanosecond (`/proc/PID/task/TID/schedstat`,
/// first field; Linux, `Documentation/scheduler/sched-stats.rst`). What `proc_pid_stat(5)` has is
/// counted by the timer that wakes our threads, and counts a moment's work as a whole tick.
fn processor_time(pid: Pid) -> io::Result<Duration> {
    let mut spent = 0_u64;
    for thread in fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid()))? {
        let thread = thread?.path();
        let text = match fs::read_to_string(thread.join("schedstat")) {
            Ok(text) => text,
            Err(_) if !thread.exists() => continue,
            Err(error) => return Err(error),
        };
        let on_processor = text.split(' ').next().and_then(|field| field.parse::<u64>().ok());
        spent += on_processor.ok_or(io::ErrorKind::InvalidData)?;
    }
    Ok(Duration::from_nanos(spent))
}

/// `Pss` of `proc(5)`; 0 of a process that has ended.
pub(crate) fn proportional_kib(pid: Pid) -> io::Result<u64> {
    let text = match fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.as_raw_pid())) {
        Ok(text) => text,
        Err(_) if Process::of(pid).is_none_or(|it| it.state == 'Z') => return Ok(0),
        Err(error) => return Err(error),
    };
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    number.ok_or_else(|| io::Error::other(format!("no Pss of {pid:?}")))
}
