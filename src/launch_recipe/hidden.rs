//! Secrets that vLLM inherits, or finds in its variables: known by their names, or as the password of an
//! address.

use std::ffi::OsString;

use crate::config::{Config, Secret, credentials, is_named_like_a_secret};

/// Those of this configuration and of what is inherited.
pub(super) fn secrets(
    config: &Config,
    inherited: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<Secret> {
    let inherited = inherited
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let given = config.env.iter().map(|(name, value)| (name.clone(), value.clone()));
    // A word is a variable without a name.
    let words = config.extra_args.iter().map(|word| (String::new(), word.clone()));
    let found = inherited.chain(given).chain(words).flat_map(|(name, value)| {
        let whole = is_named_like_a_secret(&name).then(|| value.trim().to_owned());
        whole.into_iter().chain(credentials(&value)).collect::<Vec<_>>()
    });
    found.filter(|text| text.len() >= LEAST_BYTES).map(Secret::new).collect()
}

/// A shorter one may be a word of any text, or say yes or no (`HF_HUB_DISABLE_IMPLICIT_TOKEN`).
const LEAST_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelReference;

    fn found(variables: &[(&str, &str)]) -> Vec<String> {
        let model = ModelReference::Hub("org/model".to_owned());
        let config = Config::with_defaults(model, "/state");
        let variables =
            variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        secrets(&config, variables).iter().map(|it| it.expose().to_owned()).collect()
    }

    #[test]
    fn a_secret_is_known_by_the_name_of_its_variable() {
        let token = ("HUGGING_FACE_HUB_TOKEN", "hf_xyz123\n");
        assert_eq!(found(&[token, ("HOME", "/home/someone")]), ["hf_xyz123"]);
        for word in [("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"), ("DB_PASSWORD", "root")] {
            assert!(found(&[word]).is_empty(), "{word:?}");
        }
    }

    #[test]
    fn a_password_is_found_among_the_arguments() {
        let model = ModelReference::Hub("org/model".to_owned());
        let mut config = Config::with_defaults(model, "/state");
        config.extra_args = vec!["--otlp-traces-endpoint=http://me:password@h".to_owned()];
        let found = secrets(&config, std::iter::empty());
        assert_eq!(
            found.iter().map(Secret::expose).collect::<Vec<_>>(),
            ["me:password", "password"]
        );
    }

    #[test]
    fn a_password_is_found_in_an_address() {
        let proxy = ("HTTPS_PROXY", "http://me:pa%40ssword@proxy:3128/");
        let expected = ["me:pa%40ssword", "me:pa@ssword", "pa%40ssword", "pa@ssword"];
        assert_eq!(found(&[proxy]), expected);
        assert_eq!(found(&[("HF_ENDPOINT", "https://hf_token1@hub.example")]), ["hf_token1"]);
        assert_eq!(found(&[("HTTP_PROXY", "http://user:pass@proxy")]), ["user:pass"]);
        let odd = ("HTTPS_PROXY", "http://me:pass,word'9@proxy");
        assert_eq!(found(&[odd]), ["me:pass,word'9", "pass,word'9"]);
        assert!(found(&[("REMOTE", "ssh://git@host/path")]).is_empty());
        assert!(found(&[("NO_PROXY", "localhost,me@home"), ("URL", "http://host/@x")]).is_empty());
        let two = found(&[("LIST", "http://ann:one12@x, http://bob:two12@y")]);
        assert_eq!(two, ["ann:one12", "bob:two12"]);
        assert!(found(&[("HTTP_PROXY", "http://user:@proxy")]).is_empty());
    }
}
