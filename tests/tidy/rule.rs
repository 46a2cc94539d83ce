//! What a rule is: a sentence, a way to find what breaks it, and proof that it finds something.

use crate::source::Source;
use crate::workspace;

/// A rule about Rust files.
#[derive(Debug)]
pub(crate) struct Rule {
    /// What holds, as a sentence.
    pub(crate) says: &'static str,
    /// Whether it is about the file with this path.
    pub(crate) concerns: fn(&str) -> bool,
    /// What in a file breaks it.
    pub(crate) find: fn(&Source) -> Vec<Finding>,
    /// A file that breaks it: path and text.
    pub(crate) broken_by: (&'static str, &'static str),
    /// A file that comes close and does not: path and text.
    pub(crate) kept_by: (&'static str, &'static str),
}

/// Something that breaks a rule.
#[derive(Debug)]
pub(crate) struct Finding {
    /// Where, from 1.
    pub(crate) line: usize,
    /// What stands there.
    pub(crate) what: String,
}

impl Rule {
    fn findings(&self, source: &Source) -> Vec<Finding> {
        if (self.concerns)(&source.path) { (self.find)(source) } else { Vec::new() }
    }

    fn example(&self, (path, text): (&str, &str)) -> Vec<Finding> {
        self.findings(&Source::new(path, text))
    }
}

/// Fails with everything in the workspace that breaks one of the rules.
#[track_caller]
pub(crate) fn assert_kept(rules: &[Rule]) {
    let sources = workspace::sources();
    let mut broken = Vec::new();
    for rule in rules {
        for source in &sources {
            let lines = rule.findings(source).into_iter().map(|Finding { line, what }| {
                format!("{}:{line}: {what}\n    {}", source.path, rule.says)
            });
            broken.extend(lines);
        }
    }
    assert_none(&broken);
}

/// Fails unless every rule finds what it is made for, and nothing where there is nothing.
#[track_caller]
pub(crate) fn assert_sharp(rules: &[Rule]) {
    for rule in rules {
        assert!(!rule.example(rule.broken_by).is_empty(), "blind: {}", rule.says);
        let alarms = rule.example(rule.kept_by);
        assert!(alarms.is_empty(), "overzealous: {}: {alarms:?}", rule.says);
    }
}

/// Fails with everything that was found.
#[track_caller]
pub(crate) fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "{} places break a rule\n\n{}\n", broken.len(), broken.join("\n"));
}
