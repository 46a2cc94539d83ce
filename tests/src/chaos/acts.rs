//! How each fault is done.

use std::time::Duration;

use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

use super::fault::{Fault, Hindrance, Role, Shared, Successor, Thief, Tracker};
use super::held::Held;
use super::observer::{Listener, Member};
use super::run::{CLEAN, END, Outcome, Run};
use super::schedule::StopOnExit;
use super::supervisor::{Heard, Supervisor};
use crate::process_table::Process;

/// How long a second supervisor tries to get at the first one's port.
const RIVALRY: Duration = Duration::from_secs(3);
/// How long the thief tries to take the port after its owner's death.
const THEFT: Duration = Duration::from_secs(1);

impl Run<'_> {
    pub(super) async fn apply(&mut self, fault: &Fault) -> Outcome {
        match fault {
            Fault::Kill { victim, signal } => self.kill(*victim, *signal),
            Fault::Massacre { tracker } => self.massacre(*tracker),
            Fault::Term { times } => self.terminate(*times).await,
            Fault::KillSupervisor { successor } => self.kill_supervisor(*successor).await,
            Fault::SecondSupervisor { shares: Shared::StateDirectory } => {
                self.rival_for_the_state_directory().await
            }
            Fault::SecondSupervisor { shares: Shared::Port } => self.rival_for_the_port().await,
            Fault::Orders(orders) => {
                for order in orders {
                    self.order(*order).await;
                }
                Ok(())
            }
            Fault::Hindrance { hindrance, lasting, meanwhile } => {
                let held = self.hinder(*hindrance).await?;
                self.advance(*lasting / 2, |_, _| false).await?;
                if let Some(fault) = meanwhile {
                    Box::pin(self.apply(fault)).await?;
                }
                self.advance(*lasting / 2, |_, _| false).await?;
                self.lift(held).await;
                Ok(())
            }
        }
    }

    fn kill(&mut self, victim: Role, signal: Signal) -> Outcome {
        let look = self.look()?;
        match look.all().find(|member| member.role == victim) {
            Some(member) => self.note(format!("{signal:?} for {}", send(member, signal))),
            None => self.note(format!("there is no {victim:?}")),
        }
        Ok(())
    }

    fn massacre(&mut self, tracker: Tracker) -> Outcome {
        let look = self.look()?;
        let is_tracker = |member: &&Member| member.role == Role::ResourceTracker;
        if tracker == Tracker::Killed {
            // First, or it would remove what the others leave.
            look.members.iter().filter(is_tracker).for_each(|it| drop(send(it, Signal::KILL)));
        }
        let others = look.members.iter().filter(|member| !is_tracker(member));
        others.for_each(|it| drop(send(it, Signal::KILL)));
        Ok(())
    }

    async fn terminate(&mut self, times: u64) -> Outcome {
        for _ in 0..times {
            self.supervisor.signal(Signal::TERM);
            // Signals of one number that are pending are one signal (signal(7)).
            tokio::task::yield_now().await;
            self.advance(Duration::from_millis(5), |_, _| false).await?;
        }
        self.ends(&[143, 0]).await?;
        self.goes_along_with_its_supervisor().await?;
        self.begin_another()
    }

    async fn kill_supervisor(&mut self, successor: Successor) -> Outcome {
        self.supervisor.signal(Signal::KILL);
        let ended = tokio::time::timeout(END, self.supervisor.end()).await;
        if ended.is_err() {
            return Err("SIGKILL has not ended it".to_owned());
        }
        self.heard.lock().state = None;
        if successor == Successor::Later {
            self.goes_along_with_its_supervisor().await?;
        }
        self.begin_another()
    }

    /// With `stop_on_exit` nothing of vLLM outlives its supervisor by more than two seconds.
    async fn goes_along_with_its_supervisor(&mut self) -> Outcome {
        self.heard.lock().state = None;
        match self.schedule.stop_on_exit {
            StopOnExit::Yes => self.nothing_lives(CLEAN).await,
            StopOnExit::No => self.advance(CLEAN, |_, _| false).await.map(drop),
        }
    }

    async fn rival_for_the_state_directory(&mut self) -> Outcome {
        let mut rival = self.rival("state")?;
        self.advance(END, |_, _| rival.0.ended().is_some()).await?;
        let status = rival.0.ended();
        let first_has_ended = self.supervisor.ended().is_some();
        let outcome = match status {
            Some(status) if status.code() == Some(2) => Ok(()),
            // The directory was free.
            Some(_) | None if first_has_ended => Ok(()),
            Some(status) => Err(format!("a second supervisor on the directory: {status}")),
            None => Err("a second supervisor on the directory runs".to_owned()),
        };
        rival.0.signal(Signal::KILL);
        self.place.second.kill_all();
        outcome
    }

    async fn rival_for_the_port(&mut self) -> Outcome {
        let (mut rival, heard) = self.rival("other-state")?;
        let end = Instant::now() + RIVALRY;
        let mut usurped = None;
        while Instant::now() < end && usurped.is_none() {
            let said = heard.lock().state().map(str::to_owned);
            let look = self.look()?;
            if said.as_deref() == Some("running") && look.listener == Listener::Ours {
                usurped = Some("a second supervisor says running of the first one's vLLM");
            }
            self.advance(Duration::ZERO, |_, _| true).await?;
        }
        rival.signal(Signal::TERM);
        let ended = self.advance(END, |_, _| rival.ended().is_some()).await?;
        let left = self.place.second.processes();
        self.place.second.kill_all();
        match usurped {
            Some(usurped) => Err(usurped.to_owned()),
            None if !ended => Err("the second supervisor does not end".to_owned()),
            None if self.schedule.stop_on_exit == StopOnExit::Yes && !left.is_empty() => {
                Err(format!("the second supervisor left: {left:#?}"))
            }
            None => Ok(()),
        }
    }

    fn rival(&self, state: &str) -> Outcome<(Supervisor, Heard)> {
        let heard = Heard::default();
        let command = self.place.rival(state);
        let rival = command.and_then(|command| Supervisor::start(command, &heard));
        rival.map(|rival| (rival, heard)).map_err(|error| format!("no second supervisor: {error}"))
    }

    async fn hinder(&mut self, hindrance: Hindrance) -> Outcome<Held> {
        Ok(match hindrance {
            Hindrance::Suspension => {
                self.suspended = true;
                Held::suspend(self.supervisor.pid)
            }
            Hindrance::FullDisk => match &self.place.disk {
                Ok(disk) => {
                    disk.fill().map_err(|error| format!("the disk cannot be filled: {error}"))?;
                    Held::FullDisk
                }
                Err(reason) => {
                    self.unchecked.insert(format!("a full disk: {reason}"));
                    Held::Nothing
                }
            },
            // One that has not begun yet does not begin, says so, and is started again by others.
            Hindrance::NoDescriptors if self.heard.lock().state.is_none() => Held::Nothing,
            Hindrance::NoDescriptors => match Held::limit_descriptors(self.supervisor.pid) {
                Ok(held) => held,
                Err(error) => {
                    self.unchecked.insert(format!("no descriptors: {error}"));
                    Held::Nothing
                }
            },
            Hindrance::StoppedMember(role) => {
                let look = self.look()?;
                let member = look.all().find(|member| member.role == role);
                member.map_or(Held::Nothing, |member| Held::stop_member(member.process.pid))
            }
            Hindrance::StolenPort(thief) => self.steal_port(thief).await?,
        })
    }

    async fn steal_port(&mut self, thief: Thief) -> Outcome<Held> {
        self.kill(Role::ApiServer, Signal::KILL)?;
        let (port, mut held) = (self.place.port, Held::Nothing);
        self.advance(THEFT, |_, _| match Held::steal_port(port, thief) {
            Ok(stolen) => {
                held = stolen;
                true
            }
            Err(_) => false,
        })
        .await?;
        Ok(held)
    }

    async fn lift(&mut self, held: Held) {
        if let (Held::FullDisk, Ok(disk)) = (&held, &self.place.disk) {
            disk.free();
        }
        if let Held::Suspension(_) = &held {
            self.suspended = false;
            self.invariants.forget_time();
        }
        held.lift().await;
    }
}

/// Sends a signal to a process that is still the one that was seen; returns who that is.
fn send(member: &Member, signal: Signal) -> String {
    let process = &member.process;
    let name = format!("{:?} {}", member.role, process.pid.as_raw_pid());
    let Ok(pidfd) = pidfd_open(process.pid, PidfdFlags::empty()) else { return name };
    if Process::of(process.pid).is_some_and(|now| now.session == process.session) {
        // One that has just died is as it should be.
        pidfd_send_signal(&pidfd, signal).ok();
    }
    name
}
