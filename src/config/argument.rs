//! A word of vLLM's command line, as its parser reads it.
//!
//! The parser is Python's `argparse`, with habits of its own (vLLM 0.32.0,
//! `utils/argparse_utils.py`, `FlexibleArgumentParser`): the beginning of a flag stands for the flag,
//! `_` for `-`, and `--flag.key value` for JSON.

/// A flag, and the value that the same word gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Argument<'a> {
    name: String,
    value: Option<&'a str>,
}

impl<'a> Argument<'a> {
    /// Reads a word; `None` for one that is no flag.
    pub(crate) fn read(word: &'a str) -> Option<Self> {
        if !word.starts_with('-') || matches!(word, "-" | "--") {
            return None;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        // What follows the dot is a key of a flag that takes JSON, and of any other flag too.
        let name = name.split('.').next().unwrap_or_default();
        let name = if name.starts_with("--") { name.replace('_', "-") } else { name.to_owned() };
        Some(Self { name, value })
    }

    /// Whether it is this flag, letter for letter.
    pub(crate) fn is(&self, flag: &str) -> bool {
        self.name == flag
    }

    /// Whether it could be this flag: as it is, by its beginning, or, for one of a single letter,
    /// with its value behind it, such as `-n2`. Which of several it is, only vLLM knows.
    pub(crate) fn may_be(&self, flag: &str) -> bool {
        let dashes = if self.name.starts_with("--") { 2 } else { 1 };
        let is_beginning = self.name.len() > dashes && flag.starts_with(&self.name);
        let has_one_letter = flag.len() == 2 && !self.name.starts_with("--");
        self.is(flag) || is_beginning || (has_one_letter && self.name.starts_with(flag))
    }

    /// Its value: in the same word, or else the next.
    pub(crate) fn value(&self, next: Option<&'a String>) -> Option<&'a str> {
        self.value.or_else(|| next.map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_known_in_every_spelling_that_vllm_takes() {
        for (word, flag) in [
            ("--root-path", "--root-path"),
            ("--root_path=/x", "--root-path"),
            ("--root", "--root-path"),
            ("--root_p=/x", "--root-path"),
            ("--root-path.a", "--root-path"),
            ("-tp", "-tp"),
            ("-t", "-tp"),
            ("-tp=2", "-tp"),
            ("-n2", "-n"),
        ] {
            assert!(Argument::read(word).unwrap().may_be(flag), "{word}");
        }
        for (word, flag) in [("--port-range", "--port"), ("-tp2", "-tp"), ("--n", "-n")] {
            assert!(!Argument::read(word).unwrap().may_be(flag), "{word}");
        }
        for word in ["model", "", "-", "--", "4096"] {
            assert_eq!(Argument::read(word), None, "{word}");
        }
    }

    #[test]
    fn a_value_stands_in_the_same_word_or_in_the_next() {
        let next = "2".to_owned();
        assert_eq!(Argument::read("-dp=3").unwrap().value(Some(&next)), Some("3"));
        assert_eq!(Argument::read("-dp").unwrap().value(Some(&next)), Some("2"));
        assert_eq!(Argument::read("-dp").unwrap().value(None), None);
    }
}
