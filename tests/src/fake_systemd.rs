//! A stand-in for systemd's manager of services, on a real bus of its own (`dbus-daemon`): one unit, whose
//! properties a test sets. It tells of a change as systemd does: first that of the service, then that of the
//! unit, and of some properties only that they are others now (systemd 257, `src/core/dbus-unit.c`,
//! `send_changed_signal`; `src/core/dbus-service.c`).

#![expect(clippy::missing_panics_doc, reason = "a test that cannot have its bus fails")]

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use zbus::message::{Header, Type};
use zbus::{Connection, Message, MessageStream, ObjectPath, OwnedVariant, Variant};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1/unit/vllm_2eservice";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The unit that it has.
pub const VLLM_SERVICE: &str = "vllm.service";

/// Of which systemd tells only that they are others now.
const INVALIDATED: [&str; 2] = ["ExecMainCode", "ExecMainStatus"];

/// Longer than anything takes on a machine with much else to do.
const DEADLINE: Duration = Duration::from_secs(30);

/// See the module. It ends, with its bus, when it is dropped.
#[derive(Debug)]
pub struct FakeSystemd {
    bus: Connection,
    unit: Arc<Mutex<Unit>>,
    answering: JoinHandle<()>,
    _daemon: Child,
    directory: TempDir,
}

type Properties = HashMap<&'static str, OwnedVariant>;

#[derive(Debug)]
struct Unit {
    of_unit: Properties,
    of_service: Properties,
}

impl FakeSystemd {
    /// One whose unit has not been started yet; `None` where there is no `dbus-daemon`.
    pub async fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let mut daemon = daemon(directory.path())?;
        let address = address(directory.path());
        let connected = async {
            let mut looks = interval(Duration::from_millis(10));
            loop {
                looks.tick().await;
                if let Some(status) = daemon.try_wait().expect("a child") {
                    panic!("dbus-daemon has ended: {status}");
                }
                let builder = zbus::connection::Builder::address(address.as_str()).name(NAME);
                if let Ok(bus) = builder.build().await {
                    return bus;
                }
            }
        };
        let bus = timeout(DEADLINE, connected).await.expect("a bus in time");
        let unit = Arc::new(Mutex::new(Unit::at_rest()));
        #[expect(clippy::disallowed_methods, reason = "no actor owns it, but this does")]
        let answering = tokio::spawn(answer_all(bus.clone(), Arc::clone(&unit)));
        Some(Self { bus, unit, answering, _daemon: daemon, directory })
    }

    /// Where its bus is, for `DBUS_SYSTEM_BUS_ADDRESS`.
    pub fn address(&self) -> String {
        address(self.directory.path())
    }

    /// The unit is started, and this is its main process.
    pub async fn starts(&self, pid: u32) {
        let service = [("MainPID", pid.into()), ("Result", text("success"))];
        self.changes(&service, &states("active", "running")).await;
    }

    /// Its main process has ended, and what is left of it is cleared away.
    pub async fn ends(&self, result: &str, code: i32, status: i32) {
        let service = [
            ("MainPID", 0_u32.into()),
            ("Result", text(result)),
            ("ExecMainCode", code.into()),
            ("ExecMainStatus", status.into()),
        ];
        self.changes(&service, &states("deactivating", "final-sigterm")).await;
    }

    /// It waits until it starts it again.
    pub async fn awaits_restart(&self) {
        let restarts = self.restarts();
        let service = [("NRestarts", (restarts + 1).into()), ("RestartUSec", 100_000_u64.into())];
        self.changes(&service, &states("activating", "auto-restart")).await;
    }

    /// Somebody stops it.
    pub async fn is_being_stopped(&self) {
        self.changes(&[], &states("deactivating", "stop-sigterm")).await;
    }

    /// It rests.
    pub async fn rests(&self) {
        let service = [("MainPID", 0_u32.into())];
        self.changes(&service, &states("inactive", "dead")).await;
    }

    /// It is given up.
    pub async fn gives_up(&self, result: &str) {
        let service = [("MainPID", 0_u32.into()), ("Result", text(result))];
        self.changes(&service, &states("failed", "failed")).await;
    }

    fn restarts(&self) -> u32 {
        let unit = lock(&self.unit);
        unit.of_service.get("NRestarts").and_then(|it| u32::try_from(it).ok()).unwrap_or_default()
    }

    async fn changes(
        &self,
        service: &[(&'static str, OwnedVariant)],
        unit: &[(&'static str, OwnedVariant)],
    ) {
        {
            let mut known = lock(&self.unit);
            known.of_service.extend(service.iter().cloned());
            known.of_unit.extend(unit.iter().cloned());
        }
        for (interface, changed) in [(SERVICE, service), (UNIT, unit)] {
            let (quiet, told): (Vec<_>, Vec<_>) =
                changed.iter().partition(|(name, _)| INVALIDATED.contains(name));
            let told: HashMap<&str, &OwnedVariant> =
                told.into_iter().map(|(name, value)| (*name, value)).collect();
            let quiet: Vec<&str> = quiet.into_iter().map(|(name, _)| *name).collect();
            let body = (interface, told, quiet);
            let emitted =
                self.bus.emit_signal(None::<&str>, PATH, PROPERTIES, "PropertiesChanged", &body);
            emitted.await.expect("a bus that lives");
        }
    }
}

impl Drop for FakeSystemd {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

impl Unit {
    fn at_rest() -> Self {
        let of_unit = states("inactive", "dead").into_iter();
        Self {
            of_unit: of_unit.chain([("LoadState", text("loaded"))]).collect(),
            of_service: HashMap::from([
                ("MainPID", 0_u32.into()),
                ("Result", text("success")),
                ("NRestarts", 0_u32.into()),
                ("ExecMainCode", 0_i32.into()),
                ("ExecMainStatus", 0_i32.into()),
                ("RestartUSec", 100_000_u64.into()),
                ("ControlGroup", text("")),
            ]),
        }
    }

    fn of(&self, interface: &str) -> &Properties {
        if interface == UNIT { &self.of_unit } else { &self.of_service }
    }
}

fn states(active: &str, sub: &str) -> [(&'static str, OwnedVariant); 2] {
    [("ActiveState", text(active)), ("SubState", text(sub))]
}

fn text(value: &str) -> OwnedVariant {
    Variant::from(value).try_to_owned().expect("a text")
}

fn lock(unit: &Mutex<Unit>) -> MutexGuard<'_, Unit> {
    unit.lock().unwrap_or_else(PoisonError::into_inner)
}

fn address(directory: &Path) -> String {
    format!("unix:path={}", directory.join("bus").display())
}

/// A bus on which everybody may do everything.
fn daemon(directory: &Path) -> Option<Child> {
    let config = directory.join("bus.conf");
    let listen = address(directory);
    let text = format!(
        "<busconfig><listen>{listen}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
         <allow send_destination=\"*\"/><allow send_type=\"signal\"/><allow receive_sender=\"*\"/>\
         <allow own=\"*\"/><allow user=\"*\"/></policy></busconfig>"
    );
    fs::write(&config, text).expect("a file");
    #[expect(clippy::disallowed_methods, reason = "the bus is what is stood in for")]
    let mut command = Command::new("dbus-daemon");
    command
        .arg(format!("--config-file={}", config.display()))
        .args(["--nofork", "--nopidfile", "--nosyslog"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    match command.spawn() {
        Ok(child) => Some(child),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("dbus-daemon: {error}"),
    }
}

async fn answer_all(bus: Connection, unit: Arc<Mutex<Unit>>) {
    let mut messages = MessageStream::from(&bus);
    while let Some(Ok(message)) = messages.next().await {
        if message.message_type() == Type::MethodCall {
            // Who has hung up needs no answer.
            answer(&bus, &message, &message.header(), &unit).await.ok();
        }
    }
}

async fn answer(
    bus: &Connection,
    message: &Message,
    header: &Header<'_>,
    unit: &Mutex<Unit>,
) -> zbus::Result<()> {
    let body = message.body();
    match header.member().map(zbus::names::MemberName::as_str) {
        Some("Subscribe") => bus.reply(header, &()).await,
        Some("LoadUnit") => {
            let name: &str = body.deserialize()?;
            // As systemd: there is an object for whatever is asked for.
            let path = if name == VLLM_SERVICE { PATH } else { "/unit/none" };
            bus.reply(header, &ObjectPath::try_from(path)?).await
        }
        Some("GetAll") if header.path().is_some_and(|path| path.as_str() == PATH) => {
            let interface: &str = body.deserialize()?;
            let all = lock(unit).of(interface).clone();
            bus.reply(header, &all).await
        }
        Some("GetAll") => {
            let interface: &str = body.deserialize()?;
            if interface == UNIT {
                let none = HashMap::from([("LoadState", text("not-found"))]);
                return bus.reply(header, &none).await;
            }
            bus.reply(header, &HashMap::<&str, OwnedVariant>::new()).await
        }
        Some("Get") => {
            let (interface, name): (&str, &str) = body.deserialize()?;
            let value = lock(unit).of(interface).get(name).cloned();
            bus.reply(header, &value.unwrap_or_else(|| text(""))).await
        }
        _ => bus.reply_error(header, "org.freedesktop.DBus.Error.UnknownMethod", &"none").await,
    }
}
