//! A command whose process begins clean, whatever the process that starts it was left with.
//!
//! A signal mask, ignored signals, a terminal, and descriptors without close-on-exec all pass
//! through fork and exec (execve(2)). With them vLLM would not hear SIGTERM, would not learn of its
//! workers' deaths, or would keep a lock that whoever started us holds.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::LaunchRecipe;
use crate::adapters::scratch::{Place, Scratch};
use crate::domain::target::Target;

/// What makes room in the environment of a warm process for the marks of what it forks, and how much.
const RESERVE: &str = "VLLMD_RESERVE";
const RESERVED: usize = 8 * 1024;

/// Where torch's inductor keeps the kernels that it has compiled.
const KERNELS: &str = "TORCHINDUCTOR_CACHE_DIR";

/// The first descriptor that is not one of the three standard ones.
const FIRST: u32 = 3;

/// The command that starts vLLM, but for its output and its marks.
pub(super) fn vllm(recipe: &LaunchRecipe, target: &Target, scratch: &Scratch) -> Command {
    let mut words = recipe.before_model.iter();
    let mut command = clean(words.next().map_or("vllm", String::as_str));
    command.args(words).arg(target.model.as_str()).args(&recipe.after_model);
    // Custom model code asks on stdin whether it may be run, and waits.
    command.args(target.arguments.words()).stdin(Stdio::null());
    give_environment(&mut command, recipe);
    command.envs(of_launch(recipe, scratch));
    command
}

/// A Python with vLLM's environment, which ends when the thread that starts it does.
#[expect(unsafe_code, reason = "a process can only ask for itself")]
pub(super) fn warm(recipe: &LaunchRecipe, python: &Path) -> Command {
    let mut command = clean(python.as_os_str());
    give_environment(&mut command, recipe);
    command.env(RESERVE, ".".repeat(RESERVED));
    let us = rustix::process::getpid();
    // SAFETY: both are system calls, and nothing else is done.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // It ended before it was asked to tell of its end.
            if getppid() == Some(us) { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
        });
    }
    command
}

fn give_environment(command: &mut Command, recipe: &LaunchRecipe) {
    for name in &recipe.withheld {
        command.env_remove(name);
    }
    if let Some(path) = &recipe.path {
        command.env("PATH", path);
    }
    command
        .env("NO_COLOR", "1")
        .env("PYTHONUNBUFFERED", "1")
        .env("VLLM_DISABLE_LOG_LOGO", "1")
        .env("VLLM_NO_USAGE_STATS", "1")
        .envs(recipe.environment.iter().map(|(name, value)| (name, value)))
        .envs(recipe.secrets.iter().map(|(name, secret)| (name, secret.expose())))
        // Without it setproctitle overwrites the environment that the marks are read from.
        .env("SPT_NOENV", "1");
}

/// The variables that each launch has another value of.
pub(super) fn of_launch(
    recipe: &LaunchRecipe,
    scratch: &Scratch,
) -> BTreeMap<&'static str, PathBuf> {
    let mut variables = BTreeMap::from([("VLLM_RPC_BASE_PATH", scratch.path.clone())]);
    let is_given = |name: &str| recipe.environment.iter().any(|(given, _)| given == name);
    if scratch.place == Place::Temporary && !is_given("TMPDIR") {
        // What a killed vLLM leaves there (`vllm_dist_*`) goes with the launch.
        variables.insert("TMPDIR", scratch.path.clone());
        if let Some(kernels) = recipe.kernels.as_ref().filter(|_| !is_given(KERNELS)) {
            // They would go with the launch, and each would compile them anew.
            variables.insert(KERNELS, kernels.clone());
        }
    }
    variables
}

/// A command that will head a session of its own, with no signal blocked or ignored and no
/// descriptor but its standard ones.
///
/// No terminal's signals reach it, and everything that it starts can be found.
#[expect(unsafe_code, reason = "what passes through exec can only be cleaned before it")]
#[expect(clippy::disallowed_methods, reason = "this is a launcher")]
pub(super) fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    // SAFETY: `begin_clean` makes system calls that are async-signal-safe, and nothing else.
    unsafe {
        command.pre_exec(begin_clean);
    }
    command
}

/// Runs between fork and exec: no allocation, no lock.
fn begin_clean() -> io::Result<()> {
    rustix::process::setsid()?;
    heed_all_signals();
    // Whatever others may read, none but ours may write.
    let inherited = rustix::process::umask(Mode::WOTH);
    rustix::process::umask(inherited | Mode::WOTH);
    close_on_exec_from(FIRST);
    Ok(())
}

/// By bare calls: the C library keeps two signals to itself, and they pass through exec as well.
#[expect(unsafe_code, reason = "rustix has neither signal masks nor dispositions")]
fn heed_all_signals() {
    /// Signals that the kernel has, and the bytes of a set of them.
    const SIGNALS: (i32, usize) = (64, 8);
    // As the kernel lays it out, with room to spare: the default, no flags, an empty mask.
    let default = [0_u64; 8];
    for number in 1..=SIGNALS.0 {
        // SAFETY: reads the array, and writes nothing. SIGKILL and SIGSTOP are refused, and are at
        // their default.
        unsafe {
            let nothing = std::ptr::null_mut::<u8>();
            libc::syscall(libc::SYS_rt_sigaction, number, &raw const default, nothing, SIGNALS.1);
        }
    }
    // SAFETY: as above.
    unsafe {
        let (set, nothing) = (&raw const default, std::ptr::null_mut::<u8>());
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, set, nothing, SIGNALS.1);
    }
}

/// The standard library's own pipe, by which it hears of a failed exec, is closed by exec already.
#[expect(unsafe_code, reason = "descriptors that others opened")]
fn close_on_exec_from(first: u32) {
    // SAFETY: marks descriptors, which stay open until exec.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result != 0 {
        // Linux before 5.11 does not know the flag, before 5.9 not the call.
        close_on_exec_one_by_one(first);
    }
}

#[expect(unsafe_code, reason = "descriptors that others opened")]
fn close_on_exec_one_by_one(first: u32) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = openat(CWD, c"/proc/self/fd", flags, Mode::empty()) else { return };
    let own = directory.as_raw_fd();
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_bytes();
        let number = std::str::from_utf8(name).ok().and_then(|name| name.parse::<i32>().ok());
        if let Some(number) = number
            && number.cast_unsigned() >= first
            && number != own
        {
            // SAFETY: as above.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{FromRawFd, OwnedFd};

    use super::*;

    /// A descriptor that passes through exec, at a number where no other test has one.
    #[expect(unsafe_code, reason = "the descriptor is made to leak")]
    fn leaking(file: &File) -> OwnedFd {
        // SAFETY: a duplicate that nobody else owns.
        unsafe { OwnedFd::from_raw_fd(libc::fcntl(file.as_raw_fd(), libc::F_DUPFD, 500)) }
    }

    fn output(command: &mut Command) -> String {
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn no_descriptor_of_whoever_started_us_is_passed_on() {
        let file = tempfile::tempfile().unwrap();
        let leak = leaking(&file);
        let script = format!("test -e /proc/self/fd/{} && echo leaked", leak.as_raw_fd());
        assert_eq!(output(clean("sh").args(["-c", &script])), "");
    }

    #[test]
    fn no_descriptor_is_passed_on_where_the_system_cannot_close_a_range() {
        let file = tempfile::tempfile().unwrap();
        let leak = leaking(&file);
        close_on_exec_one_by_one(500);
        let flags = rustix::io::fcntl_getfd(&leak).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn no_signal_is_blocked_or_ignored_however_we_were_started() {
        for command in [&mut clean("grep"), &mut spoilt_and_cleaned("grep")] {
            command.args(["-E", "^Sig(Blk|Ign):", "/proc/self/status"]);
            let signals = output(command);
            let numbers: Vec<&str> =
                signals.lines().filter_map(|line| line.split_once('\t').map(|it| it.1)).collect();
            assert_eq!(numbers, ["0000000000000000"; 2], "{signals}");
        }
    }

    /// The same command with everything ignored and blocked just before it is cleaned.
    #[expect(unsafe_code, reason = "the child is to inherit what no child should")]
    #[expect(clippy::disallowed_methods, reason = "a process to look at")]
    fn spoilt_and_cleaned(program: &str) -> Command {
        let mut command = Command::new(program);
        // SAFETY: async-signal-safe calls alone.
        unsafe {
            command.pre_exec(|| {
                let mut all = MaybeUninit::<libc::sigset_t>::uninit();
                libc::sigfillset(all.as_mut_ptr());
                libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
                for number in [libc::SIGTERM, libc::SIGCHLD, libc::SIGHUP, libc::SIGPIPE] {
                    libc::signal(number, libc::SIG_IGN);
                }
                Ok(())
            });
            command.pre_exec(begin_clean);
        }
        command
    }

    #[test]
    fn what_it_writes_can_be_written_by_nobody_else() {
        let umask = output(clean("sh").args(["-c", "umask"]));
        assert_eq!(u32::from_str_radix(umask.trim(), 8).unwrap() & 0o002, 0o002);
    }
}
