//! All rules. Where two match the same line and weigh the same, the one that stands first is believed.

use super::rule::Rule;

mod arguments;
mod engine;
mod gpu;
mod host;
mod hub;
mod memory;
mod model;
mod parallel;

/// From those that say much to those that say little.
pub(super) fn all() -> impl Iterator<Item = &'static Rule> {
    let families = [
        memory::RULES,
        parallel::RULES,
        gpu::RULES,
        host::RULES,
        hub::RULES,
        model::RULES,
        arguments::RULES,
        engine::RULES,
    ];
    families.into_iter().flatten()
}
