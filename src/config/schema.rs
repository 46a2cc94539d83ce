//! The JSON schema of the configuration file.

use serde_json::{Map, Value, json};

use super::options::{OPTIONS, SECTIONS};
use super::{Config, ModelReference};

/// The JSON schema of the configuration file, with descriptions and defaults. It is draft 7 and
/// free of references, which every editor's YAML plugin understands.
pub fn schema() -> Value {
    let defaults = Config::with_defaults(ModelReference::Hub(String::new()), "");
    let section = map_of("", &defaults);
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "vllmd configuration",
        "description": "The configuration file. Sections other than `providers.vllm` belong to other programs.",
        "type": "object",
        "properties": {
            "providers": {
                "description": "The section of each provider.",
                "type": ["object", "null"],
                "properties": {"vllm": section},
            },
        },
    })
}

/// A section and the options right below it; below the topmost one the other sections, too.
fn map_of(key: &str, defaults: &Config) -> Value {
    let mut properties = Map::new();
    for entry in OPTIONS {
        let (section, word) = entry.key.split_once('.').unwrap_or(("", entry.key));
        if section != key {
            continue;
        }
        let mut schema = (entry.schema)();
        // `null` is the same as no key.
        let option = match schema["type"].take() {
            Value::String(name) => {
                schema["type"] = json!([name, "null"]);
                schema
            }
            _ => json!({"anyOf": [without_type(schema), {"type": "null"}]}),
        };
        let default = Some((entry.json)(defaults)).filter(|it| !it.is_null() && it != "");
        properties.insert(word.to_owned(), described(option, entry.help, default));
        if entry.has_seconds {
            let seconds = json!({"type": ["number", "null"], "minimum": 0});
            let help = format!("`{word}` as a number of seconds.");
            properties.insert(format!("{word}_seconds"), described(seconds, &help, None));
        }
    }
    let below = SECTIONS.iter().filter(|section| key.is_empty() && !section.key.is_empty());
    properties.extend(below.map(|section| (section.key.to_owned(), map_of(section.key, defaults))));
    let map = json!({
        "type": ["object", "null"], "additionalProperties": false, "properties": properties,
    });
    let help = SECTIONS.iter().find(|section| section.key == key).map_or("", |it| it.help);
    described(map, help, None)
}

fn without_type(mut schema: Value) -> Value {
    schema.as_object_mut().and_then(|schema| schema.remove("type"));
    schema
}

fn described(mut schema: Value, help: &str, default: Option<Value>) -> Value {
    schema["description"] = help.replace('\n', " ").into();
    if let Some(default) = default {
        schema["default"] = default;
    }
    schema
}
