//! What is left, or cannot be looked at, stands in the way: whoever waits is told.

use super::script::{Script, answered, asks, launched, lingered, no};
use crate::domain::diagnosis::Exit;
use crate::domain::input::{Input, Request};
use crate::domain::report::ProcessReport;

#[test]
fn who_waits_for_a_start_that_failed_for_good_is_told_though_something_lingers() {
    let mut s = Script::stopped();
    s.on(asks(7, Request::Start));
    s.on(launched(1));
    let (exit, last_lines) = (Exit::Code(2), Vec::new());
    let exited = ProcessReport::Exited { incarnation: no(1), exit, last_lines };
    let mut answers = answered(&mut s, Input::Process(exited));
    answers.extend(answered(&mut s, lingered(1)));
    assert_eq!(answers, [7]);
}

#[test]
fn who_waits_for_the_service_is_told_that_what_lingers_stands_in_the_way() {
    let mut s = Script::crashed();
    s.on(asks(7, Request::Ensure));
    assert_eq!(answered(&mut s, lingered(1)), [7]);
    for (ticket, request) in [(8, Request::Ensure), (9, Request::Start), (10, Request::Restart)] {
        assert_eq!(answered(&mut s, asks(ticket, request)), [ticket]);
    }
}
