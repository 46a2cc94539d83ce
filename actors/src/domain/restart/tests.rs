//! Conformance with Erlang/OTP's `supervisor_SUITE`, as far as it is about one child, and the
//! rules that are ours. Each test of the first kind names its case.

use super::*;

fn policy(max_restarts: u32) -> RestartPolicy {
    let max_restarts = NonZeroU32::new(max_restarts).unwrap();
    RestartPolicy { max_restarts, ..RestartPolicy::default() }
}

fn at(seconds: f64) -> Moment {
    let since_origin = Duration::from_secs(1_000) + Duration::from_secs_f64(seconds);
    Moment { monotonic: since_origin, wall: std::time::SystemTime::UNIX_EPOCH + since_origin }
}

fn died() -> Cause {
    Cause::new(Code::EngineDied, "vLLM ended while serving: signal 9 (SIGKILL)")
}

const BRIEFLY: Option<Duration> = Some(Duration::from_secs(1));

/// Judges one death a `time`, each after a brief health, and tells which are restarted.
fn restarted(ledger: &mut RestartLedger, policy: &RestartPolicy, times: &[f64]) -> Vec<bool> {
    let judge = |time: &f64| ledger.judge(policy, &died(), BRIEFLY, Occasion::Ended, at(*time));
    times.iter().map(judge).map(|verdict| matches!(verdict, Verdict::Restart { .. })).collect()
}

/// The delays of restarts that follow one another a `gap` apart.
fn delays(healthy_for: Option<Duration>, gap: f64, count: u32) -> Vec<u64> {
    let mut ledger = RestartLedger::default();
    (0..count)
        .map(|turn| {
            match ledger.judge(
                &policy(100),
                &died(),
                healthy_for,
                Occasion::Ended,
                at(gap * f64::from(turn)),
            ) {
                Verdict::Restart { delay, .. } => delay.as_secs(),
                Verdict::GiveUp(cause) => panic!("gave up: {cause}"),
            }
        })
        .collect()
}

/// `permanent_normal`, `permanent_shutdown`, `permanent_abnormal`, and `transient_abnormal`: the
/// way in which it ended does not matter, for vLLM's status says nothing.
#[test]
fn an_unasked_for_end_is_restarted_however_it_came() {
    for code in Code::all().filter(|code| code.retry_class() != RetryClass::Permanent) {
        let verdict = RestartLedger::default().judge(
            &policy(1),
            &Cause::new(code, ""),
            None,
            Occasion::Ended,
            at(0.0),
        );
        assert!(matches!(verdict, Verdict::Restart { .. }), "{code}: {verdict:?}");
    }
}

/// `faulty_application_shutdown`: the error comes out as it went in.
#[test]
fn a_permanent_cause_surfaces_unchanged() {
    for code in Code::all().filter(|code| code.retry_class() == RetryClass::Permanent) {
        let cause = Cause::new(code, "as it was").with_last_lines(vec!["a line".to_owned()]);
        let verdict =
            RestartLedger::default().judge(&policy(3), &cause, None, Occasion::Ended, at(0.0));
        assert_eq!(verdict, Verdict::GiveUp(cause));
    }
}

/// `multiple_restarts`: one a window, and each a little more than a window after the last.
#[test]
fn failures_further_apart_than_the_window_never_exceed_the_limit() {
    let times: Vec<f64> = (0..20).map(|turn| f64::from(turn) * 61.0).collect();
    let all = restarted(&mut RestartLedger::default(), &policy(1), &times);
    assert_eq!(all, [true; 20]);
}

/// The inclusive edge of `add_restart`: a restart that is exactly as old as the window counts.
#[test]
fn a_restart_exactly_as_old_as_the_window_still_counts() {
    let mut ledger = RestartLedger::default();
    assert_eq!(restarted(&mut ledger, &policy(1), &[0.0, 60.0]), [true, false]);
    let mut ledger = RestartLedger::default();
    assert_eq!(restarted(&mut ledger, &policy(1), &[0.0, 60.001]), [true, true]);
}

/// `one_for_one`: with an intensity of two, the third failure within the window is the end.
#[test]
fn as_many_restarts_as_the_limit_and_not_one_more() {
    for limit in 1..=12 {
        let mut ledger = RestartLedger::default();
        let times: Vec<f64> = (0..=limit).map(f64::from).collect();
        let mut expected = vec![true; limit as usize];
        expected.push(false);
        assert_eq!(restarted(&mut ledger, &policy(limit), &times), expected);
        assert_eq!(ledger.total(), u64::from(limit));
    }
}

/// `one_for_one_escalation`: a start that fails every time is counted every time.
#[test]
fn every_failed_start_counts() {
    let mut ledger = RestartLedger::default();
    let refused = Cause::new(Code::PortInUse, "the port is taken");
    for turn in 0..2 {
        let verdict =
            ledger.judge(&policy(2), &refused, None, Occasion::Ended, at(f64::from(turn)));
        assert!(matches!(verdict, Verdict::Restart { .. }));
    }
    let Verdict::GiveUp(cause) = ledger.judge(&policy(2), &refused, None, Occasion::Ended, at(3.0))
    else {
        panic!("the third start in the window should be the last")
    };
    assert_eq!(cause.code, Code::RestartLimitReached);
    assert!(cause.summary.contains("VLM-005"), "{cause}");
}

/// `hanging_restart_loop`: whoever interrupts an endless loop finds it ready to begin anew.
#[test]
fn a_restart_loop_can_be_interrupted_and_begun_anew() {
    let mut ledger = RestartLedger::default();
    assert_eq!(restarted(&mut ledger, &policy(2), &[0.0, 1.0, 2.0]), [true, true, false]);
    ledger.clear();
    assert_eq!(ledger.in_window(at(2.0)), 0);
    assert_eq!(restarted(&mut ledger, &policy(2), &[3.0, 4.0, 5.0]), [true, true, false]);
    assert_eq!(ledger.total(), 4, "the total outlives the operator's word");
}

#[test]
fn the_window_counts_from_the_launch_that_a_slow_end_held_up() {
    let mut ledger = RestartLedger::default();
    assert_eq!(restarted(&mut ledger, &policy(1), &[0.0]), [true]);
    ledger.launched(at(50.0));
    assert_eq!(restarted(&mut ledger, &policy(1), &[109.0, 110.001]), [false, true]);
}

#[test]
fn the_delay_doubles_up_to_its_maximum() {
    assert_eq!(delays(BRIEFLY, 1.0, 8), [2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(delays(BRIEFLY, 1.0, 50).last(), Some(&60), "it does not overflow");
}

#[test]
fn the_delay_starts_over_after_a_stable_time_and_not_before() {
    assert_eq!(delays(Some(Duration::from_millis(59_999)), 70.0, 3), [2, 4, 8]);
    assert_eq!(delays(Some(Duration::from_secs(60)), 70.0, 3), [2, 2, 2]);
}

#[test]
fn no_delay_is_shorter_than_two_seconds() {
    let hasty = RestartPolicy {
        backoff: Duration::ZERO,
        backoff_max: Duration::from_millis(1),
        ..policy(3)
    };
    let verdict = RestartLedger::default().judge(&hasty, &died(), None, Occasion::Ended, at(0.0));
    assert_eq!(verdict, Verdict::Restart { attempt: 1, delay: MIN_BACKOFF });
}

#[test]
fn launches_that_never_become_healthy_end_though_the_window_never_fills() {
    let mut ledger = RestartLedger::default();
    let slowly = |turn: u32| at(f64::from(turn) * 300.0);
    for turn in 0..4 {
        let verdict = ledger.judge(&policy(3), &died(), None, Occasion::Killed, slowly(turn));
        assert!(matches!(verdict, Verdict::Restart { .. }), "{turn}: {verdict:?}");
    }
    let Verdict::GiveUp(cause) =
        ledger.judge(&policy(3), &died(), None, Occasion::Killed, slowly(4))
    else {
        panic!("the fifth launch in a row should be the last")
    };
    assert_eq!(cause.code, Code::RestartLimitReached);
    assert!(cause.summary.contains("5 launches in a row never became healthy"), "{cause}");
}

#[test]
fn health_however_brief_forgives_the_launches_before() {
    let mut ledger = RestartLedger::default();
    for turn in 0..50_u32 {
        let healthy_for = if turn % 4 == 3 { BRIEFLY } else { None };
        let verdict = ledger.judge(
            &policy(3),
            &died(),
            healthy_for,
            Occasion::Killed,
            at(f64::from(turn) * 300.0),
        );
        assert!(matches!(verdict, Verdict::Restart { .. }), "{turn}: {verdict:?}");
    }
}

#[test]
fn a_load_that_fails_for_a_transient_reason_is_retried_so_often_in_a_row() {
    let stalled = Cause::new(Code::LoadTimedOut, "no progress for 300 s");
    let mut ledger = RestartLedger::default();
    let mut judge = |cause: &Cause, healthy_for, turn: u32| {
        ledger.judge(&policy(3), cause, healthy_for, Occasion::Ended, at(f64::from(turn) * 400.0))
    };
    assert!(matches!(judge(&stalled, None, 0), Verdict::Restart { .. }));
    assert!(matches!(judge(&stalled, None, 1), Verdict::Restart { .. }));
    assert!(matches!(judge(&died(), BRIEFLY, 2), Verdict::Restart { .. }), "health starts it over");
    assert!(matches!(judge(&stalled, None, 3), Verdict::Restart { .. }));
    assert!(matches!(judge(&stalled, None, 4), Verdict::Restart { .. }));
    assert_eq!(judge(&stalled, None, 5), Verdict::GiveUp(stalled.clone()));
}

#[test]
fn the_window_empties_from_its_oldest_restart() {
    let mut ledger = RestartLedger::default();
    assert_eq!(ledger.until_reset(at(0.0)), None);
    restarted(&mut ledger, &policy(3), &[0.0, 10.0]);
    assert_eq!(ledger.until_reset(at(20.0)), Some(Duration::from_secs(40)));
    assert_eq!((ledger.in_window(at(60.0)), ledger.in_window(at(61.0))), (2, 1));
    assert_eq!(ledger.until_reset(at(61.0)), Some(Duration::from_secs(9)));
    assert_eq!(ledger.until_reset(at(71.0)), None);
}

#[test]
fn an_intensity_of_nothing_admits_nothing() {
    let mut intensity = Intensity::default();
    assert!(!intensity.admit(0, RESTART_WINDOW, at(0.0)));
    assert!(intensity.admit(1, RESTART_WINDOW, at(0.0)));
}

fn told(code: Code, line: &str) -> Cause {
    Cause::new(code, "it died").with_line(TellingLine { number: 7, text: line.to_owned() })
}

/// Judges failures of one cause, ten minutes apart, and tells how many are restarted before it gives up.
fn restarts_of(cause: impl Fn(u32) -> Cause, healthy_for: Option<Duration>, of: Occasion) -> u32 {
    let mut ledger = RestartLedger::default();
    let policy = RestartPolicy::default();
    (0..100)
        .find(|turn| {
            let now = at(600.0 * f64::from(*turn));
            let verdict = ledger.judge(&policy, &cause(*turn), healthy_for, of, now);
            matches!(verdict, Verdict::GiveUp(_))
        })
        .unwrap_or(100)
}

#[test]
fn a_server_that_comes_up_and_dies_of_the_same_each_time_is_given_up() {
    let same = |_| told(Code::EngineDied, "RuntimeError: Unsupported CPU attention configuration");
    assert_eq!(restarts_of(same, BRIEFLY, Occasion::Ended), 3);
    // Of something else each time, long after it came up, without a word, or by somebody's hand.
    assert_eq!(restarts_of(|_| died(), BRIEFLY, Occasion::Ended), 100);
    let other = |turn| told(Code::EngineDied, &"x".repeat(turn as usize));
    assert_eq!(restarts_of(other, BRIEFLY, Occasion::Ended), 100);
    assert_eq!(restarts_of(same, Some(Duration::from_secs(3600)), Occasion::Ended), 100);
    assert_eq!(restarts_of(same, BRIEFLY, Occasion::Killed), 100);
    // It is the same though its numbers differ.
    let of_process = |turn: u32| {
        let address = 0x7f_9aff_u64 + u64::from(turn) * 0x1b;
        told(Code::EngineDied, &format!("Process {} died, of <object at {address:#x}>", 9 + turn))
    };
    assert_eq!(restarts_of(of_process, BRIEFLY, Occasion::Ended), 3);
}

#[test]
fn a_load_is_tried_again_as_often_as_is_said_and_not_at_all_if_that_cannot_help() {
    for code in [Code::Unrecognised, Code::EngineDied, Code::HubUnreachable, Code::LoadTimedOut] {
        assert_eq!(restarts_of(|_| Cause::new(code, ""), None, Occasion::Ended), 2, "{code}");
    }
    assert_eq!(restarts_of(|_| Cause::new(Code::ModelNotFound, ""), None, Occasion::Ended), 0);
    // Who was killed while he loaded has not failed to load.
    assert_eq!(restarts_of(|_| died(), None, Occasion::Killed), 4);
}

#[test]
fn the_restart_limit_has_the_last_cause_for_its_source() {
    let mut ledger = RestartLedger::default();
    let last = told(Code::EngineDied, "RuntimeError: it hurts");
    let judge = |ledger: &mut RestartLedger| {
        ledger.judge(&policy(1), &last, BRIEFLY, Occasion::Killed, at(0.0))
    };
    assert!(matches!(judge(&mut ledger), Verdict::Restart { .. }));
    let Verdict::GiveUp(limit) = judge(&mut ledger) else { panic!("one is enough") };
    assert_eq!((limit.code, limit.source()), (Code::RestartLimitReached, Some(&last)));
    assert_eq!(limit.line(), last.line());
}
