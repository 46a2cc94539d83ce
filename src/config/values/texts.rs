//! What is made of texts: arguments, variables, commands.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vllm_supervisor_actors::domain::gpu::GpuAction;

use super::{Fault, OptionValue, kind};
use crate::config::sources::Sources;

/// A text, which a number may stand for: `4096` in `extra_args` needs no quotes.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What is no text of those that an option is made of, by the key of each.
fn all_texts<K>(
    parts: impl Iterator<Item = (K, String, Value)>,
) -> Result<Vec<(K, String)>, Vec<Fault>> {
    let (mut texts, mut faults) = (Vec::new(), Vec::new());
    for (key, part, value) in parts {
        if let Some(text) = text(&value) {
            texts.push((key, text));
        } else {
            let message = "expected a text (put quotes around `true` and `false`)";
            faults.push(Fault { part, ..Fault::new(message, "", kind(&value)) });
        }
    }
    if faults.is_empty() { Ok(texts) } else { Err(faults) }
}

fn texts<V: OptionValue>(value: &Value) -> Result<Vec<String>, Vec<Fault>> {
    let items = value.as_array().ok_or_else(|| Fault::kind::<V>(value))?;
    let parts = items.iter().enumerate().map(|(at, item)| ((), format!("[{at}]"), item.clone()));
    Ok(all_texts(parts)?.into_iter().map(|((), text)| text).collect())
}

fn texts_by_name<V: OptionValue>(value: &Value) -> Result<BTreeMap<String, String>, Vec<Fault>> {
    let entries = value.as_object().ok_or_else(|| Fault::kind::<V>(value))?;
    let parts = entries.iter().map(|(name, it)| (name.clone(), format!(".{name}"), it.clone()));
    Ok(all_texts(parts)?.into_iter().collect())
}

/// Arguments.
impl OptionValue for Vec<String> {
    const EXPECTED: &'static str = "a list of texts (put quotes around `true` and `false`)";
    const TAKES_TEXTS: bool = true;

    fn read(value: &Value, _: &Sources) -> Result<Self, Vec<Fault>> {
        texts::<Self>(value)
    }

    fn json(&self) -> Value {
        json!(self)
    }

    fn schema() -> Value {
        json!({"type": "array", "items": {"type": ["string", "number"]}})
    }
}

/// Variables.
impl OptionValue for BTreeMap<String, String> {
    const EXPECTED: &'static str =
        "a map from names to texts (put quotes around `true` and `false`)";
    const TAKES_TEXTS: bool = true;

    fn read(value: &Value, _: &Sources) -> Result<Self, Vec<Fault>> {
        texts_by_name::<Self>(value)
    }

    fn json(&self) -> Value {
        json!(self)
    }

    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": {"type": ["string", "number"]}})
    }
}

/// A program and its arguments: a line, split at white space, or a list of words.
impl OptionValue for Option<Vec<String>> {
    const EXPECTED: &'static str = "a command line, or a list of texts";
    const TAKES_TEXTS: bool = true;

    /// A program given as a path is made absolute, as vLLM may be launched from another directory; a
    /// bare name is left to PATH.
    fn read(value: &Value, sources: &Sources) -> Result<Self, Vec<Fault>> {
        let whole = |program: &str| match (program.strip_prefix("~/"), sources.home()) {
            (Some(rest), Some(home)) => Some(home.join(rest)),
            _ if program.contains('/') => Some(sources.working_directory.join(program)),
            _ => None,
        };
        let line = |line: &str| {
            // A path with blanks in it is a path.
            if whole(line.trim()).is_some_and(|path| path.exists()) {
                return vec![line.trim().to_owned()];
            }
            line.split_whitespace().map(str::to_owned).collect()
        };
        let mut words: Vec<String> = match value.as_str() {
            Some(text) => line(text),
            None => texts::<Self>(value)?,
        };
        if let Some(program) = words.first_mut()
            && let Some(whole) = whole(program)
        {
            *program = whole.to_string_lossy().into_owned();
        }
        Ok(Some(words))
    }

    fn json(&self) -> Value {
        json!(self)
    }

    fn schema() -> Value {
        json!({"anyOf": [{"type": "string"}, Vec::<String>::schema()]})
    }
}

/// What is done about Xid errors.
impl OptionValue for BTreeMap<u32, GpuAction> {
    const EXPECTED: &'static str =
        "a map from the numbers of Xid errors to what is done about them";

    fn read(value: &Value, _: &Sources) -> Result<Self, Vec<Fault>> {
        let given = texts_by_name::<Self>(value)?;
        let (mut actions, mut faults) = (Self::new(), Vec::new());
        for (number, action) in given {
            let known = GpuAction::ALL.into_iter().find(|known| known.as_str() == action);
            match (number.parse(), known) {
                (Ok(xid), Some(action)) => drop(actions.insert(xid, action)),
                (Err(_), _) => {
                    let help = "name it by its number in NVIDIA's catalogue, such as 79";
                    faults.push(Fault::new("not an Xid error", help, number));
                }
                (Ok(_), None) => {
                    let names: Vec<_> = GpuAction::ALL.iter().map(|it| it.as_str()).collect();
                    let help = format!("use one of {}", names.join(", "));
                    let fault = Fault::new("not what can be done about it", help, action);
                    faults.push(Fault { part: format!(".{number}"), ..fault });
                }
            }
        }
        if faults.is_empty() { Ok(actions) } else { Err(faults) }
    }

    fn json(&self) -> Value {
        let named = self.iter().map(|(xid, action)| (xid.to_string(), action.as_str().into()));
        Value::Object(named.collect())
    }

    fn schema() -> Value {
        let names = GpuAction::ALL.map(GpuAction::as_str);
        json!({"type": "object", "additionalProperties": {"enum": names}})
    }
}
