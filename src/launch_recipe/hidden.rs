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
    let found = inherited.chain(given).flat_map(|(name, value)| {
        let is_secret = is_named_like_a_secret(&name) && value.trim().len() >= SHORTEST_ALONE;
        let whole = is_secret.then(|| Secret::new(value.trim()));
        whole.into_iter().chain(of_addresses(&value)).collect::<Vec<_>>()
    });
    found.collect()
}

/// A shorter one may be a word of any text, or say yes or no (`HF_HUB_DISABLE_IMPLICIT_TOKEN`).
const SHORTEST_ALONE: usize = 8;

/// What stands before the `@` of addresses, and the password alone (RFC 3986, 3.2.1).
fn of_addresses(text: &str) -> Vec<Secret> {
    let after_schemes = text.split("://").skip(1);
    let users = after_schemes.filter_map(|rest| {
        let authority = rest.split(['/', '?', '#', ' ', '"']).next()?;
        authority.rsplit_once('@').map(|(user, _)| user)
    });
    let both = |user: &str| {
        let password = user.split_once(':').map(|(_, password)| password);
        let alone = |text: &&str| text.len() >= SHORTEST_ALONE;
        // With a user before it, it stands nowhere else.
        let whole = Some(user).filter(|user| password.is_some() || alone(user));
        [whole, password.filter(alone)].into_iter().flatten().map(Secret::new).collect::<Vec<_>>()
    };
    users.flat_map(both).collect()
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
    fn a_password_is_found_in_an_address() {
        let proxy = ("HTTPS_PROXY", "http://me:pa%40ssword@proxy:3128/");
        assert_eq!(found(&[proxy]), ["me:pa%40ssword", "pa%40ssword"]);
        assert_eq!(found(&[("HF_ENDPOINT", "https://hf_token1@hub.example")]), ["hf_token1"]);
        assert_eq!(found(&[("HTTP_PROXY", "http://user:pass@proxy")]), ["user:pass"]);
        let odd = ("HTTPS_PROXY", "http://me:pass,word'9@proxy");
        assert_eq!(found(&[odd]), ["me:pass,word'9", "pass,word'9"]);
        assert!(found(&[("REMOTE", "ssh://git@host/path")]).is_empty());
        assert!(found(&[("NO_PROXY", "localhost,me@home"), ("URL", "http://host/@x")]).is_empty());
        let two = found(&[("LIST", "http://a:one@x, http://b:two@y")]);
        assert_eq!(two, ["a:one", "b:two"]);
    }
}
