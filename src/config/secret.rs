//! The secrets vLLM needs: where they come from, and how they stay out of everything we print.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use vllm_supervisor_actors::domain::secret::{self, MASK};

use super::addresses::without_passwords;
use super::problem::Problem;

pub use vllm_supervisor_actors::domain::secret::Secret;

/// Environment variables of the two secrets; each can also be given as `…_FILE`.
pub(super) const HF_TOKEN: &str = "HF_TOKEN";
pub(super) const VLLM_API_KEY: &str = "VLLM_API_KEY";

/// The secrets of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Secrets {
    /// Opens private and gated repositories of the Hugging Face Hub.
    pub hf_token: Option<Secret>,
    /// What vLLM asks of its clients as a bearer token (vLLM 0.32.0 `vllm/envs.py`, `VLLM_API_KEY`).
    pub vllm_api_key: Option<Secret>,
}

impl Secrets {
    /// The text with every occurrence of a secret masked, and the passwords of addresses.
    pub fn redact(&self, text: &str) -> String {
        let given = [&self.hf_token, &self.vllm_api_key].into_iter().flatten();
        // Lists and maps are shown in the words of JSON, which spells some characters differently.
        let spelled: Vec<Secret> = given
            .flat_map(|secret| [secret.clone(), Secret::new(in_json(secret.expose()))])
            .collect();
        without_passwords(&secret::redact(text, &spelled))
    }
}

/// A text as it stands between the quotation marks of JSON.
fn in_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// What `check` shows for a secret: whether there is one.
pub(super) fn masked(secret: Option<&Secret>) -> String {
    secret.map_or_else(|| "unset".to_owned(), |_| MASK.to_owned())
}

/// Reads a secret from the variable `name`, or from the file that `{name}_FILE` names, and says
/// which of the two variables gave it. An empty variable counts as unset.
pub(super) fn from_environment(
    name: &str,
    environment: &BTreeMap<String, String>,
    base: &Path,
) -> Result<Option<(Secret, String)>, Problem> {
    let given = |name: &str| environment.get(name).filter(|text| !text.trim().is_empty());
    let file_variable = format!("{name}_FILE");
    let (variable, text) = match (given(name), given(&file_variable)) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let message = format!("given as well as `{name}`");
            return Err(Problem::new(file_variable, message, "unset one of the two"));
        }
        (Some(text), None) => (name.to_owned(), text.clone()),
        (None, Some(path)) => (file_variable.clone(), read(&file_variable, &base.join(path))?),
    };
    let text = text.trim();
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let message = "not a secret of one word";
        return Err(Problem::new(variable, message, "give the secret alone, on one line"));
    }
    Ok(Some((Secret::new(text), variable)))
}

fn read(variable: &str, path: &Path) -> Result<String, Problem> {
    fs::read_to_string(path).map_err(|error| {
        let message = format!("the file cannot be read: {error}");
        let help = "name a readable file that holds the secret alone, or unset the variable";
        Problem::new(variable, message, help).with_value(path.display().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        Secrets {
            hf_token: Some(Secret::new("abc")),
            vllm_api_key: Some(Secret::new("abc-and-more")),
        }
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let shown = format!("{:?}", secrets());
        assert!(!shown.contains("abc"), "{shown}");
    }

    #[test]
    fn every_occurrence_of_every_secret_is_masked() {
        assert_eq!(secrets().redact("abc abc-and-more xabcx"), "******** ******** x********x");
    }

    #[test]
    fn a_secret_is_masked_in_the_spelling_of_json_too() {
        let secret = r#"a"b\c"#;
        let secrets = Secrets { hf_token: None, vllm_api_key: Some(Secret::new(secret)) };
        let shown = serde_json::json!({ "GREETING": secret }).to_string();
        assert_eq!(secrets.redact(&shown), r#"{"GREETING":"********"}"#);
    }

    #[test]
    fn an_empty_secret_masks_nothing() {
        let secrets = Secrets { hf_token: Some(Secret::new("")), vllm_api_key: None };
        assert_eq!(secrets.redact("text"), "text");
    }

    #[test]
    fn a_secret_is_the_trimmed_content_of_the_file_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("token"), "  abc\n").unwrap();
        let environment = BTreeMap::from([("HF_TOKEN_FILE".to_owned(), "token".to_owned())]);
        let found = from_environment(HF_TOKEN, &environment, directory.path()).unwrap();
        assert_eq!(found, Some((Secret::new("abc"), "HF_TOKEN_FILE".to_owned())));
    }

    #[test]
    fn a_missing_secret_file_is_a_problem_of_its_variable() {
        let directory = tempfile::tempdir().unwrap();
        let environment = BTreeMap::from([("HF_TOKEN_FILE".to_owned(), "gone".to_owned())]);
        let problem = from_environment(HF_TOKEN, &environment, directory.path()).unwrap_err();
        assert_eq!(problem.key, "HF_TOKEN_FILE");
        assert!(problem.value.unwrap().ends_with("gone"));
    }

    #[test]
    fn a_secret_given_twice_is_a_problem() {
        let environment = BTreeMap::from([
            ("HF_TOKEN".to_owned(), "abc".to_owned()),
            ("HF_TOKEN_FILE".to_owned(), "token".to_owned()),
        ]);
        let problem = from_environment(HF_TOKEN, &environment, Path::new("/")).unwrap_err();
        assert_eq!((problem.key.as_str(), problem.value), ("HF_TOKEN_FILE", None));
    }
}
