//! Asks systemd about a unit, over the system's D-Bus (`org.freedesktop.systemd1(5)`).
//!
//! What has changed comes as signals: of one change first that of the service, then that of the unit, and the
//! second completes a reading (systemd 257, `src/core/dbus-unit.c`, `send_changed_signal`). What the signals
//! do not carry is asked for. All of it is asked anew now and then: nothing stays unheard for ever.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use zbus::message::{Sequence, Type};
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant};

use super::listener::Members;
use crate::domain::absence::ScanError;
use crate::domain::diagnosis::Exit;
use crate::domain::unit::{Activity, UnitReading, UnitStatus};
use crate::ports::{Pending, UnitReadings, UnitSource};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: (&str, &str) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The longest that one answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// How often all is asked anew.
const AGAIN: Duration = Duration::from_secs(10);

/// The pause after a bus, or a manager, that could not be asked.
const PAUSE: Duration = Duration::from_secs(2);

/// Where control groups are shown.
const CGROUPS: &str = "/sys/fs/cgroup";

/// See the module.
#[derive(Clone, Debug)]
pub struct SystemdUnit {
    name: String,
    /// Where its processes are, by the last reading.
    place: Arc<Mutex<Place>>,
}

/// Where the processes of a unit are.
#[derive(Clone, Debug, Default)]
struct Place {
    main_pid: Option<u32>,
    control_group: Option<String>,
}

impl SystemdUnit {
    /// The unit of this name, such as `vllm.service`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), place: Arc::default() }
    }

    /// Tells its processes.
    pub fn members(&self) -> Members {
        let place = Arc::clone(&self.place);
        Arc::new(move || {
            let place = place.lock().unwrap_or_else(PoisonError::into_inner).clone();
            members(&place, Path::new(CGROUPS))
        })
    }
}

fn members(place: &Place, cgroups: &Path) -> Result<Vec<u32>, ScanError> {
    let mut pids: Vec<u32> = place.main_pid.into_iter().collect();
    if let Some(group) = &place.control_group {
        let directory = cgroups.join(group.trim_start_matches('/'));
        processes_below(&directory, &mut pids)
            .map_err(|(path, error)| ScanError::new(path.display().to_string(), &error))?;
    }
    Ok(pids)
}

/// Those of a control group and of those below it; of one that is gone there are none.
fn processes_below(directory: &Path, pids: &mut Vec<u32>) -> Result<(), (PathBuf, io::Error)> {
    let procs = directory.join("cgroup.procs");
    match fs::read_to_string(&procs) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err((procs, error)),
    }
    let of_directory = |error| (directory.to_owned(), error);
    for entry in fs::read_dir(directory).map_err(of_directory)? {
        let entry = entry.map_err(of_directory)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes_below(&entry.path(), pids)?;
        }
    }
    Ok(())
}

impl UnitSource for SystemdUnit {
    fn follow(&self) -> Box<dyn UnitReadings> {
        Box::new(Following { unit: self.clone(), told: None, stage: Stage::Apart })
    }
}

/// Follows a unit.
struct Following {
    unit: SystemdUnit,
    /// What was told last.
    told: Option<UnitReading>,
    stage: Stage,
}

/// How far it has come.
enum Stage {
    /// There is no connection.
    Apart,
    /// There is one; it is asked about the unit at this path.
    Asking(Box<Line>),
}

/// A connection, with the unit at the other end.
struct Line {
    bus: Connection,
    path: OwnedObjectPath,
    signals: MessageStream,
    known: Properties,
    /// Who answers by the manager's name: nobody else is believed.
    manager: Option<String>,
    /// When all was asked last.
    asked: Sequence,
    /// When all is asked next, whoever says what until then.
    due: Instant,
}

impl UnitReadings for Following {
    fn next_reading(&mut self) -> Pending<'_, UnitReading> {
        Box::pin(async move {
            loop {
                let reading = self.look().await;
                if let UnitReading::Seen(status) = &reading {
                    let place = Place {
                        main_pid: status.main_pid,
                        control_group: status.control_group.clone(),
                    };
                    *self.unit.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
                }
                if self.told.as_ref() != Some(&reading) {
                    self.told = Some(reading.clone());
                    return reading;
                }
            }
        })
    }
}

impl Following {
    /// The next thing that is known, news or not.
    async fn look(&mut self) -> UnitReading {
        if let Stage::Asking(line) = &mut self.stage {
            if let Ok(reading) = line.next(&self.unit.name).await {
                return reading;
            }
            // A manager that reads its configuration anew may be late once.
            self.stage = Stage::Apart;
        } else if self.told.is_some() {
            tokio::time::sleep(PAUSE).await;
        }
        match Line::open(&self.unit.name).await {
            Ok(line) => {
                let reading = line.reading(&self.unit.name);
                self.stage = Stage::Asking(Box::new(line));
                reading
            }
            Err(error) => UnitReading::Unseen(error),
        }
    }
}

impl Line {
    /// Begins to follow the unit.
    async fn open(name: &str) -> Result<Self, String> {
        let bus = in_time(Connection::system()).await?;
        let (at, of) = (MANAGER.0, Some(MANAGER.1));
        in_time(bus.call_method(Some(SYSTEMD), at, of, "Subscribe", &())).await?;
        let body = (name,);
        let path = in_time(bus.call_method(Some(SYSTEMD), at, of, "LoadUnit", &body)).await?;
        let path: OwnedObjectPath = path.body().deserialize().map_err(said)?;
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SYSTEMD)
            .interface(PROPERTIES)
            .member("PropertiesChanged")
            .path(path.clone())
            .build()
            .map_err(said)?;
        let signals = in_time(MessageStream::for_match_rule(rule, &bus, None)).await?;
        let (known, manager, asked) = (Properties::default(), None, Sequence::default());
        let mut line = Self { bus, path, signals, known, manager, asked, due: Instant::now() };
        line.ask().await?;
        Ok(line)
    }

    /// Waits for a change, or until all is to be asked anew.
    async fn next(&mut self, name: &str) -> Result<UnitReading, String> {
        loop {
            let signal = timeout_at(self.due, next_of(&mut self.signals)).await;
            match signal {
                Ok(Some(Ok(signal))) if self.hear(&signal).await? => break,
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return Err(error.to_string()),
                Ok(None) => return Err("the bus has closed the connection".to_owned()),
                Err(_) => {
                    self.ask().await?;
                    break;
                }
            }
        }
        Ok(self.reading(name))
    }

    /// Takes a signal, and tells whether it completes a reading.
    async fn hear(&mut self, signal: &Message) -> Result<bool, String> {
        type Changed = (String, HashMap<String, OwnedVariant>, Vec<String>);
        // Anybody may send such a signal to us. And what was said before all was asked is known.
        let is_of_manager = signal.header().sender().map(ToString::to_string) == self.manager;
        if !is_of_manager || signal.recv_position() < self.asked {
            return Ok(false);
        }
        let (interface, changed, invalidated): Changed =
            signal.body().deserialize().map_err(said)?;
        let interface = match interface.as_str() {
            UNIT => UNIT,
            SERVICE => SERVICE,
            _ => return Ok(false),
        };
        self.known.0.extend(changed);
        let quiet = invalidated.iter().map(String::as_str).filter(|name| ASKED.contains(name));
        let wanted: Vec<&str> = quiet.collect();
        // It is said by no signal.
        match self.known.number("MainPID") {
            None | Some(0) => drop(self.known.0.remove("ControlGroup")),
            Some(_) if interface == UNIT => self.get(SERVICE, "ControlGroup").await?,
            Some(_) => {}
        }
        for name in wanted {
            self.get(interface, name).await?;
        }
        Ok(interface == UNIT)
    }

    async fn get(&mut self, interface: &str, name: &str) -> Result<(), String> {
        let (path, body) = (self.path.as_str(), (interface, name));
        let answer = self.bus.call_method(Some(SYSTEMD), path, Some(PROPERTIES), "Get", &body);
        let value: OwnedVariant = in_time(answer).await?.body().deserialize().map_err(said)?;
        self.known.0.insert(name.to_owned(), value);
        Ok(())
    }

    async fn ask(&mut self) -> Result<(), String> {
        self.due = Instant::now() + AGAIN;
        // Of what is said between the two answers the first does not know.
        self.asked = self.ask_of(SERVICE).await?;
        self.ask_of(UNIT).await.map(drop)
    }

    async fn ask_of(&mut self, interface: &str) -> Result<Sequence, String> {
        let (path, body) = (self.path.as_str(), (interface,));
        let call = self.bus.call_method(Some(SYSTEMD), path, Some(PROPERTIES), "GetAll", &body);
        let answer = in_time(call).await?;
        let all: HashMap<String, OwnedVariant> = answer.body().deserialize().map_err(said)?;
        self.known.0.extend(all);
        self.manager = answer.header().sender().map(ToString::to_string);
        Ok(answer.recv_position())
    }

    fn reading(&self, name: &str) -> UnitReading {
        // There is an object for whatever is asked for.
        if self.known.text("LoadState") == Some("not-found") {
            return UnitReading::NotFound;
        }
        UnitReading::Seen(self.known.status(name))
    }
}

/// What of a unit is asked for, where a signal says only that it is another now.
const ASKED: [&str; 10] = [
    "ActiveState",
    "SubState",
    "LoadState",
    "Result",
    "MainPID",
    "NRestarts",
    "ExecMainCode",
    "ExecMainStatus",
    "RestartUSec",
    "ControlGroup",
];

/// What is known of a unit, by the names of its properties.
#[derive(Default)]
struct Properties(HashMap<String, OwnedVariant>);

impl Properties {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|value| <&str>::try_from(value).ok())
    }

    /// Of whichever width it is.
    fn number(&self, name: &str) -> Option<u64> {
        let value = self.0.get(name)?;
        let wide = u64::try_from(value).ok();
        let signed = || i32::try_from(value).ok().and_then(|it| u64::try_from(it).ok());
        wide.or_else(|| u32::try_from(value).ok().map(u64::from)).or_else(signed)
    }

    fn status(&self, name: &str) -> UnitStatus {
        let number = |name| self.number(name).and_then(|it| u32::try_from(it).ok());
        let text = |name, otherwise: &str| self.text(name).unwrap_or(otherwise).to_owned();
        let mut status = UnitStatus::inactive(name);
        status.active = Activity::named(self.text("ActiveState").unwrap_or_default());
        status.sub = text("SubState", "");
        status.result = text("Result", &status.result);
        status.main_pid = number("MainPID").filter(|pid| *pid > 0);
        status.exit = self.exit();
        status.restarts = number("NRestarts").unwrap_or_default();
        status.restart_after = self.number("RestartUSec").map(Duration::from_micros);
        let group = self.text("ControlGroup").filter(|group| !group.is_empty());
        status.control_group = group.map(str::to_owned);
        status
    }

    /// As waitid(2) tells it: `CLD_EXITED`, `CLD_KILLED` or `CLD_DUMPED`, and the status or the signal.
    fn exit(&self) -> Option<Exit> {
        let status = i32::try_from(self.number("ExecMainStatus")?).ok()?;
        match self.number("ExecMainCode")? {
            1 => Some(Exit::Code(status)),
            2 | 3 => Some(Exit::Signal(status)),
            _ => None,
        }
    }
}

async fn next_of(signals: &mut MessageStream) -> Option<zbus::Result<Message>> {
    std::future::poll_fn(|context| {
        futures_core::Stream::poll_next(std::pin::Pin::new(&mut *signals), context)
    })
    .await
}

async fn in_time<T>(answer: impl Future<Output = zbus::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(answer) => answer.map_err(said),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// In the words of whoever refused, where somebody did.
fn said(error: impl fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests;
