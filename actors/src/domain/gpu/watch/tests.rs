//! What is raised and cleared, by looks and faults at given times.

use super::*;
use crate::domain::gpu::{Devices, GpuProcess, Reachability, Slowdown, XidPolicy};

struct Bench {
    watch: GpuWatch,
    faults: DriverFaults,
    seconds: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(Devices::First(1), [])
    }

    fn with(devices: Devices, findings: impl IntoIterator<Item = GpuFinding>) -> Self {
        let watch = GpuWatch::resume(GpuRules::new(XidPolicy::default(), devices), findings, 0);
        Self { watch, faults: DriverFaults::default(), seconds: 1000 }
    }

    fn now(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// After so many seconds, with a look each second, the last with this.
    fn after(&mut self, seconds: u64, gpus: &[Gpu]) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..seconds {
            self.seconds += 1;
            let snapshot = GpuSnapshot { gpus: gpus.to_vec() };
            let news = self.watch.looked(&snapshot, self.now());
            told.extend(news.iter().map(in_short));
        }
        told
    }

    fn look(&mut self, gpus: &[Gpu]) -> Vec<String> {
        self.after(1, gpus)
    }

    fn xid(&mut self, index: u32, xid: u32) -> Vec<String> {
        self.faults.tell(index, format!("GPU-{index}"), xid);
        let now = self.now();
        self.watch.told(&self.faults, now).iter().map(in_short).collect()
    }
}

/// `+0 xid 79 reboot ours`
fn in_short(news: &FindingNews) -> String {
    let (sign, finding) = match news {
        FindingNews::Raised(finding) => ('+', finding),
        FindingNews::Cleared(finding) => ('-', finding),
    };
    let number = finding.kind.number().map_or_else(String::new, |number| format!(" {number}"));
    let ours = if finding.is_ours { " ours" } else { "" };
    let (kind, action) = (finding.kind.as_str(), finding.action.as_str());
    format!("{sign}{} {kind}{number} {action}{ours}", finding.index)
}

fn gpu(index: u32) -> Gpu {
    Gpu::new(index, format!("GPU-{index}"), "NVIDIA H100")
}

fn with(index: u32, change: impl FnOnce(&mut Gpu)) -> Gpu {
    let mut gpu = gpu(index);
    change(&mut gpu);
    gpu
}

/// One whose driver says what is to be done with it.
fn saying(index: u32, action: u32) -> Gpu {
    with(index, |gpu| gpu.condition.recovery_action = Some(action))
}

fn used(index: u32) -> Gpu {
    with(index, |gpu| gpu.processes.push(GpuProcess { ours: true, ..GpuProcess::new(7) }))
}

#[test]
fn a_gpu_that_is_well_is_no_news() {
    let mut bench = Bench::new();
    assert_eq!(bench.after(600, &[gpu(0), saying(1, 0)]), [""; 0]);
}

#[test]
fn a_lost_gpu_is_told_of_at_once_and_cleared_when_it_has_answered_for_a_while() {
    let mut bench = Bench::new();
    let lost = with(0, |gpu| gpu.condition.reachability = Reachability::Lost);
    bench.look(&[gpu(0)]);
    assert_eq!(bench.look(std::slice::from_ref(&lost)), ["+0 lost reboot ours"]);
    assert_eq!(bench.after(100, &[lost]), [""; 0]);
    assert_eq!(bench.after(4, &[gpu(0)]), [""; 0]);
    assert_eq!(bench.look(&[gpu(0)]), ["-0 lost reboot ours"]);
}

#[test]
fn who_cannot_be_asked_is_neither_lost_nor_well() {
    let mut bench = Bench::new();
    let unknown = with(0, |gpu| gpu.condition.reachability = Reachability::Unknown);
    let lost = with(0, |gpu| gpu.condition.reachability = Reachability::Lost);
    assert_eq!(bench.after(60, std::slice::from_ref(&unknown)), [""; 0]);
    bench.look(&[lost]);
    assert_eq!(bench.after(600, &[unknown]), [""; 0], "nobody says that it is well again");
}

#[test]
fn a_gpu_that_is_not_counted_any_more_is_missing() {
    let mut bench = Bench::new();
    bench.look(&[gpu(0), gpu(1)]);
    assert_eq!(bench.after(2, &[gpu(0)]), [""; 0]);
    assert_eq!(bench.after(2, &[gpu(0)]), ["+1 missing reboot"]);
    assert_eq!(bench.after(600, &[gpu(0)]), [""; 0]);
    assert_eq!(bench.after(7, &[gpu(0), gpu(1)]), ["-1 missing reboot"]);
}

#[test]
fn heat_is_told_of_when_it_lasts_and_not_again_while_it_hovers() {
    let mut bench = Bench::new();
    let hot = with(0, |gpu| gpu.condition.slowdown = Some(Slowdown::Thermal));
    for _ in 0..10 {
        assert_eq!(bench.after(9, std::slice::from_ref(&hot)), [""; 0]);
        bench.look(&[gpu(0)]);
    }
    assert_eq!(bench.after(12, std::slice::from_ref(&hot)), ["+0 thermal_slowdown none ours"]);
    for _ in 0..10 {
        assert_eq!(bench.after(50, &[gpu(0)]), [""; 0]);
        assert_eq!(bench.look(std::slice::from_ref(&hot)), [""; 0]);
    }
    assert_eq!(bench.after(61, &[gpu(0)]), ["-0 thermal_slowdown none ours"]);
}

#[test]
fn a_fault_is_judged_by_what_the_driver_says_and_else_by_the_table() {
    let mut bench = Bench::new();
    bench.look(&[gpu(0)]);
    assert_eq!(bench.xid(0, 79), ["+0 xid 79 reboot ours"]);
    let mut bench = Bench::new();
    bench.look(&[saying(0, 0)]);
    assert_eq!(bench.xid(0, 119), [""; 0], "the driver is to say");
    assert!(bench.watch.is_undecided());
    assert_eq!(bench.look(&[saying(0, 0)]), ["+0 xid 119 restart_application ours"]);
    assert_eq!(bench.xid(0, 119), [""; 0]);
    let news = bench.look(&[saying(0, 1)]);
    assert_eq!(news, ["+0 recovery_action 1 reset_gpu ours", "+0 xid 119 reset_gpu ours"]);
}

#[test]
fn a_fault_before_the_first_look_waits_for_it_but_not_for_ever() {
    let mut bench = Bench::new();
    assert_eq!(bench.xid(0, 95), [""; 0]);
    assert_eq!(bench.look(&[gpu(0)]), ["+0 xid 95 reset_gpu ours"]);
    let mut bench = Bench::new();
    bench.xid(0, 95);
    let news = bench.watch.silent(bench.now());
    assert_eq!(news.iter().map(in_short).collect::<Vec<_>>(), ["+0 xid 95 reset_gpu"]);
}

#[test]
fn what_follows_from_a_kill_is_no_finding() {
    let mut bench = Bench::new();
    bench.look(&[gpu(0)]);
    assert_eq!(bench.xid(0, 45), [""; 0]);
    assert_eq!(bench.xid(0, 43), [""; 0]);
    assert_eq!(bench.look(&[gpu(0)]), [""; 0]);
}

#[test]
fn a_fault_that_a_restart_cures_is_cleared_a_minute_after_the_last() {
    let mut bench = Bench::new();
    bench.look(&[gpu(0)]);
    assert_eq!(bench.xid(0, 31), ["+0 xid 31 restart_application ours"]);
    assert_eq!(bench.after(20, &[gpu(0)]), [""; 0]);
    assert_eq!(bench.xid(0, 31), [""; 0]);
    assert_eq!(bench.after(59, &[gpu(0)]), [""; 0]);
    assert_eq!(bench.look(&[gpu(0)]), ["-0 xid 31 restart_application ours"]);
}

#[test]
fn one_that_wants_a_reset_is_cleared_by_the_driver_alone() {
    let mut bench = Bench::new();
    bench.look(&[gpu(0)]);
    bench.xid(0, 79);
    assert_eq!(bench.after(3600, &[gpu(0)]), [""; 0], "nobody says that it is well");
    let mut bench = Bench::new();
    bench.look(&[saying(0, 2)]);
    bench.xid(0, 79);
    bench.after(100, &[saying(0, 2)]);
    let cleared = ["-0 xid 79 reboot ours", "-0 recovery_action 2 reboot ours"];
    assert_eq!(bench.after(6, &[saying(0, 0)]), cleared);
}

#[test]
fn what_an_earlier_watch_has_found_is_kept_until_the_driver_says_otherwise() {
    let (kind, action) = (FindingKind::Xid(79), GpuAction::Reboot);
    let finding = GpuFinding::new(0, "GPU-0", kind, action, "Xid 79");
    let kept = [GpuFinding { is_ours: true, ..finding }];
    let mut bench = Bench::with(Devices::First(1), kept.clone());
    assert_eq!(bench.after(600, &[gpu(0)]), [""; 0]);
    assert_eq!(bench.watch.findings().count(), 1);
    let mut bench = Bench::with(Devices::First(1), kept);
    assert_eq!(bench.look(&[saying(0, 0)]), ["-0 xid 79 reboot ours"]);
}

#[test]
fn another_fault_is_told_again_and_a_storm_once() {
    let mut bench = Bench::new();
    bench.look(&[gpu(0)]);
    assert_eq!(bench.xid(0, 31).len(), 1);
    for _ in 0..20 {
        assert_eq!(bench.xid(0, 31), [""; 0], "a storm is one fault");
    }
    bench.after(40, &[gpu(0)]);
    assert_eq!(bench.xid(0, 31), ["+0 xid 31 restart_application ours"]);
}

#[test]
fn what_may_be_drained_and_reset_later_ends_nothing_now() {
    let mut bench = Bench::new();
    bench.look(&[saying(0, 0)]);
    bench.xid(0, 94);
    let news = bench.look(&[saying(0, 4)]);
    assert_eq!(news, ["+0 recovery_action 4 none ours", "+0 xid 94 restart_application ours"]);
    for unknown in [3, 5, 8, 99] {
        assert_eq!(GpuAction::of_recovery_field(unknown), GpuAction::None);
    }
}

#[test]
fn an_operator_has_the_last_word_on_an_xid() {
    let mut bench = Bench::new();
    let actions = [(109, GpuAction::Reboot)].into();
    let rules = GpuRules::new(XidPolicy::with(actions), Devices::First(1));
    bench.watch = GpuWatch::resume(rules, [], 0);
    bench.look(&[saying(0, 0)]);
    assert_eq!(bench.xid(0, 109), ["+0 xid 109 reboot ours"]);
}

#[test]
fn a_gpu_that_says_late_who_it_is_is_the_same() {
    let mut bench = Bench::new();
    let unnamed = Gpu::new(0, "", "");
    let lost = Gpu {
        condition: with(0, |gpu| gpu.condition.reachability = Reachability::Lost).condition,
        ..unnamed.clone()
    };
    assert_eq!(bench.look(std::slice::from_ref(&lost)), ["+0 lost reboot ours"]);
    assert_eq!(bench.after(60, &[gpu(0)]), ["-0 lost reboot ours"]);
    let mut bench = Bench::new();
    bench.after(5, &[unnamed]);
    assert_eq!(bench.after(60, &[gpu(0)]), [""; 0], "nothing is missing");
}

#[test]
fn a_gpu_that_cannot_be_asked_has_not_lost_its_vllm() {
    let mut bench = Bench::with(Devices::Unknown, []);
    let unknown = with(0, |gpu| gpu.condition.reachability = Reachability::Unknown);
    let lost = with(0, |gpu| gpu.condition.reachability = Reachability::Lost);
    bench.look(&[used(0), gpu(1)]);
    bench.after(600, &[unknown, gpu(1)]);
    assert_eq!(bench.look(&[lost.clone(), gpu(1)]), ["+0 lost reboot ours"]);
    let mut bench = Bench::with(Devices::Unknown, []);
    bench.look(&[used(0), gpu(1)]);
    bench.seconds += 600;
    assert_eq!(bench.look(&[lost, gpu(1)]), ["+0 lost reboot ours"], "nobody looked meanwhile");
}

#[test]
fn what_is_wrong_with_a_gpu_is_told_again_when_vllm_is_found_on_it() {
    let mut bench = Bench::with(Devices::Unknown, []);
    assert_eq!(bench.look(&[saying(0, 1)]), ["+0 recovery_action 1 reset_gpu"]);
    let mut both = saying(0, 1);
    both.processes = used(0).processes;
    assert_eq!(bench.look(&[both]), ["+0 recovery_action 1 reset_gpu ours"]);
}

#[test]
fn a_gpu_is_ours_by_its_processes_where_they_can_be_told() {
    let mut bench = Bench::new();
    bench.look(&[gpu(0), used(1)]);
    assert_eq!(bench.xid(0, 31), ["+0 xid 31 restart_application"]);
    assert_eq!(bench.xid(1, 31), ["+1 xid 31 restart_application ours"]);
    bench.after(30, &[gpu(0), gpu(1)]);
    assert_eq!(bench.xid(1, 13), ["+1 xid 13 restart_application ours"], "it died of it");
    bench.after(61, &[gpu(0), gpu(1)]);
    assert_eq!(bench.xid(1, 94), ["+1 xid 94 restart_application"]);
}

fn kept(index: u32, uuid: &str, kind: FindingKind) -> GpuFinding {
    let finding = GpuFinding::new(index, uuid, kind, GpuAction::Reboot, "kept");
    GpuFinding { is_ours: true, ..finding }
}

fn blocked(bench: &Bench) -> bool {
    bench.watch.findings().any(GpuFinding::blocks_us)
}

#[test]
fn what_was_kept_of_a_gpu_that_is_gone_does_not_hold_vllm_off_the_one_that_it_is_given() {
    let gone = || [kept(0, "GPU-9", FindingKind::Xid(79))];
    let mut bench = Bench::with(Devices::First(1), gone());
    bench.look(&[gpu(0)]);
    assert!(!blocked(&bench), "another GPU stands in its place");
    let mut bench = Bench::with(Devices::new(Some("1"), 1), gone());
    bench.look(&[gpu(0), gpu(1)]);
    assert!(!blocked(&bench), "vLLM is given another");
    let mut bench = Bench::with(Devices::First(2), gone());
    bench.look(&[gpu(0)]);
    assert!(blocked(&bench), "one is missing that vLLM is given");
    let mut bench = Bench::with(Devices::Unknown, gone());
    bench.look(&[gpu(0)]);
    assert!(blocked(&bench), "nobody can say what it is given");
}

#[test]
fn what_was_kept_of_a_gpu_that_did_not_say_who_it_was_is_cleared_when_it_is_well() {
    let mut bench = Bench::with(Devices::First(1), [kept(0, "", FindingKind::Lost)]);
    assert_eq!(bench.look(&[gpu(0)]), ["-0 lost reboot ours"]);
}

#[test]
fn whose_a_fault_is_told_by_where_vllm_is_seen_before_what_it_was_given() {
    let others = GpuFinding { is_ours: false, ..kept(0, "GPU-0", FindingKind::Xid(79)) };
    let mut bench = Bench::with(Devices::First(1), [others]);
    bench.look(&[gpu(0), used(1)]);
    assert!(!blocked(&bench));
    let mut bench = Bench::with(Devices::First(1), [kept(0, "GPU-0", FindingKind::Xid(79))]);
    bench.look(&[gpu(0), used(1)]);
    assert!(!blocked(&bench));
}

#[test]
fn memory_errors_that_cannot_be_corrected_are_told_of_as_they_come() {
    let counting = |errors| with(0, |gpu| gpu.condition.uncorrectable_errors = Some(errors));
    let mut bench = Bench::new();
    assert_eq!(bench.after(10, &[counting(7)]), [""; 0], "they came before");
    assert_eq!(bench.look(&[counting(9)]), ["+0 uncorrectable_errors none ours"]);
    assert_eq!(bench.after(61, &[counting(9)]), ["-0 uncorrectable_errors none ours"]);
}
