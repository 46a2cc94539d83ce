//! Names and passwords in addresses (RFC 3986, 3.2.1), such as `http://me:password@proxy`.

use vllm_supervisor_actors::domain::secret::MASK;

/// What stands before the `@` of addresses, and the password alone (RFC 3986, 3.2.1), as it stands there and
/// as it is meant.
pub(crate) fn credentials(text: &str) -> Vec<String> {
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
pub(crate) fn has_credentials(text: &str) -> bool {
    !credentials(text).is_empty()
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

/// The text without the passwords of its addresses, and without what stands alone before their `@`, which may
/// be a token.
pub(super) fn without_passwords(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str("://");
        let end = part.find(['/', '?', '#', ' ', '"']).unwrap_or(part.len());
        let (authority, rest) = part.split_at(end);
        match authority.rsplit_once('@') {
            None => shown.push_str(authority),
            Some((user, host)) => {
                if let Some((name, _)) = user.split_once(':') {
                    shown.extend([name, ":"]);
                }
                shown.extend([MASK, "@", host]);
            }
        }
        shown.push_str(rest);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (text, shown) in [
            ("http://me:pass@proxy:3128", "http://me:********@proxy:3128"),
            (
                r#"{"A":"https://token@host/x@y","B":"c@d"}"#,
                r#"{"A":"https://********@host/x@y","B":"c@d"}"#,
            ),
            ("http://a:b@c, http://d:e@f", "http://a:********@c, http://d:********@f"),
            ("http://host:80/x", "http://host:80/x"),
            ("no address", "no address"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }
}
