//! A process that has been started.

use super::{no, pid};
use crate::domain::course::Course;
use crate::domain::input::Input;
use crate::domain::report::ProcessReport;
use crate::domain::trust::{LaunchMethod, Memories, Recall};

pub(in super::super) fn launched(incarnation: u64) -> Input {
    launched_as(incarnation, LaunchMethod::Cold, Recall::NotCompared)
}

pub(in super::super) fn launched_as(
    incarnation: u64,
    method: LaunchMethod,
    recall: Recall,
) -> Input {
    let (incarnation, pid) = (no(incarnation), pid(incarnation));
    let memories = Memories { recall, course: None };
    Input::Process(ProcessReport::Launched { incarnation, pid, method, memories })
}

/// Its load before took this course.
pub(in super::super) fn launched_again(incarnation: u64, course: Course) -> Input {
    let (incarnation, pid, method) = (no(incarnation), pid(incarnation), LaunchMethod::Cold);
    let memories = Memories { course: Some(course), ..Memories::default() };
    Input::Process(ProcessReport::Launched { incarnation, pid, method, memories })
}
