//! `vllmd config`: what the configuration is, and what it may be.

use serde::Serialize;

use super::complaint::Complaint;
use super::exit::Exit;
use super::{Output, plain, render, screen};
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
        Output::Text => plain::lines(&render::settings(&resolved.origins)),
        Output::Json => screen::json(&Settings { settings: settings(&resolved) }),
    };
    screen::print(text, Exit::Done)
}

/// Prints the JSON schema of the configuration file.
pub(super) fn schema() -> Exit {
    screen::print(format_args!("{:#}", crate::config::schema()), Exit::Done)
}

#[derive(Serialize)]
struct Settings<'a> {
    settings: Vec<SettingBody<'a>>,
}

/// A setting as a JSON object.
#[derive(Serialize)]
pub(super) struct SettingBody<'a> {
    key: &'a str,
    value: &'a str,
    source: &'static str,
    source_name: Option<String>,
}

/// The settings as JSON objects.
pub(super) fn settings(resolved: &Resolved) -> Vec<SettingBody<'_>> {
    resolved.origins.iter().map(SettingBody::from).collect()
}

impl<'a> From<&'a Setting> for SettingBody<'a> {
    fn from(Setting { key, value, origin }: &'a Setting) -> Self {
        let (source, source_name) = match origin {
            Origin::Default => ("default", None),
            Origin::File(path) => ("file", Some(path.display().to_string())),
            Origin::Environment(name) => ("environment", Some(name.clone())),
            Origin::Flag(name) => ("flag", Some((*name).to_owned())),
        };
        Self { key, value, source, source_name }
    }
}
