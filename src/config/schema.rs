//! The JSON schema of the configuration file, and what we look up in it.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::section::VllmSection;
use super::{DEFAULT_YAML, file};

/// The configuration file. Sections other than `providers.vllm` belong to other programs.
#[derive(JsonSchema)]
#[schemars(title = "vllmd configuration")]
#[expect(dead_code, reason = "describes the file's outline; `file` reads it with the lines")]
struct Document {
    /// The section of each provider.
    providers: Option<Providers>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes the file's outline; `file` reads it with the lines")]
struct Providers {
    vllm: Option<VllmSection>,
}

/// The JSON schema of the configuration file, with descriptions and defaults. It is draft 7 and
/// free of references, which every editor's YAML plugin understands.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Document>().to_value();
    let defaults = file::parse(DEFAULT_YAML).expect("the embedded defaults are well-formed");
    if let Some(section) = schema.pointer_mut("/properties/providers/properties/vllm") {
        insert_defaults(section, &defaults.section);
    }
    schema
}

fn insert_defaults(schema: &mut Value, defaults: &Value) {
    let (Some(properties), Some(defaults)) =
        (schema.get_mut("properties").and_then(Value::as_object_mut), defaults.as_object())
    else {
        return;
    };
    for (key, default) in defaults {
        let Some(property) = properties.get_mut(key) else { continue };
        if property.get("properties").is_some() {
            insert_defaults(property, default);
        } else if !default.is_null() {
            property["default"] = default.clone();
        }
    }
}

/// Every setting of the file, as its key below the section and its schema: `port`, `gpu`,
/// `gpu.monitor`, …
pub(super) fn settings() -> Vec<(String, Value)> {
    let schema = schema();
    let section = schema.pointer("/properties/providers/properties/vllm/properties");
    let mut settings = Vec::new();
    if let Some(properties) = section.and_then(Value::as_object) {
        collect(properties, "", &mut settings);
    }
    settings
}

fn collect(properties: &Map<String, Value>, prefix: &str, settings: &mut Vec<(String, Value)>) {
    for (name, schema) in properties {
        let key = format!("{prefix}{name}");
        if let Some(inner) = schema.get("properties").and_then(Value::as_object) {
            collect(inner, &format!("{key}."), settings);
        }
        settings.push((key, schema.clone()));
    }
}

/// What the schema says about a setting: the help of last resort.
pub(super) fn description(setting: &str) -> String {
    let found = settings().into_iter().find(|(key, _)| key == setting);
    let description =
        found.and_then(|(_, schema)| Some(schema["description"].as_str()?.to_owned()));
    description.unwrap_or_default()
}
