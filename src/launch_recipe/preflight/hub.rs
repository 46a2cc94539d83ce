//! How the Hub is asked before a launch: as vLLM will ask it, or not at all where that is not known.

use std::net::IpAddr;
use std::path::PathBuf;

use vllm_supervisor_actors::adapters::preflight::{HubAccess, HubToken};

use super::is_true;
use crate::config::{Config, Secret};

/// The usual one (`huggingface_hub` 2.4.0, `constants.py`).
const ENDPOINT: &str = "https://huggingface.co";

/// Variables with which vLLM asks another hub, or as somebody whom we do not know.
const OTHERWISE: [&str; 3] =
    ["VLLM_USE_MODELSCOPE", "HUGGINGFACE_CO_STAGING", "HF_HUB_DISABLE_IMPLICIT_TOKEN"];

/// How it is asked for vLLM of this configuration, which has these variables.
pub(super) fn access(
    config: &Config,
    variable: &impl Fn(&str) -> Option<String>,
) -> Option<HubAccess> {
    let is_otherwise = OTHERWISE.iter().any(|name| variable(name).is_some_and(|it| is_true(&it)));
    if is_otherwise || variable("HF_OIDC_RESOURCE").is_some() {
        return None;
    }
    let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
    let endpoint = endpoint.trim_end_matches('/').to_owned();
    let (scheme, place) = endpoint.split_once("://")?;
    // A password in it would have to be hidden wherever it is told.
    if !["http", "https"].contains(&scheme) || place.contains(['@', '?', '#']) {
        return None;
    }
    Some(HubAccess {
        token: token(config, variable)?,
        proxy: proxy(scheme, host(place), variable)?,
        certificates: variable("SSL_CERT_FILE").map(PathBuf::from),
        endpoint,
    })
}

/// `huggingface_hub` 2.4.0, `utils/_auth.py`, `get_token`; `None` where that is not known.
fn token(config: &Config, variable: &impl Fn(&str) -> Option<String>) -> Option<HubToken> {
    let given = config.secrets.hf_token.clone().filter(|token| !token.is_blank());
    let older = || {
        let token = Secret::new(variable("HUGGING_FACE_HUB_TOKEN")?.trim());
        Some(token).filter(|token| !token.is_blank())
    };
    if let Some(token) = given.or_else(older) {
        return Some(HubToken::Given(token));
    }
    let path = |name: &str| variable(name).map(PathBuf::from);
    let home = || {
        let cache = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        path("HF_HOME").or_else(|| Some(cache?.join("huggingface")))
    };
    let stored = path("HF_TOKEN_PATH").or_else(|| Some(home()?.join("token")))?;
    let is_plain = stored.is_absolute() && !stored.to_string_lossy().contains('$');
    is_plain.then_some(HubToken::Stored(stored))
}

/// The proxy on the way to this host, if there is one (Python 3.12, `urllib/request.py`,
/// `getproxies_environment`); `None` where it is one of which we do not know how to ask it.
#[expect(clippy::option_option, reason = "not known, or known to be none")]
fn proxy(
    scheme: &str,
    host: &str,
    variable: &impl Fn(&str) -> Option<String>,
) -> Option<Option<Secret>> {
    let either = |name: &str| variable(name).or_else(|| variable(&name.to_ascii_uppercase()));
    let is_here = host == "localhost" || host.parse().is_ok_and(|it: IpAddr| it.is_loopback());
    if is_here || either("no_proxy").is_some_and(|list| is_listed(host, &list)) {
        return Some(None);
    }
    let Some(proxy) = either(&format!("{scheme}_proxy")).or_else(|| either("all_proxy")) else {
        return Some(None);
    };
    let proxy = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
    let is_http = ["http://", "https://"].iter().any(|scheme| proxy.starts_with(scheme));
    is_http.then(|| Some(Secret::new(proxy)))
}

/// Whether a host, or a domain that it is in, stands in a list such as `.example.com,localhost`.
fn is_listed(host: &str, list: &str) -> bool {
    list.split(',').map(str::trim).any(|entry| {
        let domain = entry.trim_start_matches('*').trim_start_matches('.');
        let is_in = || host.strip_suffix(domain).is_some_and(|before| before.ends_with('.'));
        entry == "*" || !domain.is_empty() && (host == domain || is_in())
    })
}

/// The host of `host:port/path`, of IPv6 without its brackets.
fn host(place: &str) -> &str {
    let authority = place.split('/').next().unwrap_or_default();
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelReference;

    fn of(variables: &[(&str, &str)]) -> Option<HubAccess> {
        let config = Config::with_defaults(ModelReference::Hub("a/b".to_owned()), "/state");
        of_config(&config, variables)
    }

    fn of_config(config: &Config, variables: &[(&str, &str)]) -> Option<HubAccess> {
        let all = [&[("HOME", "/home/a")], variables].concat();
        let variable = |name: &str| {
            let found = all.iter().rev().find(|it| it.0 == name);
            found.map(|it| it.1.to_owned()).filter(|it| !it.is_empty())
        };
        access(config, &variable)
    }

    #[test]
    fn the_hub_is_where_the_variable_says_and_is_not_asked_where_another_is() {
        assert_eq!(of(&[]).unwrap().endpoint, "https://huggingface.co");
        let mirror = of(&[("HF_ENDPOINT", "http://mirror:8080/hf/")]).unwrap();
        assert_eq!(mirror.endpoint, "http://mirror:8080/hf");
        for other in [
            ("VLLM_USE_MODELSCOPE", "true"),
            ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
            ("HF_OIDC_RESOURCE", "x"),
            ("HF_ENDPOINT", "https://me:secret@hub.example"),
            ("HF_ENDPOINT", "hub.example"),
            ("HF_ENDPOINT", "ftp://hub.example"),
            ("HF_TOKEN_PATH", "~/token"),
            ("ALL_PROXY", "socks5://proxy"),
        ] {
            assert_eq!(of(&[other]), None, "{other:?}");
        }
    }

    #[test]
    fn the_token_is_the_one_that_vllm_will_have() {
        let token = |variables: &[(&str, &str)]| of(variables).unwrap().token;
        let stored = |path: &str| HubToken::Stored(path.into());
        assert_eq!(token(&[]), stored("/home/a/.cache/huggingface/token"));
        assert_eq!(token(&[("HF_HOME", "/hf")]), stored("/hf/token"));
        assert_eq!(token(&[("HF_TOKEN_PATH", "/t"), ("HF_HOME", "/hf")]), stored("/t"));
        let older = [("HUGGING_FACE_HUB_TOKEN", "old")];
        assert_eq!(token(&older), HubToken::Given(Secret::new("old")));
        // It reaches vLLM from the configuration alone.
        assert_eq!(token(&[("HF_TOKEN", "x")]), stored("/home/a/.cache/huggingface/token"));
        let mut config = Config::with_defaults(ModelReference::Hub("a/b".to_owned()), "/state");
        config.secrets.hf_token = Some(Secret::new("new"));
        let both = of_config(&config, &older).unwrap().token;
        assert_eq!(both, HubToken::Given(Secret::new("new")));
    }

    #[test]
    fn a_proxy_is_that_of_the_scheme_unless_the_host_is_excepted() {
        let proxy = |variables: &[(&str, &str)]| of(variables).unwrap().proxy;
        let secure = ("HTTPS_PROXY", "http://proxy:3128");
        let through = Some(Secret::new("http://proxy:3128"));
        assert_eq!(proxy(&[]), None);
        assert_eq!(proxy(&[secure]), through);
        assert_eq!(proxy(&[("all_proxy", "proxy:3128")]), through);
        assert_eq!(proxy(&[("HTTP_PROXY", "http://proxy:3128")]), None);
        for list in ["huggingface.co", ".co", "a, *.huggingface.co", "co", "*", "x,*"] {
            assert_eq!(proxy(&[secure, ("NO_PROXY", list)]), None, "{list}");
        }
        for list in ["face.co", "hub.huggingface.co", "", ",", ".", "*.example,"] {
            assert_eq!(proxy(&[secure, ("no_proxy", list)]), through, "{list}");
        }
        for place in ["http://127.0.0.1:8", "http://localhost:8/x", "http://[::1]:8"] {
            let all = ("ALL_PROXY", "http://proxy:3128");
            assert_eq!(proxy(&[all, ("HF_ENDPOINT", place)]), None, "{place}");
        }
    }
}
