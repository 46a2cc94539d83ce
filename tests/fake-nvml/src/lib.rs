//! A stand-in for NVIDIA's `libnvidia-ml.so.1`: loaded in its place, it says what the files of a
//! [`FakeNvml`] say, so that the very calls into NVML run without a GPU.
//!
//! Each scenario has a copy of the library: dlopen(3) takes another file for another library, which
//! finds its scenario beside itself. So tests run in parallel, and a command under test is given its
//! scenario by `LD_LIBRARY_PATH`.

#![expect(
    unsafe_code,
    reason = "it is called from C, by functions whose contract is that of nvml.h"
)]

mod call;
mod device;
mod events;
mod health;
mod place;
mod processes;
mod scenario;
mod state;
mod system;

pub use processes::hold_memory;
pub use scenario::FakeNvml;
pub use state::{GpuState, ProcessState, State, XidState};
