//! How a launch is made, and what takes away the trust in doing it the fast way.
//!
//! A launch that fails where the same launch made from nothing does not is to blame for it. So whoever
//! fails is followed by one that forks less, and what that comes to is the verdict: it serves, and
//! the way before is not gone again; it fails as well, and the launch was not to blame.

use std::collections::BTreeMap;

use crate::domain::course::Course;
use crate::domain::spec::LaunchPolicy;
use crate::domain::target::Target;

/// How much of a launch is forked from a process that has imported what vLLM imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LaunchMethod {
    /// Nothing.
    Cold,
    /// The API server; its engine and its workers begin from nothing.
    Front,
    /// All of it, where vLLM's platform is known to bear it.
    Tree,
    /// All of it, and the API server has gone ahead before there was an order.
    Ahead,
}

impl LaunchMethod {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cold, Self::Front, Self::Tree, Self::Ahead];

    /// The method's name in lower case, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Front => "front",
            Self::Tree => "tree",
            Self::Ahead => "ahead",
        }
    }

    /// The one that forks less.
    const fn less(self) -> Self {
        match self {
            Self::Cold | Self::Front => Self::Cold,
            Self::Tree => Self::Front,
            Self::Ahead => Self::Tree,
        }
    }
}

/// What is known of launches like the one that is made, by the completion of a fixed prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Recall {
    /// It is not to be asked for: there is only one way to launch, or the answers differ anyway.
    #[default]
    NotCompared,
    /// Nothing was completed yet.
    Nothing,
    /// The last of them completed it so.
    Completion(String),
}

/// All that is known of launches like the one that is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memories {
    /// How the last of them completed the fixed prompt.
    pub recall: Recall,
    /// The course of the last of them that was made in this way.
    pub course: Option<Course>,
}

/// What is to be known of launches like this one from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// No more of them is to be forked than this.
    AtMost(LaunchMethod),
    /// How it completed the fixed prompt.
    Completion(String),
    /// Launches that are made alike complete it differently.
    NotComparable,
    /// What course its load took, made in this way.
    Course(LaunchMethod, Course),
}

/// Which way the next launch of each model goes, by its arguments: what one cannot bear another may.
#[derive(Clone, Debug)]
pub struct Trusts {
    /// That in a model of which nothing is known.
    first: Trust,
    /// In those of which something is.
    known: BTreeMap<Target, Trust>,
}

impl Trusts {
    /// The trust at first.
    pub fn new(policy: LaunchPolicy) -> Self {
        Self { first: Trust::new(policy), known: BTreeMap::new() }
    }

    /// How the next launch of this is to be made.
    pub fn method(&self, target: &Target) -> LaunchMethod {
        self.known.get(target).unwrap_or(&self.first).method()
    }

    /// Something is learnt of launches of this.
    pub fn of<T>(&mut self, target: &Target, learn: impl FnOnce(&mut Trust) -> T) -> T {
        let mut trust = self.known.remove(target).unwrap_or(self.first);
        let told = learn(&mut trust);
        if trust != self.first {
            self.known.insert(target.clone(), trust);
        }
        told
    }
}

/// Which way the next launch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The least that is gone down to: what was asked for is done, whatever comes of it.
    least: LaunchMethod,
    /// The most that may be forked.
    most: LaunchMethod,
    /// What stands in for it until it is known who is to blame.
    trial: Option<Trial>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trial {
    method: LaunchMethod,
    over: Over,
}

/// What a trial is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// A launch that failed.
    Failure,
    /// A launch that completed the fixed prompt otherwise than those before.
    Difference,
}

impl Trust {
    /// The trust at first.
    pub fn new(policy: LaunchPolicy) -> Self {
        let (least, most) = match policy {
            LaunchPolicy::Cold => (LaunchMethod::Cold, LaunchMethod::Cold),
            LaunchPolicy::Warm => (LaunchMethod::Tree, LaunchMethod::Ahead),
            LaunchPolicy::Auto => (LaunchMethod::Cold, LaunchMethod::Ahead),
        };
        Self { least, most, trial: None }
    }

    /// How the next launch is to be made.
    pub fn method(&self) -> LaunchMethod {
        self.trial.map_or(self.most, |trial| trial.method)
    }

    /// A launch that was made so has failed before it served.
    pub fn failed(&mut self, method: LaunchMethod) {
        // Restarts are few: after a crash a cap of three allows this one and two more.
        let next = if self.trial.is_some() { self.least } else { method.less() };
        self.trial = (method > self.least).then_some(Trial { method: next, over: Over::Failure });
    }

    /// A launch that was made so serves. What is to be kept of that.
    pub fn served(&mut self, method: LaunchMethod) -> Option<Memory> {
        let trial = self.trial?;
        if trial.over == Over::Difference {
            // What it completes will tell.
            return None;
        }
        self.trial = None;
        // It may have been made with less for want of a warm process, which proves nothing of the rest.
        let instead = method.max(trial.method);
        (instead < self.most).then(|| self.blame(instead))
    }

    /// A launch that was made so has completed the fixed prompt, or could not. What is to be kept.
    pub fn completed(&mut self, method: LaunchMethod, recall: &Recall, text: &str) -> Verdict {
        let tried = self.trial.take_if(|trial| trial.over == Over::Difference);
        match recall {
            Recall::NotCompared => Verdict::Fine(None),
            Recall::Completion(before) if before == text => {
                Verdict::Fine(tried.map(|trial| self.blame(trial.method)))
            }
            Recall::Completion(_) if tried.is_some() => Verdict::Fine(Some(Memory::NotComparable)),
            Recall::Completion(_)
                if method > LaunchMethod::Cold && self.least == LaunchMethod::Cold =>
            {
                Verdict::Differs
            }
            Recall::Nothing | Recall::Completion(_) => {
                Verdict::Fine(Some(Memory::Completion(text.to_owned())))
            }
        }
    }

    /// A launch has completed the fixed prompt otherwise, and it is to be found out why.
    pub fn differed(&mut self) {
        self.trial = Some(Trial { method: LaunchMethod::Cold, over: Over::Difference });
    }

    fn blame(&mut self, instead: LaunchMethod) -> Memory {
        let instead = instead.max(self.least);
        self.most = instead;
        Memory::AtMost(instead)
    }
}

/// What a completion says of the launch that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing against it, and perhaps something to be kept.
    Fine(Option<Memory>),
    /// It differs from those of launches before.
    Differs,
}

#[cfg(test)]
mod tests {
    use super::LaunchMethod::{Ahead, Cold, Front, Tree};
    use super::*;

    fn auto() -> Trust {
        Trust::new(LaunchPolicy::Auto)
    }

    fn before(text: &str) -> Recall {
        Recall::Completion(text.to_owned())
    }

    #[test]
    fn what_fails_is_followed_by_what_forks_less_and_that_serves_for_good() {
        let mut trust = auto();
        assert_eq!(trust.method(), Ahead);
        trust.failed(Tree);
        assert_eq!(trust.method(), Front);
        assert_eq!(trust.served(Front), Some(Memory::AtMost(Front)));
        assert_eq!(trust.method(), Front);
        trust.failed(Front);
        assert_eq!(trust.method(), Cold);
        assert_eq!(trust.served(Cold), Some(Memory::AtMost(Cold)));
        assert_eq!(trust.method(), Cold);
    }

    #[test]
    fn a_launch_that_fails_from_nothing_too_was_not_to_blame() {
        let mut trust = auto();
        for method in [Ahead, Tree, Cold] {
            assert_eq!(trust.method(), method);
            trust.failed(method);
        }
        assert_eq!(trust.method(), Ahead);
        assert_eq!(trust.served(Ahead), None);
    }

    #[test]
    fn one_that_went_ahead_and_fails_is_held_against_going_ahead_alone() {
        for policy in [LaunchPolicy::Auto, LaunchPolicy::Warm] {
            let mut trust = Trust::new(policy);
            trust.failed(Ahead);
            assert_eq!(trust.method(), Tree);
            assert_eq!(trust.served(Tree), Some(Memory::AtMost(Tree)));
            assert_eq!(trust.method(), Tree);
        }
    }

    #[test]
    fn a_launch_that_serves_after_another_that_was_made_so_served_changes_nothing() {
        let mut trust = auto();
        assert_eq!(trust.served(Tree), None);
        // Where no warm process can be had.
        assert_eq!(trust.served(Cold), None);
        assert_eq!(trust.method(), Ahead);
    }

    #[test]
    fn who_was_told_to_launch_warm_or_cold_does_so_whatever_comes_of_it() {
        for (policy, made, method) in
            [(LaunchPolicy::Warm, Tree, Ahead), (LaunchPolicy::Cold, Cold, Cold)]
        {
            let mut trust = Trust::new(policy);
            trust.failed(made);
            assert_eq!(trust.method(), method);
            assert_eq!(trust.served(made), None);
        }
    }

    #[test]
    fn the_third_launch_after_a_crash_is_made_from_nothing() {
        for made in [Ahead, Tree] {
            let mut trust = auto();
            trust.failed(made);
            let second = trust.method();
            assert!(second > Cold && second < made);
            trust.failed(second);
            assert_eq!(trust.method(), Cold);
            assert_eq!(trust.served(Cold), Some(Memory::AtMost(Cold)));
        }
    }

    #[test]
    fn what_was_launched_with_less_for_want_of_a_warm_process_condemns_no_more_than_was_to_be_tried()
     {
        let mut trust = auto();
        trust.failed(Ahead);
        assert_eq!(trust.served(Cold), Some(Memory::AtMost(Tree)));
        assert_eq!(trust.method(), Tree);
    }

    #[test]
    fn who_was_told_to_launch_warm_goes_no_lower_though_no_warm_process_could_be_had() {
        let mut trust = Trust::new(LaunchPolicy::Warm);
        trust.failed(Ahead);
        assert_eq!(trust.served(Cold), Some(Memory::AtMost(Tree)));
        assert_eq!(trust.method(), Tree);
    }

    #[test]
    fn the_first_completion_is_kept_and_the_same_again_is_fine() {
        let mut trust = auto();
        let kept = Some(Memory::Completion("a".to_owned()));
        assert_eq!(trust.completed(Tree, &Recall::Nothing, "a"), Verdict::Fine(kept));
        assert_eq!(trust.completed(Tree, &before("a"), "a"), Verdict::Fine(None));
        assert_eq!(trust.completed(Tree, &Recall::NotCompared, "b"), Verdict::Fine(None));
    }

    #[test]
    fn a_difference_that_a_cold_launch_does_not_have_is_the_warm_ones_fault() {
        let mut trust = auto();
        assert_eq!(trust.completed(Tree, &before("a"), "b"), Verdict::Differs);
        trust.differed();
        assert_eq!(trust.method(), Cold);
        assert_eq!(trust.served(Cold), None);
        let blamed = Verdict::Fine(Some(Memory::AtMost(Cold)));
        assert_eq!(trust.completed(Cold, &before("a"), "a"), blamed);
        assert_eq!(trust.method(), Cold);
    }

    #[test]
    fn where_a_cold_launch_differs_as_well_nothing_is_compared_any_more() {
        let mut trust = auto();
        trust.differed();
        let none = Verdict::Fine(Some(Memory::NotComparable));
        assert_eq!(trust.completed(Cold, &before("a"), "c"), none);
        assert_eq!(trust.method(), Ahead);
    }

    #[test]
    fn a_cold_launch_that_differs_by_itself_is_what_is_compared_with_from_now_on() {
        let kept = Verdict::Fine(Some(Memory::Completion("b".to_owned())));
        assert_eq!(auto().completed(Cold, &before("a"), "b"), kept);
    }
}
