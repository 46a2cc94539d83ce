//! Checks of health that are not answered in time.

use super::*;

/// For how long late checks are put down to much work, of a front that answers nothing at all.
fn is_excused_for(server: &mut Server) -> Duration {
    let began = server.now;
    loop {
        server.now += VITALS_EVERY;
        server.front += VITALS_EVERY * server.front_load / 100;
        let sample = Sample { front: server.front, ..Sample::default() };
        assert_eq!(server.liveness.sampled(&sample, server.now), Judgement::Alive);
        if !server.liveness.is_only_late(server.now) {
            return server.now.saturating_sub(began);
        }
    }
}

#[test]
fn a_front_that_works_is_late_for_five_minutes_before_it_hangs() {
    let mut server = Server { front_load: 20, ..Server::with_requests(32) };
    server.look();
    assert_eq!(is_excused_for(&mut server), BUSY_FOR + VITALS_EVERY);
    server.liveness.answered();
    assert_eq!(is_excused_for(&mut server), BUSY_FOR + VITALS_EVERY);
    server.liveness.answered();
    server.mark += 1;
    server.look();
    assert_eq!(is_excused_for(&mut server), BUSY_FOR + VITALS_EVERY);
}

#[test]
fn a_front_that_does_nothing_is_not_late_but_hangs() {
    for front_load in [0, 3] {
        let mut server = Server { load: 100, front_load, ..Server::with_requests(32) };
        server.look();
        assert_eq!(is_excused_for(&mut server), VITALS_EVERY, "{front_load} %");
    }
}

#[test]
fn after_a_standstill_of_ours_lateness_says_nothing_for_a_while() {
    let mut server = Server::with_requests(32);
    server.look();
    server.liveness.begin_anew(server.now);
    assert_eq!(is_excused_for(&mut server), STILL_FOR);
}

#[test]
fn however_often_we_stand_still_lateness_is_put_down_to_it_for_five_minutes() {
    let mut server = Server::with_requests(32);
    let began = server.now;
    while server.liveness.is_only_late(server.now) || server.now == began {
        server.now += VITALS_EVERY;
        server.liveness.begin_anew(server.now);
    }
    assert_eq!(server.now.saturating_sub(began), BUSY_FOR);
}

#[test]
fn who_may_have_been_hurt_is_not_only_late() {
    let mut server = Server { front_load: 20, ..Server::with_requests(32) };
    server.look();
    assert_eq!(server.liveness.suspected(server.now), Judgement::Doubtful);
    assert_eq!(is_excused_for(&mut server), VITALS_EVERY);
}
