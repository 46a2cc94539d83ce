//! The bounds of an option.

use std::num::NonZeroU32;
use std::time::Duration;

use serde_json::Value;

use super::values::{Fault, OptionValue, in_words};

/// The least and the most that an option may be.
#[derive(Debug)]
pub(super) struct Between<T>(pub(super) T, pub(super) T);

/// What has bounds.
pub(super) trait Bounded: OptionValue + PartialOrd {
    /// The least that is more than nothing, where there is one: nobody writes it.
    fn is_all_but_nothing(&self) -> bool {
        false
    }
}

impl Bounded for u64 {}

impl Bounded for NonZeroU32 {}

impl Bounded for f64 {
    fn is_all_but_nothing(&self) -> bool {
        self.to_bits() == Self::MIN_POSITIVE.to_bits()
    }
}

impl Bounded for Duration {}

impl<T: Bounded> Between<T> {
    /// What is wrong with a value that lies elsewhere.
    pub(super) fn fault(&self, value: &T) -> Option<Fault> {
        // Written so that what is no number does not pass.
        let is_within = self.0 <= *value && *value <= self.1;
        (!is_within).then(|| {
            let [least, most, found] = [&self.0, &self.1, value].map(|it| in_words(&it.json()));
            let least = if self.0.is_all_but_nothing() {
                "above 0".to_owned()
            } else {
                format!("at least {least}")
            };
            Fault::new(format!("expected {least} and at most {most}"), "", found)
        })
    }

    /// The schema of a number with these bounds; of what is none it says nothing.
    pub(super) fn narrow(&self, mut schema: Value) -> Value {
        let [least, most] = [&self.0, &self.1].map(T::json);
        if least.is_number() && self.0.is_all_but_nothing() {
            schema["exclusiveMinimum"] = 0.into();
        } else if least.is_number() {
            schema["minimum"] = least;
        }
        if most.is_number() {
            schema["maximum"] = most;
        }
        schema
    }
}
