//! Hangs, and what only looks like one.

use super::*;

mod late;

/// A vLLM that is looked at every five seconds.
struct Server {
    liveness: Liveness,
    now: Duration,
    work: Work,
    mark: u64,
    requests: u64,
    connections: Option<u64>,
    rest: Rest,
    halt: Halt,
    /// How much of a processor it takes, in percent, and its front of that.
    load: u32,
    front_load: u32,
    front: Duration,
}

impl Server {
    fn idle() -> Self {
        Self {
            liveness: Liveness::begin(Duration::ZERO),
            now: Duration::ZERO,
            work: Work::default(),
            mark: 1,
            requests: 0,
            connections: Some(0),
            rest: Rest::Awake,
            halt: Halt::None,
            load: 0,
            front_load: 0,
            front: Duration::ZERO,
        }
    }

    fn with_requests(requests: u64) -> Self {
        Self { requests, connections: Some(requests), ..Self::idle() }
    }

    /// One look.
    fn look(&mut self) -> Judgement {
        self.now += VITALS_EVERY;
        self.work.cpu += VITALS_EVERY * self.load / 100;
        self.front += VITALS_EVERY * self.front_load / 100;
        let sample = Sample { work: self.work, front: self.front, halt: self.halt.clone() };
        let judged = self.liveness.sampled(&sample, self.now);
        if judged != Judgement::Alive {
            return judged;
        }
        let Self { requests, mark, rest, connections, .. } = *self;
        self.liveness.pulsed(Some(Pulse { requests, mark, rest, connections }), self.now)
    }

    /// Looks for so long, and asks for tokens, of which this comes.
    fn watch(&mut self, seconds: u64, trial: Trial) -> Option<(u64, String)> {
        let end = self.now + Duration::from_secs(seconds);
        let began = self.now;
        let mut trials = 0;
        while self.now < end {
            let judged = match self.look() {
                Judgement::Doubtful => {
                    trials += 1;
                    assert!(trials <= seconds / 10 + 1, "{trials} trials");
                    if trial == Trial::None {
                        self.now += TOKEN_WITHIN;
                    }
                    self.liveness.tried(trial, self.now)
                }
                judged => judged,
            };
            if let Judgement::Hung(said) = judged {
                return Some((self.now.saturating_sub(began).as_secs(), said));
            }
        }
        None
    }
}

const HOUR: u64 = 3600;

#[test]
fn who_has_nothing_to_do_is_not_hung_and_is_not_asked_for_anything() {
    let mut server = Server::idle();
    for _ in 0..720 {
        assert_eq!(server.look(), Judgement::Alive);
    }
}

#[test]
fn an_engine_that_stands_still_with_requests_in_hand_is_found_within_half_a_minute() {
    let mut server = Server::with_requests(3);
    server.look();
    let (after, said) = server.watch(HOUR, Trial::None).expect("it is found");
    assert!(after <= 25, "{after} s");
    assert!(said.starts_with("3 requests are in hand, and nothing has moved for 2"), "{said}");
}

#[test]
fn who_makes_a_token_is_not_hung_whatever_its_counters_say() {
    let mut server = Server::with_requests(3);
    assert_eq!(server.watch(HOUR, Trial::Made), None);
}

#[test]
fn whose_counters_move_is_asked_for_nothing() {
    let mut server = Server::with_requests(300);
    for _ in 0..720 {
        server.mark += 1;
        assert_eq!(server.look(), Judgement::Alive);
    }
}

#[test]
fn a_long_step_of_a_processor_is_no_hang_until_vllm_itself_would_give_it_up() {
    let mut server = Server { load: 100, ..Server::with_requests(1) };
    assert_eq!(server.watch(290, Trial::None), None);
    let (after, _) = server.watch(60, Trial::None).expect("it spins");
    assert!(after <= 30, "{after} s");
}

#[test]
fn a_front_that_polls_an_engine_does_not_make_it_busy() {
    let mut server = Server { load: 3, ..Server::with_requests(1) };
    server.look();
    assert!(server.watch(30, Trial::None).is_some());
}

#[test]
fn who_sleeps_is_not_hung_and_is_not_woken() {
    let mut server = Server { rest: Rest::Asleep, ..Server::with_requests(2) };
    for _ in 0..720 {
        assert_eq!(server.look(), Judgement::Alive);
    }
}

#[test]
fn what_has_come_since_the_engine_stands_still_is_found_though_it_is_not_counted() {
    let mut server = Server { connections: Some(1), ..Server::idle() };
    server.look();
    let (after, said) = server.watch(HOUR, Trial::None).expect("it is found");
    assert!(after <= 60, "{after} s");
    assert!(said.contains("one token is not answered"), "{said}");
}

#[test]
fn clients_that_only_stay_connected_cost_a_token_a_minute() {
    let mut server = Server { connections: Some(9), ..Server::idle() };
    let mut trials = 0;
    for _ in 0..720 {
        if server.look() == Judgement::Doubtful {
            trials += 1;
            assert_eq!(server.liveness.tried(Trial::Made, server.now), Judgement::Alive);
        }
    }
    assert!((50..=60).contains(&trials), "{trials}");
}

#[test]
fn one_that_gives_no_tokens_is_judged_by_its_counters_alone() {
    let mut server = Server::with_requests(1);
    server.look();
    let (after, _) = server.watch(60, Trial::Unfit).expect("it is found");
    assert!(after <= 30, "{after} s");
    let mut server = Server { connections: Some(1), ..Server::idle() };
    assert_eq!(server.watch(HOUR, Trial::Unfit), None);
    let mut busy = Server { load: 100, ..Server::with_requests(1) };
    assert_eq!(busy.watch(290, Trial::Unfit), None);
}

#[test]
fn a_process_that_is_stopped_while_others_run_is_found_also_when_idle() {
    for requests in [0, 2] {
        let mut server = Server::with_requests(requests);
        server.look();
        server.halt = Halt::Some(vec![(7, Role::Worker)]);
        let (after, said) = server.watch(60, Trial::None).expect("it is found");
        assert!(after <= 10, "{after} s");
        assert_eq!(said, "worker 7 is stopped (SIGSTOP) while the others run");
    }
}

#[test]
fn a_process_that_is_stopped_for_a_moment_is_left_alone() {
    let mut server = Server::idle();
    for _ in 0..100 {
        server.halt = Halt::Some(vec![(7, Role::EngineCore)]);
        assert_eq!(server.look(), Judgement::Alive);
        server.halt = Halt::None;
        assert_eq!(server.look(), Judgement::Alive);
    }
}

#[test]
fn a_tree_that_is_stopped_as_a_whole_does_not_hang_and_begins_anew_when_it_goes_on() {
    let mut server = Server::with_requests(2);
    server.look();
    server.halt = Halt::All;
    assert_eq!(server.watch(HOUR, Trial::None), None);
    assert!(server.liveness.is_suspended());
    server.halt = Halt::None;
    assert_eq!(server.look(), Judgement::Alive);
    assert_eq!(server.look(), Judgement::Alive);
    assert!(!server.liveness.is_suspended());
    assert!(server.watch(60, Trial::None).is_some());
}

#[test]
fn after_a_standstill_of_ours_it_is_given_its_time_again() {
    let mut server = Server::with_requests(2);
    server.look();
    server.now += Duration::from_secs(HOUR);
    server.liveness.begin_anew(server.now);
    assert_eq!(server.look(), Judgement::Alive);
    assert_eq!(server.look(), Judgement::Alive);
}

#[test]
fn one_that_does_not_count_is_not_judged_by_its_counters() {
    let mut liveness = Liveness::begin(Duration::ZERO);
    for second in 0..HOUR {
        assert_eq!(liveness.pulsed(None, Duration::from_secs(second)), Judgement::Alive);
    }
}

#[test]
fn a_token_that_comes_late_while_others_move_is_no_hang() {
    let mut server = Server::with_requests(200);
    server.look();
    while server.look() != Judgement::Doubtful {}
    server.mark += 1;
    server.look();
    server.now += TOKEN_WITHIN;
    assert_eq!(server.liveness.tried(Trial::None, server.now), Judgement::Alive);
}

#[test]
fn who_has_taken_long_for_a_step_before_is_given_more_time() {
    let mut server = Server::with_requests(1);
    server.look();
    for _ in 0..3 {
        server.look();
    }
    server.mark += 1;
    server.look();
    assert_eq!(server.watch(55, Trial::None), None);
    assert!(server.watch(60, Trial::None).is_some());
}

#[test]
fn requests_that_nobody_waits_for_any_more_are_no_sign_of_a_hang() {
    let mut server = Server { connections: Some(0), ..Server::with_requests(8) };
    for trial in [Trial::Unfit, Trial::None] {
        assert_eq!(server.watch(HOUR, trial), None);
    }
}

#[test]
fn who_rests_or_cannot_be_asked_is_not_hung_and_is_asked_again() {
    for trial in [Trial::Resting, Trial::Unknown] {
        let mut server = Server::with_requests(2);
        server.look();
        let mut trials = 0;
        for _ in 0..720 {
            match server.look() {
                Judgement::Doubtful => {
                    trials += 1;
                    assert_eq!(server.liveness.tried(trial, server.now), Judgement::Alive);
                }
                judged => assert_eq!(judged, Judgement::Alive),
            }
        }
        assert!(trials > 100, "{trials}");
    }
}

#[test]
fn an_answer_that_never_comes_does_not_blind_for_ever() {
    let mut server = Server::with_requests(2);
    server.look();
    let doubts = (0..60).filter(|_| server.look() == Judgement::Doubtful).count();
    assert!(doubts > 3, "{doubts}");
}

/// Its clients stay connected.
#[test]
fn an_hour_without_requests_is_no_step_and_says_nothing_of_the_next_one() {
    let mut server = Server { connections: Some(2), ..Server::idle() };
    assert_eq!(server.watch(HOUR, Trial::Made), None);
    server.requests = 1;
    assert_eq!(server.look(), Judgement::Alive);
    server.mark += 1;
    assert_eq!(server.look(), Judgement::Alive);
    let (after, _) = server.watch(60, Trial::None).expect("it is found as soon as any other");
    assert!(after <= 30, "{after} s");
}

/// What comes of a suspicion within so many seconds: tokens are asked for, of which this comes.
fn suspected(server: &mut Server, seconds: u64, trial: Trial) -> Option<(u64, String)> {
    let began = server.now;
    assert_eq!(server.liveness.suspected(server.now), Judgement::Doubtful);
    server.now += TOKEN_WITHIN;
    match server.liveness.tried(trial, server.now) {
        Judgement::Alive => {}
        Judgement::Hung(why) => return Some((server.now.saturating_sub(began).as_secs(), why)),
        Judgement::Doubtful => panic!("a trial is an answer"),
    }
    server.watch(seconds, trial).map(|(after, why)| (after + TOKEN_WITHIN.as_secs(), why))
}

#[test]
fn who_is_suspected_and_spins_is_found_by_the_second_token_that_does_not_come() {
    let mut server = Server { load: 100, ..Server::with_requests(2) };
    server.look();
    let (after, _) = suspected(&mut server, 120, Trial::None).expect("it hangs");
    assert!((15..=60).contains(&after), "{after} s");
}

#[test]
fn who_is_suspected_and_works_is_let_alone() {
    let mut server = Server { load: 100, ..Server::with_requests(2) };
    server.look();
    assert_eq!(suspected(&mut server, 120, Trial::Made), None);
    let mut slow = Server { load: 100, ..Server::with_requests(2) };
    slow.look();
    assert_eq!(slow.liveness.suspected(slow.now), Judgement::Doubtful);
    slow.now += TOKEN_WITHIN;
    assert_eq!(slow.liveness.tried(Trial::None, slow.now), Judgement::Alive);
    slow.mark += 1;
    assert_eq!(slow.look(), Judgement::Alive);
    assert_eq!(slow.watch(120, Trial::None), None, "a step has ended: it is busy, and no more");
}

#[test]
fn who_does_not_count_is_not_condemned_by_a_suspicion() {
    let mut liveness = Liveness::begin(Duration::ZERO);
    let mut now = Duration::from_secs(600);
    for _ in 0..3 {
        assert_eq!(liveness.suspected(now), Judgement::Doubtful);
        now += TOKEN_WITHIN;
        assert_eq!(liveness.tried(Trial::None, now), Judgement::Alive);
        now += VITALS_EVERY;
        assert_eq!(liveness.pulsed(None, now), Judgement::Alive);
    }
}
