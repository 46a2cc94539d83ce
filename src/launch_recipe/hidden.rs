//! Secrets that vLLM inherits, or finds in its variables: known by their names, or as the password of an
//! address.

use std::ffi::OsString;

use crate::config::{Config, Secret, is_named_like_a_secret};

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
        whole.into_iter().chain(of_addresses(&value)).collect::<Vec<_>>()
    });
    found.filter(|text| text.len() >= LEAST_BYTES).map(Secret::new).collect()
}

/// A shorter one may be a word of any text, or say yes or no (`HF_HUB_DISABLE_IMPLICIT_TOKEN`).
const LEAST_BYTES: usize = 8;

/// What stands before the `@` of addresses, and the password alone (RFC 3986, 3.2.1), as it stands there and
/// as it is meant.
fn of_addresses(text: &str) -> Vec<String> {
    let after_schemes = text.split("://").skip(1);
    let users = after_schemes.filter_map(|rest| {
        let authority = rest.split(['/', '?', '#', ' ', '"']).next()?;
        authority.rsplit_once('@').map(|(user, _)| user)
    });
    let parts = users.flat_map(|user| {
        let password = user.split_once(':').map(|(_, password)| password);
        [Some(user), password].into_iter().flatten()
    });
    let spelled = parts.flat_map(|part| {
        let meant = decoded(part).filter(|meant| meant != part);
        [Some(part.to_owned()), meant].into_iter().flatten()
    });
    spelled.collect()
}

/// Whether the text has an address with somebody's name or password in it.
pub(super) fn has_a_password(text: &str) -> bool {
    !of_addresses(text).is_empty()
}

/// Without its percent-encoding (RFC 3986, 2.1); `None` if it has none that can be read.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

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
