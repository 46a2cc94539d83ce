//! Going from one model to another, or to other arguments, as data.

use crate::domain::diagnosis::Phase;
use crate::domain::target::Target;

/// A switch of models under way: from the request until the new model is proven to serve, or the
/// old one is to be brought back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Switch {
    /// The new model.
    pub to: Target,
    /// What follows if it cannot be loaded.
    pub otherwise: Otherwise,
}

/// What follows a switch that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Otherwise {
    /// The service was up, or to be up: the model that was last proven to serve is brought back.
    Restore,
    /// Nothing was served before: the failure is judged like that of any other start.
    Judge,
}

/// What the service serves, and where it is on its way to something else.
///
/// What to go back to is what was last *proven* to serve; at first, by trust, what is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Models {
    proven: Target,
    switch: Option<Switch>,
    decided_by: DecidedBy,
}

/// Who has said what is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DecidedBy {
    /// The configuration alone: an earlier supervisor may have been told otherwise.
    Configuration,
    /// Somebody who asked this supervisor, or it has launched it.
    Request,
}

impl Models {
    /// A service that is configured to serve this.
    pub fn new(configured: Target) -> Self {
        Self { proven: configured, switch: None, decided_by: DecidedBy::Configuration }
    }

    /// What a launch is to serve now.
    pub fn wanted(&self) -> &Target {
        self.switch.as_ref().map_or(&self.proven, |switch| &switch.to)
    }

    /// What was last proven to serve.
    pub fn proven(&self) -> &Target {
        &self.proven
    }

    /// The switch under way.
    pub fn switch(&self) -> Option<&Switch> {
        self.switch.as_ref()
    }

    /// Whatever an earlier supervisor was told, this is what is to be served now.
    pub fn settle(&mut self) {
        self.decided_by = DecidedBy::Request;
    }

    /// Asks for another model. One that was asked for before and is not proven yet is given up; what
    /// to go back to stays.
    pub fn turn_to(&mut self, to: Target, otherwise: Otherwise) {
        self.settle();
        if to == self.proven {
            self.switch = None;
        } else {
            let otherwise = self.switch.take().map_or(otherwise, |switch| switch.otherwise);
            self.switch = Some(Switch { to, otherwise });
        }
    }

    /// A launch of what was wanted serves. Returns the model before, if that was another.
    pub fn proves(&mut self) -> Option<Target> {
        let Switch { to, .. } = self.switch.take()?;
        Some(std::mem::replace(&mut self.proven, to))
    }

    /// Gives up the switch: what was last proven is wanted again.
    pub fn abandon(&mut self) {
        self.switch = None;
    }

    /// A launch of what is wanted failed before it served. Returns the model that was given up, if
    /// the one before is to be brought back for it.
    pub fn fails(&mut self) -> Option<Target> {
        self.switch.take_if(|switch| switch.otherwise == Otherwise::Restore).map(|switch| switch.to)
    }

    /// What was found running serves this: a switch that was asked for meanwhile has something to go back to.
    pub fn found(&mut self, running: &Target) {
        if let Some(switch) = self.switch.as_mut().filter(|_| *running == self.proven) {
            switch.otherwise = Otherwise::Restore;
        }
    }

    /// An earlier supervisor of the same configuration has switched to this, and left it running, having come
    /// so far. A model that somebody has named since counts more, and may have to be gone back from.
    pub fn inherit(&mut self, running: &Target, phase: Phase) {
        match (self.decided_by, &mut self.switch, phase) {
            _ if *running == self.proven => self.found(running),
            (DecidedBy::Configuration, _, Phase::Serving) => self.proven = running.clone(),
            (DecidedBy::Configuration, _, Phase::Loading) => {
                let otherwise = Otherwise::Restore;
                self.switch = Some(Switch { to: running.clone(), otherwise });
            }
            (DecidedBy::Request, Some(switch), Phase::Serving) => {
                switch.otherwise = Otherwise::Restore;
                self.proven = running.clone();
                self.switch.take_if(|switch| switch.to == self.proven);
            }
            (DecidedBy::Request, _, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::spec::ModelId;
    use crate::domain::target::Arguments;

    fn model(name: &str) -> Target {
        Target { model: ModelId::new(name).unwrap(), arguments: Arguments::default() }
    }

    fn models() -> Models {
        Models::new(model("org/a"))
    }

    #[test]
    fn a_proven_switch_names_the_model_before() {
        let mut models = models();
        models.turn_to(model("org/b"), Otherwise::Restore);
        assert_eq!(models.wanted(), &model("org/b"));
        assert_eq!(models.proves(), Some(model("org/a")));
        assert_eq!(models.proven(), &model("org/b"));
        assert_eq!(models.proves(), None);
    }

    #[test]
    fn a_second_switch_keeps_what_the_first_would_have_gone_back_to() {
        let mut models = models();
        models.turn_to(model("org/b"), Otherwise::Restore);
        models.turn_to(model("org/c"), Otherwise::Judge);
        assert_eq!(models.fails(), Some(model("org/c")));
        assert_eq!(models.wanted(), &model("org/a"));
    }

    #[test]
    fn a_switch_back_to_what_is_proven_is_none() {
        let mut models = models();
        models.turn_to(model("org/b"), Otherwise::Restore);
        models.turn_to(model("org/a"), Otherwise::Restore);
        assert_eq!(models.switch(), None);
    }

    #[test]
    fn nothing_is_restored_where_nothing_was_served() {
        let mut models = models();
        models.turn_to(model("org/b"), Otherwise::Judge);
        assert_eq!(models.fails(), None);
        assert_eq!(models.wanted(), &model("org/b"));
    }

    #[test]
    fn other_arguments_for_the_same_model_are_a_switch() {
        let mut models = models();
        let longer = Arguments::new(vec!["--max-model-len=8192".to_owned()], None);
        let longer = Target { arguments: longer, ..model("org/a") };
        models.turn_to(longer.clone(), Otherwise::Restore);
        assert_eq!(models.wanted(), &longer);
        assert_eq!(models.fails(), Some(longer));
        assert_eq!(models.wanted(), &model("org/a"));
    }

    #[test]
    fn what_an_earlier_supervisor_has_switched_to_is_served_on() {
        let mut serving = models();
        serving.inherit(&model("org/b"), Phase::Serving);
        assert_eq!((serving.wanted(), serving.proven()), (&model("org/b"), &model("org/b")));
        let mut loading = models();
        loading.inherit(&model("org/b"), Phase::Loading);
        assert_eq!((loading.wanted(), loading.proven()), (&model("org/b"), &model("org/a")));
        assert_eq!(loading.fails(), Some(model("org/b")));
        assert_eq!(loading.wanted(), &model("org/a"));
    }

    #[test]
    fn what_an_earlier_supervisor_has_switched_to_counts_less_than_a_word() {
        for phase in [Phase::Loading, Phase::Serving] {
            let mut models = models();
            models.settle();
            models.inherit(&model("org/b"), phase);
            assert_eq!(models.wanted(), &model("org/a"));
        }
    }

    #[test]
    fn what_was_served_is_gone_back_to_from_what_was_asked_for_meanwhile() {
        for (phase, back) in [(Phase::Serving, "org/b"), (Phase::Loading, "org/c")] {
            let mut models = models();
            models.turn_to(model("org/c"), Otherwise::Judge);
            models.inherit(&model("org/b"), phase);
            assert_eq!(models.wanted(), &model("org/c"));
            models.fails();
            assert_eq!(models.wanted(), &model(back), "{phase:?}");
        }
        let mut models = models();
        models.turn_to(model("org/c"), Otherwise::Judge);
        models.found(&model("org/b"));
        assert_eq!(models.fails(), None, "nobody knows that it ever served");
    }
}
