//! `vllmd check`: would `run` get as far as starting vLLM? Starts nothing and leaves nothing.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::complaint::{Complaint, ComplaintBody};
use super::exit::Exit;
use super::{Output, config, plain, render, screen};
use crate::builder::{Holder, StateDirectory, address_problem, can_be_listened_at, left_running};
use crate::config::{Resolved, Sources};
use crate::preflight::{Assessment, Finding};
use crate::{LifecycleMode, StateDirectoryError, Supervisor};

/// How long a server may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Something that was looked at.
#[derive(Debug)]
struct Check {
    name: &'static str,
    /// How sure what was found is.
    status: &'static str,
    /// What was found, or what is wrong.
    outcome: Result<String, Complaint>,
}

/// Prints every setting, then what was looked at; what is wrong goes to stderr.
pub(super) fn check(sources: &Sources, output: Output) -> Exit {
    let (resolved, checks, complaints) = match Resolved::load(sources) {
        Ok(resolved) => {
            let checks = look_at(&resolved);
            let wrong = checks.iter().filter_map(|check| check.outcome.as_ref().err());
            let complaints = wrong.cloned().collect();
            (Some(resolved), checks, complaints)
        }
        Err(error) => (None, Vec::new(), Complaint::of_config(&error)),
    };
    let exit = if complaints.is_empty() { Exit::Done } else { Exit::Misconfigured };
    let exit = match (output, &resolved) {
        (Output::Text, Some(resolved)) => {
            screen::print(plain::lines(&in_words(resolved, &checks)), exit)
        }
        (Output::Text, None) => exit,
        (Output::Json, resolved) => {
            let report = Report::new(resolved.as_ref(), &checks, &complaints);
            screen::print(screen::json(&report), exit)
        }
    };
    complaints.iter().for_each(screen::tell);
    exit
}

fn look_at(resolved: &Resolved) -> Vec<Check> {
    let config = &resolved.config;
    let holder = StateDirectory::holder(&config.state_dir);
    let mut checks: Vec<Check> = Supervisor::check(config).iter().map(Check::of).collect();
    if config.lifecycle.mode == LifecycleMode::Managed {
        checks.push(Check::sure("port", look_at_port(resolved, holder.as_ref().ok())));
    } else {
        checks.push(look_at_server(SocketAddr::new(config.host, config.port)));
    }
    checks.push(Check::sure("state_dir", look_at_state_directory(&config.state_dir, holder)));
    checks
}

impl Check {
    fn sure(name: &'static str, outcome: Result<String, Complaint>) -> Self {
        let status = if outcome.is_ok() { "ok" } else { "failed" };
        Self { name, status, outcome }
    }

    fn of(finding: &Finding) -> Self {
        let name = finding.subject.as_str();
        match &finding.assessment {
            Assessment::Fatal(cause) => Self::sure(name, Err(Complaint::from(cause))),
            Assessment::Fine(said) => Self::sure(name, Ok(said.clone())),
            Assessment::Warning(said) => {
                Self { name, status: "warning", outcome: Ok(said.clone()) }
            }
            Assessment::Unknown(why) => Self { name, status: "unknown", outcome: Ok(why.clone()) },
            _ => Self { name, status: "unknown", outcome: Ok(String::new()) },
        }
    }
}

fn look_at_port(resolved: &Resolved, holder: Option<&Option<Holder>>) -> Result<String, Complaint> {
    let config = &resolved.config;
    let address = SocketAddr::new(config.host, config.port);
    match (can_be_listened_at(address), left_running(&config.state_dir, address)) {
        (Ok(()), _) => Ok(format!("{address} is free")),
        (Err(_), Some(pid)) => Ok(match holder {
            Some(Some(Holder::Process { pid: supervisor })) => {
                format!(
                    "vLLM is there already (pid {pid}), that of the supervisor with pid {supervisor}"
                )
            }
            Some(Some(Holder::Nobody | Holder::Unknown { .. }) | None) | None => format!(
                "vLLM is there already (pid {pid}); `run` takes it over, or replaces it if its settings differ"
            ),
        }),
        (Err(fault), None) => Err(match address_problem(config, &fault) {
            Some(problem) => Complaint::of_problem(&problem, &resolved.origins),
            None => Complaint::from(&fault.cause()),
        }),
    }
}

/// Whether there is somebody to be watched.
fn look_at_server(address: SocketAddr) -> Check {
    let (status, said) = match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
        Ok(_) => ("ok", format!("somebody listens at {address}; `run` tells who it is")),
        Err(error) => ("warning", format!("nobody answers at {address}: {error}")),
    };
    Check { name: "server", status, outcome: Ok(said) }
}

fn look_at_state_directory(
    path: &Path,
    holder: Result<Option<Holder>, StateDirectoryError>,
) -> Result<String, Complaint> {
    let shown = path.display();
    match holder.map_err(|error| Complaint::from(&error))? {
        Some(Holder::Nobody) => Ok(format!("{shown} can be used")),
        Some(Holder::Process { pid }) => {
            Ok(format!("{shown} is used by a supervisor that runs (pid {pid})"))
        }
        Some(Holder::Unknown { why }) => Ok(format!(
            "{shown} can be used unless a supervisor that runs uses it, which is not known: {why}"
        )),
        // To make it and remove it again could hit a `run` that starts just now.
        None => match something_can_be_made_below(path) {
            Ok(()) => Ok(format!("{shown} can be used")),
            Err(source) => {
                let path = path.to_owned();
                Err(Complaint::from(&StateDirectoryError::Unusable { path, source }))
            }
        },
    }
}

/// Whether a directory can be made in the nearest directory above `path` that there is.
fn something_can_be_made_below(path: &Path) -> io::Result<()> {
    let nearest = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    let probe = nearest.join(format!(".vllmd-check-{}", std::process::id()));
    fs::create_dir(&probe)?;
    fs::remove_dir(&probe)
}

fn in_words(resolved: &Resolved, checks: &[Check]) -> String {
    let line = |Check { name, status, outcome }: &Check| match outcome {
        Ok(found) => format!("\n{name:12}  {status:7}  {}", plain::unbroken(found)),
        Err(complaint) => {
            format!("\n{name:12}  {status:7}  {}", plain::unbroken(&complaint.to_string()))
        }
    };
    let checks: Vec<String> = checks.iter().map(line).collect();
    format!("{}\n{}", render::settings(&resolved.origins), checks.concat())
}

/// What `--output json` prints.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    settings: Option<Vec<config::SettingBody<'a>>>,
    checks: Vec<CheckBody<'a>>,
    problems: Vec<ComplaintBody<'a>>,
}

#[derive(Serialize)]
struct CheckBody<'a> {
    name: &'static str,
    status: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ComplaintBody<'a>>,
}

impl<'a> Report<'a> {
    fn new(
        resolved: Option<&'a Resolved>,
        checks: &'a [Check],
        complaints: &'a [Complaint],
    ) -> Self {
        let check = |Check { name, status, outcome }: &'a Check| CheckBody {
            name,
            status,
            ok: outcome.is_ok(),
            found: outcome.as_deref().ok(),
            error: outcome.as_ref().err().map(Complaint::body),
        };
        Self {
            ok: complaints.is_empty(),
            settings: resolved.map(config::settings),
            checks: checks.iter().map(check).collect(),
            problems: complaints.iter().map(Complaint::body).collect(),
        }
    }
}
