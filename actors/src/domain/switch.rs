//! Going from one model to another, as data.

use crate::domain::spec::ModelId;

/// A switch of models under way: from the request until the new model is proven to serve, or the
/// old one is to be brought back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Switch {
    /// The new model.
    pub to: ModelId,
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
    proven: ModelId,
    switch: Option<Switch>,
}

impl Models {
    /// A service that is configured to serve this.
    pub fn new(configured: ModelId) -> Self {
        Self { proven: configured, switch: None }
    }

    /// What a launch is to serve now.
    pub fn wanted(&self) -> &ModelId {
        self.switch.as_ref().map_or(&self.proven, |switch| &switch.to)
    }

    /// What was last proven to serve.
    pub fn proven(&self) -> &ModelId {
        &self.proven
    }

    /// The switch under way.
    pub fn switch(&self) -> Option<&Switch> {
        self.switch.as_ref()
    }

    /// Asks for another model. One that was asked for before and is not proven yet is given up; what
    /// to go back to stays.
    pub fn turn_to(&mut self, to: ModelId, otherwise: Otherwise) {
        if to == self.proven {
            self.switch = None;
        } else {
            let otherwise = self.switch.take().map_or(otherwise, |switch| switch.otherwise);
            self.switch = Some(Switch { to, otherwise });
        }
    }

    /// A launch of what was wanted serves. Returns the model before, if that was another.
    pub fn proves(&mut self) -> Option<ModelId> {
        let Switch { to, .. } = self.switch.take()?;
        Some(std::mem::replace(&mut self.proven, to))
    }

    /// Gives up the switch: what was last proven is wanted again.
    pub fn abandon(&mut self) {
        self.switch = None;
    }

    /// A launch of what is wanted failed before it served. Returns the model that was given up, if
    /// the one before is to be brought back for it.
    pub fn fails(&mut self) -> Option<ModelId> {
        self.switch.take_if(|switch| switch.otherwise == Otherwise::Restore).map(|switch| switch.to)
    }

    /// What was found running serves this: a switch that was asked for meanwhile has something to
    /// go back to.
    pub fn found(&mut self, running: &ModelId) {
        if *running != self.proven {
            return;
        }
        if let Some(switch) = &mut self.switch {
            switch.otherwise = Otherwise::Restore;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelId {
        ModelId::new(name).unwrap()
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
}
