//! The log records on stderr: which, and in what form.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
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
    let wanted = match env::var(VARIABLE) {
        Ok(wanted) => Some(wanted).filter(|wanted| !wanted.trim().is_empty()),
        Err(env::VarError::NotPresent) => None,
        Err(error @ env::VarError::NotUnicode(_)) => return Err(Complaint::of_error(&error)),
    };
    let usual = || {
        let is_one_terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        if is_one_terminal { USUAL_ON_TERMINAL } else { USUAL }.to_owned()
    };
    let wanted = wanted.unwrap_or_else(usual);
    read(&wanted).map_err(|error| {
        let remedy = "give a level (error, warn, info, debug, trace), or target=level with commas";
        Complaint::new(format!("{VARIABLE}: {error}, found `{wanted}`"), remedy)
    })
}

/// A word that is no level names a target, of which everything is wanted, and of all others nothing:
/// `warning` would silence all.
fn read(wanted: &str) -> Result<EnvFilter, String> {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let is_target = |word: &str| word.contains(['=', '[', ':', '_']);
    let words = wanted.split(',').map(str::trim).filter(|word| !word.is_empty());
    match words.into_iter().find(|word| !is_level(word) && !is_target(word)) {
        Some(word) => Err(format!("`{word}` is no level")),
        None => EnvFilter::try_new(wanted).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_and_silences_nobody() {
        for wanted in ["warning", "verbose", "info,all", "errors"] {
            assert!(read(wanted).is_err(), "{wanted}");
        }
        for wanted in ["warn", "WARN", "off", "2", "info,", "vllm_supervisor", "warn,a::b=off"] {
            assert!(read(wanted).is_ok(), "{wanted}");
        }
    }
}
