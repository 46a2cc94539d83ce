//! What a service manager says of a unit, in JSON: in the manager's own words.

use serde::Serialize;
use vllm_supervisor_actors::domain::unit::UnitStatus;

#[derive(Serialize)]
pub(super) struct UnitBody<'a> {
    name: &'a str,
    active_state: &'static str,
    sub_state: &'a str,
    result: &'a str,
    main_pid: Option<u32>,
    restarts: u32,
}

impl<'a> From<&'a UnitStatus> for UnitBody<'a> {
    fn from(unit: &'a UnitStatus) -> Self {
        Self {
            name: &unit.name,
            active_state: unit.active.as_str(),
            sub_state: &unit.sub,
            result: &unit.result,
            main_pid: unit.main_pid,
            restarts: unit.restarts,
        }
    }
}
