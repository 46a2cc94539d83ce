//! What GPUs that answer say.

use super::super::kfd::Denied;
use super::*;
use crate::domain::gpu::GpuProcess;

#[test]
fn a_card_is_read_in_the_units_of_the_kernel() {
    let machine = Machine::new();
    let card = machine.card(0, "0000:0c:00.0");
    card.says("unique_id", "ab8c8dd1a2b3c4d5\n");
    card.says("product_name", "AMD Instinct MI300X\n");
    card.says("gpu_busy_percent", "97\n");
    card.says("hwmon/hwmon4/temp1_label", "edge\n");
    card.says("hwmon/hwmon4/temp1_input", "41000\n");
    card.says("hwmon/hwmon4/temp2_label", "junction\n");
    card.says("hwmon/hwmon4/temp2_input", "58999\n");
    card.says("hwmon/hwmon4/temp3_label", "mem\n");
    card.says("hwmon/hwmon4/temp3_input", "62000\n");
    card.says("hwmon/hwmon4/power1_input", "412000000\n");
    card.says("current_compute_partition", "SPX\n");

    let gpu = machine.the_gpu();

    let mut expected = Gpu::new(0, "GPU-ab8c8dd1a2b3c4d5", "AMD Instinct MI300X");
    expected.memory_total_bytes = Some(1000);
    expected.memory_used_bytes = Some(300);
    expected.memory_free_bytes = Some(700);
    expected.utilization_percent = Some(97);
    expected.temperature_celsius = Some(58);
    expected.power_watts = Some(412);
    expected.condition.is_partitioned = Some(false);
    assert_eq!(gpu, expected);
}

#[test]
fn what_a_card_does_not_offer_is_not_known_and_no_trouble() {
    let machine = Machine::new();
    machine.card(0, "0000:0c:00.0").says("product_name", "\n");

    let gpu = machine.the_gpu();

    let mut expected = Gpu::new(0, "0000:0c:00.0", "AMD 0x74a1");
    expected.memory_total_bytes = Some(1000);
    expected.memory_used_bytes = Some(300);
    expected.memory_free_bytes = Some(700);
    assert_eq!(gpu, expected);
}

#[test]
fn the_temperature_of_the_edge_and_the_average_power_serve_where_they_are_all_there_is() {
    let machine = Machine::new();
    let card = machine.card(0, "0000:0c:00.0");
    card.says("hwmon/hwmon4/temp1_label", "edge\n");
    card.says("hwmon/hwmon4/temp1_input", "41000\n");
    card.says("hwmon/hwmon4/power1_average", "90500000\n");
    card.says("hwmon/hwmon4/power1_input", "412000000\n");

    let gpu = machine.the_gpu();

    assert_eq!((gpu.temperature_celsius, gpu.power_watts), (Some(41), Some(90)));
}

#[test]
fn the_order_is_that_of_the_pci_addresses_and_not_that_of_the_cards() {
    let machine = Machine::new();
    machine.card(0, "0001:03:00.0");
    machine.card(1, "0000:c3:00.0");
    machine.card(2, "0000:0c:00.0");

    let order: Vec<_> = machine.look().into_iter().map(|gpu| (gpu.index, gpu.uuid)).collect();

    let expected = [(0, "0000:0c:00.0"), (1, "0000:c3:00.0"), (2, "0001:03:00.0")];
    assert_eq!(order, expected.map(|(index, uuid)| (index, uuid.to_owned())));
}

#[test]
fn connectors_and_other_vendors_and_other_drivers_are_no_gpus() {
    let machine = Machine::new();
    machine.card(1, "0000:0c:00.0");
    machine.device(0, "0000:02:00.0").says("vendor", "0x1a03\n");
    machine.device(2, "0000:0d:00.0").says("vendor", "0x1002\n");
    machine.device(3, "amdgpu_xcp_1");
    let device = "../card1/device";
    for name in ["card1-DP-1", "renderD128", "card"] {
        let entry = machine.path(&format!("sys/class/drm/{name}"));
        fs::create_dir_all(&entry).unwrap();
        symlink(device, entry.join("device")).unwrap();
    }
    write(&machine.path("sys/class/drm/version"), "drm 1.1.0 20060810\n");

    assert_eq!(machine.the_gpu().uuid, "0000:0c:00.0");
}

#[test]
fn processes_are_told_with_the_gpu_that_kfd_has_under_another_number() {
    let machine = Machine::new();
    machine.card(0, "0000:0c:00.0");
    machine.card(1, "0001:2f:02.1");
    machine.node(0, 0, "cpu_cores_count 96\n");
    machine.node(1, 5555, "simd_count 304\nlocation_id 12049\ndomain 1\n");
    machine.node(2, 7777, "simd_count 304\nlocation_id 3072\ndomain 0\n");
    machine.process(30, 7777, "200\n");
    machine.process(30, 5555, "0\n");
    machine.process(4, 7777, "100\n");
    machine.process(4, 1234, "8\n");
    machine.process(4, 5555, "16\n");

    let processes: Vec<_> = machine.look().into_iter().map(|gpu| gpu.processes).collect();

    let process = |pid, bytes| GpuProcess { pid, memory_bytes: Some(bytes), ours: pid == 30 };
    assert_eq!(processes, [vec![process(4, 100), process(30, 200)], vec![process(4, 16)]]);
}

#[test]
fn a_process_whose_memory_cannot_be_read_holds_nobody_knows_how_much() {
    let machine = Machine::new();
    machine.card(0, "0000:0c:00.0");
    machine.node(1, 7777, "location_id 3072\ndomain 0\n");
    machine.process(4, 7777, "much\n");

    assert_eq!(machine.the_gpu().processes, [GpuProcess::new(4)]);
}

#[test]
fn the_parts_of_a_divided_gpu_are_one_gpu_with_all_that_a_process_has_on_them() {
    let machine = Machine::new();
    machine.card(0, "0000:0c:00.0").says("current_compute_partition", "CPX\n");
    // The number of the part among the bits of the function, as from one kernel, and above, as from
    // another.
    machine.node(1, 7770, "location_id 3072\ndomain 0\n");
    machine.node(2, 7771, "location_id 3073\ndomain 0\n");
    machine.node(3, 7772, &format!("location_id {}\ndomain 0\n", 0x0c00_u32 | 2 << 28));
    for (part, bytes) in [(7770, "1\n"), (7771, "20\n"), (7772, "300\n")] {
        machine.process(30, part, bytes);
    }

    let gpu = machine.the_gpu();

    assert_eq!(gpu.processes, [GpuProcess { pid: 30, memory_bytes: Some(321), ours: true }]);
    assert_eq!(gpu.condition.is_partitioned, Some(true));
}

#[test]
fn a_gpu_that_the_container_was_not_given_is_left_out_and_counted() {
    let machine = Machine::new();
    machine.card(0, "0000:0c:00.0");
    machine.card(1, "0000:2f:00.0");
    let mut looker = machine.looker();
    let given = PciAddress::parse("0000:2f:00.0").unwrap();
    // As root it cannot be had from files.
    let topology = Topology { gpus: [(7777, given)].into(), denied: Denied::Some };

    let gpus = looker.look_at_all(&Cards::find(&looker.drm), &topology);
    let gone = looker.look_at_all(&Cards::find(&machine.path("nowhere")), &topology);

    for gpus in [gpus, gone] {
        let shown: Vec<_> = gpus.iter().map(|gpu| (gpu.index, gpu.uuid.as_str())).collect();
        assert_eq!(shown, [(1, "0000:2f:00.0")]);
    }
}

#[test]
fn a_gpu_that_is_taken_from_the_container_is_not_gone() {
    let machine = Machine::new();
    machine.card(0, "0000:0c:00.0");
    let mut looker = machine.looker();
    looker.look();
    let taken = Topology { gpus: [].into(), denied: Denied::Some };

    let gpus = looker.look_at_all(&Cards::find(&looker.drm), &taken);
    let reachability = gpus.iter().map(|gpu| gpu.condition.reachability).collect::<Vec<_>>();
    assert_eq!(reachability, [Reachability::Unknown], "who has it open may use it still");
}

#[test]
fn uncorrected_errors_are_those_of_all_blocks_that_hold_memory() {
    let machine = Machine::new();
    let card = machine.card(0, "0000:0c:00.0");
    card.says("ras/umc_err_count", "ue: 2\nce: 40\nde: 1\n");
    card.says("ras/gfx_err_count", "ue: 1\nce: 0\n");
    card.says("ras/xgmi_wafl_err_count", "ue: 500\nce: 0\n");
    card.says("ras/features", "feature mask: 0x5\n");

    assert_eq!(machine.the_gpu().condition.uncorrectable_errors, Some(3));
}

#[test]
fn a_block_that_does_not_say_leaves_the_errors_unknown() {
    let machine = Machine::new();
    let card = machine.card(0, "0000:0c:00.0");
    card.says("ras/umc_err_count", "ue: 2\nce: 40\n");
    card.says("ras/gfx_err_count", "Query currently inaccessible\n");

    assert_eq!(machine.the_gpu().condition.uncorrectable_errors, None);
}

#[test]
fn of_a_file_without_end_a_page_is_read() {
    let machine = Machine::new();
    let card = machine.card(0, "0000:0c:00.0");
    symlink("/dev/zero", card.device.join("product_name")).unwrap();

    assert_eq!(machine.the_gpu().name.len(), 4096);
}

#[test]
fn an_address_is_written_as_the_kernel_names_the_device() {
    for name in ["0000:03:00.0", "0001:ff:1f.7", "10000:e1:00.3"] {
        assert_eq!(
            PciAddress::parse(name).map(|address| address.to_string()).as_deref(),
            Some(name)
        );
    }
    for name in ["", "0000:03:00", "0000:03:20.0", "0000:03:00.8", "0000:100:00.0", "amdgpu_xcp_1"]
    {
        assert_eq!(PciAddress::parse(name), None, "{name}");
    }
}

#[test]
fn what_is_free_of_the_hosts_memory_is_not_known() {
    let machine = Machine::new();
    let card = machine.card(0, "0000:c1:00.0");
    for (total, hosts, is_known) in [
        (512_u64 << 20, 64_u64 << 30, false),
        (192 << 30, 750 << 30, true),
        (96 << 30, 16 << 30, true),
    ] {
        card.says("mem_info_vram_total", &format!("{total}\n"));
        card.says("mem_info_vram_used", "1048576\n");
        card.says("mem_info_gtt_total", &format!("{hosts}\n"));
        let free = machine.looker().look().gpus[0].memory_free_bytes;
        assert_eq!(free.is_some(), is_known, "{total}");
    }
}
