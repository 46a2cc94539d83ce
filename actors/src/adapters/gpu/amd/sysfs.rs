//! Files of sysfs, and those of a GPU's sensors.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// What is read of a file at most. One of sysfs has a page (the kernel's filesystems/sysfs), 4 KiB on
/// most machines, and none that we read has more than 2 KiB.
const MOST_BYTES: u64 = 4096;

pub(super) fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Without the white space around it.
pub(super) fn text(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&bytes(path)?).trim().to_owned())
}

/// A number from 0: decimal, or hexadecimal behind 0x.
pub(super) fn number(path: &Path) -> io::Result<u64> {
    let text = text(path)?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The names in a directory.
pub(super) fn names(directory: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// The temperature of the hottest place on the die, else of its edge, in degrees Celsius.
///
/// The kernel's gpu/amdgpu/thermal: `temp[1-3]_label` names what `temp[1-3]_input` measures, in
/// thousandths of a degree.
pub(super) fn temperature(device: &Path) -> Option<u32> {
    sensor(device, |sensors| {
        ["junction", "edge"].into_iter().find_map(|place| {
            (1..=3).find_map(|channel| {
                let label = text(&sensors.join(format!("temp{channel}_label"))).ok()?;
                let input = sensors.join(format!("temp{channel}_input"));
                if label == place { number(&input).ok() } else { None }
            })
        })
    })
    .and_then(|thousandths| u32::try_from(thousandths / 1000).ok())
}

/// The power that it draws, in watts, on average where that is measured.
///
/// The kernel's gpu/amdgpu/thermal: `power1_average` and `power1_input` are in microwatts.
pub(super) fn power(device: &Path) -> Option<u32> {
    sensor(device, |sensors| {
        ["power1_average", "power1_input"]
            .into_iter()
            .find_map(|measured| number(&sensors.join(measured)).ok())
    })
    .and_then(|microwatts| u32::try_from(microwatts / 1_000_000).ok())
}

/// What the first of the device's sets of sensors says that says anything.
fn sensor(device: &Path, ask: impl Fn(&Path) -> Option<u64>) -> Option<u64> {
    let directory = device.join("hwmon");
    names(&directory).ok()?.into_iter().find_map(|name| ask(&directory.join(name)))
}
