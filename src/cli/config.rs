//! `vllmd config`: what the configuration is, and what it may be.

use serde_json::{Value, json};

use super::complaint::Complaint;
use super::exit::Exit;
use super::{Output, render, screen};
use crate::config::{Origin, Resolved, Setting, Sources};

/// Prints every setting with its value and origin.
pub(super) fn show(sources: &Sources, output: Output) -> Exit {
    let resolved = match Resolved::load(sources) {
        Ok(resolved) => resolved,
        Err(error) => {
            Complaint::of_config(&error).iter().for_each(screen::tell);
            return Exit::Misconfigured;
        }
    };
    let text = match output {
        Output::Text => render::settings(&resolved.origins),
        Output::Json => format!("{:#}", json!({ "settings": settings(&resolved) })),
    };
    screen::print(text, Exit::Done)
}

/// Prints the JSON schema of the configuration file.
pub(super) fn schema() -> Exit {
    screen::print(format_args!("{:#}", crate::config::schema()), Exit::Done)
}

/// The settings as JSON objects.
pub(super) fn settings(resolved: &Resolved) -> Vec<Value> {
    let object = |Setting { key, value, origin }: &Setting| {
        let (source, name) = match origin {
            Origin::Default => ("default", None),
            Origin::File(path) => ("file", Some(path.display().to_string())),
            Origin::Environment(name) => ("environment", Some(name.clone())),
            Origin::Flag(name) => ("flag", Some((*name).to_owned())),
        };
        json!({ "key": key, "value": value, "source": source, "source_name": name })
    };
    resolved.origins.iter().map(object).collect()
}
