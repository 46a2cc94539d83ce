//! Where a device sits among those of the machine.

use std::fmt;

/// A place on PCI; the order is that of the buses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PciAddress {
    domain: u32,
    /// As in the kernel's `pci_dev_id`: bits 15 to 8 are the bus, 7 to 3 the device, 2 to 0 the
    /// function (`include/linux/pci.h`).
    place: u16,
}

impl PciAddress {
    pub(super) fn new(domain: u32, place: u16) -> Self {
        Self { domain, place }
    }

    /// Reads it as the kernel names a device: `0000:03:00.0`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (rest, function) = name.rsplit_once('.')?;
        let (rest, device) = rest.rsplit_once(':')?;
        let (domain, bus) = rest.rsplit_once(':')?;
        let bus = u8::from_str_radix(bus, 16).ok()?;
        let device = u16::from_str_radix(device, 16).ok().filter(|device| *device < 32)?;
        let function = function.parse::<u16>().ok().filter(|function| *function < 8)?;
        let place = u16::from(bus) << 8 | device << 3 | function;
        Some(Self { domain: u32::from_str_radix(domain, 16).ok()?, place })
    }

    /// The device's function 0.
    pub(super) fn first_function(self) -> Self {
        Self { place: self.place & !7, ..self }
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bus, rest] = self.place.to_be_bytes();
        write!(f, "{:04x}:{bus:02x}:{:02x}.{}", self.domain, rest >> 3, rest & 7)
    }
}
