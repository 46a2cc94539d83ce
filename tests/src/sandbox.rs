//! Sandboxes: one that refuses a system call, as seccomp profiles of older container engines do, and
//! one without a privilege.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// The arguments of a call without a prototype, in their full width.
const ONE: libc::c_ulong = 1;
const NONE: libc::c_ulong = 0;

/// What the command starts may not call `pidfd_open(2)`: it fails with EPERM.
#[expect(unsafe_code, reason = "a filter is set between fork and exec")]
pub fn refuse_pidfds(command: &mut Command) {
    let pidfd_open = u32::try_from(libc::SYS_pidfd_open).expect("a small number");
    let set = move || {
        let (load, jump, answer) = (
            libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            libc::BPF_RET | libc::BPF_K,
        );
        let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
        let mut filter = [
            // The number of the system call stands first (seccomp(2), `struct seccomp_data`).
            instruction(load, 0, 0),
            instruction(jump, 1, pidfd_open),
            instruction(answer, 0, refusal),
            instruction(answer, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        // SAFETY: the program outlives the call, which copies it; both calls are safe in a forked
        // child, and nothing is allocated.
        let set = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, ONE, NONE, NONE, NONE) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
                    == 0
        };
        if set { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(set) };
}

/// One that goes on, or leaves out as many as `otherwise` if its comparison fails.
fn instruction(code: u32, otherwise: u8, operand: u32) -> libc::sock_filter {
    let code = u16::try_from(code).unwrap_or(u16::MAX);
    libc::sock_filter { code, jt: 0, jf: otherwise, k: operand }
}

/// The capability to listen at the low ports (capabilities(7), `CAP_NET_BIND_SERVICE`).
const NET_BIND_SERVICE: libc::c_ulong = 10;

/// What the command starts may not listen at the low ports, even if it is root's.
#[expect(unsafe_code, reason = "a capability is given up between fork and exec")]
pub fn give_up_low_ports(command: &mut Command) {
    let give_up = || {
        // SAFETY: the call is safe in a forked child, and takes plain numbers. Whoever may not drop
        // the capability from the bounding set does not have it either.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, NET_BIND_SERVICE, NONE, NONE, NONE) };
        Ok(())
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(give_up) };
}

/// Whether the low ports are kept from whoever lacks that capability (ip(7)).
pub fn low_ports_are_reserved() -> bool {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    first.ok().and_then(|first| first.trim().parse::<u16>().ok()).is_some_and(|first| first > 1)
}
