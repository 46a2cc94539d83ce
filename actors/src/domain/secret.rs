//! A text that must not be shown.

use std::fmt;

/// What stands in the place of a secret wherever it would have been shown.
pub const MASK: &str = "********";

/// A text that must not be shown: no `Display`, no serialisation, and a `Debug` that masks it. It
/// stays one from where it is read down to the environment of vLLM or the header of a request.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text; from here on only [`Secret::expose`] gives it back.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself. It belongs in a child's environment or a request header, nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is none: nothing, or blanks alone.
    pub fn is_blank(&self) -> bool {
        self.0.trim().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({MASK})")
    }
}

/// The text with every occurrence of every secret masked.
pub fn redact<'a>(text: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> String {
    let mut secrets: Vec<&str> =
        secrets.into_iter().filter(|it| !it.is_blank()).map(Secret::expose).collect();
    // A secret that contains another one must go first, or its remainder would show.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Secret::new("abc")), "Secret(********)");
    }

    #[test]
    fn a_secret_within_a_secret_leaves_no_remainder_and_blanks_hide_nothing() {
        let secrets = ["abc", "abc-long", " ", ""].map(Secret::new);
        assert_eq!(redact("xabc abc-long x", &secrets), "x******** ******** x");
    }
}
