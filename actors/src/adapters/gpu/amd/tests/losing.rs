//! GPUs that are gone, that do not answer, and those that never were.

use super::*;

#[test]
fn a_card_that_vanishes_is_lost_and_keeps_its_name_and_its_index() {
    let machine = Machine::new();
    let card = machine.card(0, "0000:0c:00.0");
    card.says("unique_id", "ab8c8dd1a2b3c4d5\n");
    machine.card(1, "0000:2f:00.0");
    let mut looker = machine.looker();
    assert_eq!(
        states(&looker.look().gpus),
        [(0, Reachability::Answers), (1, Reachability::Answers)]
    );

    fs::remove_dir_all(machine.path("sys/class/drm/card0")).unwrap();
    fs::remove_dir_all(&card.device).unwrap();

    let gpus = looker.look().gpus;
    assert_eq!(states(&gpus), [(0, Reachability::Lost), (1, Reachability::Answers)]);
    let mut expected = Gpu::new(0, "GPU-ab8c8dd1a2b3c4d5", "AMD 0x74a1");
    expected.ordinal = None;
    expected.condition.reachability = Reachability::Lost;
    assert_eq!(gpus.first(), Some(&expected));
}

#[test]
fn a_card_that_comes_back_under_another_number_is_the_same_gpu() {
    let machine = Machine::new();
    machine.card(0, "0000:0c:00.0");
    let mut looker = machine.looker();
    looker.look();

    fs::remove_dir_all(machine.path("sys/class/drm/card0")).unwrap();
    machine.card(7, "0000:0c:00.0");

    assert_eq!(states(&looker.look().gpus), [(0, Reachability::Answers)]);
}

#[test]
fn nobody_knows_of_cards_whose_directory_cannot_be_read_any_more() {
    let machine = Machine::new();
    machine.card(0, "0000:0c:00.0");
    let mut looker = machine.looker();
    looker.look();

    fs::remove_dir_all(machine.path("sys/class/drm")).unwrap();
    write(&machine.path("sys/class/drm"), "");

    assert_eq!(states(&looker.look().gpus), [(0, Reachability::Unknown)]);
}

#[test]
fn a_reading_that_fails_leaves_open_whether_the_gpu_answers() {
    for file in ["mem_info_vram_total", "mem_info_vram_used", "gpu_busy_percent"] {
        let machine = Machine::new();
        let card = machine.card(0, "0000:0c:00.0");
        card.says("config", "\u{2}\u{10}");
        card.refuses(file);

        assert_eq!(machine.the_gpu().condition.reachability, Reachability::Unknown, "{file}");
    }
}

#[test]
fn a_reading_that_fails_of_a_gpu_that_is_not_on_the_bus_tells_that_it_is_lost() {
    let machine = Machine::new();
    let card = machine.card(0, "0000:0c:00.0");
    card.refuses("gpu_busy_percent");
    fs::write(card.device.join("config"), [0xff; 64]).unwrap();

    assert_eq!(machine.the_gpu().condition.reachability, Reachability::Lost);
}

#[test]
fn an_error_tells_of_the_gpu_or_of_the_reading() {
    let cases = [
        (Errno::NODEV, Some(Reachability::Lost)),
        (Errno::NXIO, Some(Reachability::Lost)),
        (Errno::IO, Some(Reachability::Unknown)),
        (Errno::TIME, Some(Reachability::Unknown)),
        (Errno::BUSY, Some(Reachability::Unknown)),
        (Errno::ACCESS, Some(Reachability::Unknown)),
        (Errno::NOENT, None),
        (Errno::OPNOTSUPP, None),
        (Errno::INVAL, None),
        (Errno::PERM, None),
    ];
    for (errno, expected) in cases {
        assert_eq!(trouble(&errno.into()), expected, "{errno:?}");
    }
}

#[test]
fn a_machine_without_a_gpu_of_amd_has_none() {
    let machine = Machine::new();
    machine.device(0, "0000:02:00.0").says("vendor", "0x10de\n");

    let reason = machine.open().err().unwrap();

    assert!(reason.starts_with("no AMD GPU in /"), "{reason}");
    assert!(reason.ends_with("sys/class/drm"), "{reason}");
}

#[test]
fn a_machine_without_graphics_has_none_either() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.path("sys")).unwrap();

    assert!(machine.open().err().unwrap().starts_with("no AMD GPU in "));
}

#[test]
fn a_directory_that_cannot_be_read_is_another_answer_than_that_there_is_none() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.path("sys/class/drm")).unwrap();
    write(&machine.path("sys/class/drm"), "");

    let reason = machine.open().err().unwrap();

    assert!(reason.contains("sys/class/drm cannot be read: Not a directory"), "{reason}");
}

#[test]
fn a_card_whose_vendor_cannot_be_read_is_another_answer_than_that_there_is_none() {
    let machine = Machine::new();
    machine.device(0, "0000:02:00.0").refuses("vendor");

    let reason = machine.open().err().unwrap();

    assert!(reason.contains("card0 cannot be read"), "{reason}");
}

fn states(gpus: &[Gpu]) -> Vec<(u32, Reachability)> {
    gpus.iter().map(|gpu| (gpu.index, gpu.condition.reachability)).collect()
}
