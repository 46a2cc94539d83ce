//! The log records on stderr: which, and in what form.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use super::Output;
use super::complaint::Complaint;
use super::stderr::Stderr;

/// The variable that says which records are wanted, in the words of
/// [`EnvFilter`].
const VARIABLE: &str = "VLLMD_LOG";

/// Events are on stdout already, so of these only what went wrong is repeated.
const USUAL: &str = "warn";

/// Where both streams are the same terminal, not even that.
const USUAL_ON_TERMINAL: &str = "warn,vllm_supervisor_actors::root::publish=off";

/// Sends the log records of this process to stderr.
pub(super) fn install(format: Output, stderr: &Stderr) -> Result<(), Complaint> {
    let filter = filter()?;
    let writer = stderr.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let installed = match format {
        Output::Text => subscriber.finish().try_init(),
        Output::Json => subscriber.json().finish().try_init(),
    };
    installed.map_err(|error| Complaint::of_error(&error))
}

fn filter() -> Result<EnvFilter, Complaint> {
    let wanted = env::var(VARIABLE).ok().filter(|wanted| !wanted.trim().is_empty());
    let usual = || {
        let is_one_terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        if is_one_terminal { USUAL_ON_TERMINAL } else { USUAL }.to_owned()
    };
    let wanted = wanted.unwrap_or_else(usual);
    EnvFilter::try_new(&wanted).map_err(|error| {
        let remedy = "give a level (error, warn, info, debug, trace), or target=level with commas";
        Complaint::new(format!("{VARIABLE}: {error}, found `{wanted}`"), remedy)
    })
}
