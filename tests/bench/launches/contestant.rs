//! Who launches vLLM, and what it is put through.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use tokio::io::{BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::{Instant, interval, timeout};
use vllm_supervisor_tests::process_table::Process;
use vllm_supervisor_tests::scenario::free_port;

use super::client::Client;
use super::{Outcome, PATIENCE, Stage};
use crate::command::{Place, Settings, proportional_kib};
use crate::supervisord;

/// How often it is looked whether a process has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// Who launches vLLM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contestant {
    /// `vllm serve` in a loop of the shell.
    Plain,
    /// supervisord, with `autorestart=true`.
    Supervisord,
    /// `vllmd` with `launch: cold`.
    Cold,
    /// `vllmd` with `launch: warm`.
    Warm,
}

impl Contestant {
    pub(super) const ALL: [Self; 4] = [Self::Plain, Self::Supervisord, Self::Cold, Self::Warm];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Supervisord => "supervisord",
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }

    pub(super) fn is_vllmd(self) -> bool {
        matches!(self, Self::Cold | Self::Warm)
    }
}

/// A contestant that runs. Dropped, nothing of it is left.
pub(super) struct Running<'a> {
    pub(super) stage: &'a Stage<'a>,
    pub(super) contestant: Contestant,
    pub(super) client: Client,
    started: Instant,
    child: Child,
    /// Of a `vllmd`.
    events: Option<Lines<BufReader<ChildStdout>>>,
    /// Shared memory that vLLM has had.
    segments: BTreeSet<PathBuf>,
    // Last, so that the child is killed before all that it has started.
    pub(super) place: Place,
}

impl<'a> Running<'a> {
    pub(super) fn start(stage: &'a Stage<'a>, contestant: Contestant) -> Outcome<Self> {
        let place = Place::bare(stage.plan, stage.environment()?, PATIENCE)?;
        let client = Client::new(place.port)?;
        let started = Instant::now();
        let (child, events) = launch(stage, contestant, &place, &stage.model)?;
        let segments = BTreeSet::new();
        Ok(Self { stage, contestant, client, started, child, events, segments, place })
    }

    /// Starts it anew after a stop, with this model.
    pub(super) fn run(&mut self, model: &str) -> Outcome<()> {
        (self.child, self.events) = launch(self.stage, self.contestant, &self.place, model)?;
        Ok(())
    }

    /// Waits for the first 200 of `/health`, and says how long that took from its start.
    pub(super) async fn serves(&mut self) -> Outcome<Duration> {
        tokio::select! {
            healthy = self.client.is_healthy() => healthy?,
            status = self.child.wait() => return Err(format!("it ended: {}", status?).into()),
        }
        let elapsed = self.started.elapsed();
        self.told().await?;
        Ok(elapsed)
    }

    /// Kills a worker, or the engine where there is none, and says how long it took until another
    /// vLLM had completed a prompt, and how much of that was a pause that was told.
    pub(super) async fn completes_after_a_death(
        &mut self,
    ) -> Outcome<(Duration, Option<Duration>)> {
        let before = self.place.census.processes();
        self.segments.extend(self.place.census.shared_memory());
        let titled = |title: &str| before.iter().find(|it| it.title.starts_with(title));
        let victim = titled("VLLM::Worker").or_else(|| titled("VLLM::EngineCore"));
        let victim = victim.ok_or("there is neither a worker nor an engine")?.pid;
        let ending: Vec<Ending> =
            fronts(&before).map(|it| Ending::of(it.pid)).collect::<io::Result<_>>()?;
        if ending.is_empty() {
            return Err("there is no front".into());
        }
        let killed = Instant::now();
        kill_process(victim, Signal::KILL)?;
        // The answer is to be another's.
        for front in ending {
            front.came().await?;
        }
        self.client.completes(&self.stage.model).await?;
        let elapsed = killed.elapsed();
        Ok((elapsed, self.told().await?))
    }

    /// The memory of everything that belongs to it, in KiB; of what several share, each has a part.
    pub(super) fn memory(&self) -> Outcome<f64> {
        let mut sum = 0;
        for process in self.place.census.processes() {
            sum += proportional_kib(process.pid)?;
        }
        Ok(crate::command::as_f64(sum))
    }

    /// Asks it to end, vLLM with it, and waits until both have.
    pub(super) async fn stop(&mut self) -> Outcome<()> {
        let before = self.place.census.processes();
        self.segments.extend(self.place.census.shared_memory());
        let ending: Vec<Ending> =
            fronts(&before).map(|it| Ending::of(it.pid)).collect::<io::Result<_>>()?;
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            kill_process(pid, Signal::TERM)?;
        }
        timeout(PATIENCE, self.child.wait()).await??;
        for front in ending {
            if self.contestant == Contestant::Plain {
                front.ask()?;
            }
            front.came().await?;
        }
        Ok(())
    }

    /// Stops it, unless it has been, and kills what is left.
    pub(super) async fn end(mut self) -> Outcome<()> {
        if self.child.id().is_some() {
            self.stop().await?;
        }
        Ok(())
    }

    /// Reads what a `vllmd` tells until it serves by a launch such as was asked for: the pause before
    /// that launch, if there was one.
    async fn told(&mut self) -> Outcome<Option<Duration>> {
        let Some(events) = &mut self.events else { return Ok(None) };
        let (mut delay, mut runs, mut launch) = (None, false, None);
        let all = async {
            while !runs || launch.is_none() {
                let line = events.next_line().await?.ok_or("vllmd ended")?;
                let event: Value = serde_json::from_str(&line)?;
                match event["type"].as_str() {
                    Some("restart_scheduled") => {
                        delay = event["delay_ms"].as_u64().map(Duration::from_millis);
                    }
                    Some("launch_timed") => launch = event["launch"].as_str().map(str::to_owned),
                    Some("state_changed") => runs = event["to"] == "running",
                    _ => {}
                }
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        };
        timeout(PATIENCE, all).await.map_err(|_| "vllmd does not tell that it serves")??;
        match launch {
            Some(launch) if launch == self.contestant.name() => Ok(delay),
            launch => Err(format!("vLLM was launched {launch:?}").into()),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.child.start_kill().ok();
        self.place.census.kill_all();
        for segment in &self.segments {
            // Whoever had it has removed it, as a rule.
            fs::remove_file(segment).ok();
        }
    }
}

type Started = (Child, Option<Lines<BufReader<ChildStdout>>>);

fn launch(
    stage: &Stage<'_>,
    contestant: Contestant,
    place: &Place,
    model: &str,
) -> Outcome<Started> {
    let command_line = stage.command_line(model, place.port);
    let file = |name: &str| place.directory.path().join(name);
    match contestant {
        Contestant::Plain => {
            let script = file("loop.sh");
            fs::write(&script, format!("while :; do {command_line}; done\n"))?;
            Ok((place.command("sh").arg(script).spawn()?, None))
        }
        Contestant::Supervisord => {
            let configuration = file("supervisord.conf");
            let directory = place.directory.path();
            let text = supervisord::configuration(&command_line, directory, free_port());
            fs::write(&configuration, text)?;
            let program = stage.supervisord.as_ref().ok_or("there is no supervisord")?;
            let mut command = place.command(program);
            command.args(["--nodaemon", "--configuration"]).arg(configuration);
            Ok((command.spawn()?, None))
        }
        Contestant::Cold | Contestant::Warm => {
            place.configure(&Settings {
                model,
                command: &stage.vllm,
                arguments: &format!("{:?}", stage.arguments()),
                lifecycle: &format!("stop_on_exit: true, launch: {}", contestant.name()),
            })?;
            let vllmd = place.start()?;
            Ok((vllmd.child, Some(vllmd.stdout)))
        }
    }
}

/// The main processes of vLLM; one, unless something went wrong.
fn fronts(processes: &[Process]) -> impl Iterator<Item = &Process> {
    processes.iter().filter(|it| it.title.contains(" serve "))
}

/// The end of a process, to be waited for.
struct Ending(OwnedFd);

impl Ending {
    fn of(pid: Pid) -> io::Result<Self> {
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Asks for it.
    fn ask(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.0, Signal::TERM)?)
    }

    async fn came(self) -> Outcome<()> {
        let mut looks = interval(PAUSE);
        let ended = async {
            loop {
                looks.tick().await;
                let pidfd = PollFd::new(&self.0, PollFlags::IN);
                if poll(&mut [pidfd], Some(&Timespec::default()))? == 1 {
                    return Ok::<_, io::Error>(());
                }
            }
        };
        Ok(timeout(PATIENCE, ended).await.map_err(|_| "vLLM does not end")??)
    }
}
