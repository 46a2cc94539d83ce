//! What the system's refusals mean: that something is not there, or, for a launch, which code and
//! whether trying again can help.
//!
//! At a restart the configuration has been good before. What comes and goes by itself is never
//! called invalid, and never ends a service for good.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::domain::cause::{Cause, Code, RetryClass};

/// How much of the system's answer is the configuration's fault (errno(3)).
const TABLE: &[(i32, Code, RetryClass)] = &[
    // No space: until somebody makes some.
    (libc::ENOSPC, Code::DiskFull, RetryClass::AfterCleanup),
    (libc::EDQUOT, Code::DiskFull, RetryClass::AfterCleanup),
    (libc::EADDRINUSE, Code::PortInUse, RetryClass::AfterCleanup),
    // What is configured cannot be, and will not be without a change.
    (libc::EACCES, Code::InvalidConfiguration, RetryClass::Permanent),
    (libc::EPERM, Code::InvalidConfiguration, RetryClass::Permanent),
    (libc::ENOTDIR, Code::InvalidConfiguration, RetryClass::Permanent),
    (libc::EISDIR, Code::InvalidConfiguration, RetryClass::Permanent),
    (libc::ELOOP, Code::InvalidConfiguration, RetryClass::Permanent),
    (libc::ENAMETOOLONG, Code::InvalidConfiguration, RetryClass::Permanent),
    (libc::EINVAL, Code::InvalidConfiguration, RetryClass::Permanent),
    (libc::EAFNOSUPPORT, Code::InvalidConfiguration, RetryClass::Permanent),
    // An interface that is down comes up again, with its address.
    (libc::EADDRNOTAVAIL, Code::InvalidConfiguration, RetryClass::Transient),
];

/// `None` where the system says by one of these that there is no such thing. Any other error stays
/// one: it is not known what is there.
pub(super) fn if_present<T>(result: io::Result<T>, absent: &[Errno]) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if Errno::from_io_error(&error).is_some_and(|it| absent.contains(&it)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The code and the class of an error. Whatever is not in the table passes: descriptors, memory
/// and processes run out and are given back, disks are remounted, directories made again.
pub(super) fn class_of(error: &io::Error) -> (Code, RetryClass) {
    let row = TABLE.iter().find(|(number, ..)| error.raw_os_error() == Some(*number));
    match (row, error.kind()) {
        (Some((_, code, class)), _) => (*code, *class),
        // Not the system's word but ours or the library's: an argument that it cannot take.
        (None, io::ErrorKind::InvalidInput) => (Code::InvalidConfiguration, RetryClass::Permanent),
        (None, _) => (Code::Unrecognised, RetryClass::Transient),
    }
}

/// The cause that comes of an error, in these words.
pub(super) fn cause(summary: &str, error: &io::Error) -> Cause {
    let (code, retry) = class_of(error);
    Cause { retry, ..Cause::new(code, format!("{summary}: {error}")) }
}

/// The cause of a launch for which this could not be written.
pub(super) fn cannot_write(path: &Path, error: &io::Error) -> Cause {
    cause(&format!("cannot write {}", path.display()), error)
}

/// The cause of a launch whose program could not be run.
pub(super) fn cannot_run(program: &str, error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::NotFound => {
            Cause::new(Code::VllmNotFound, format!("there is no program {program}"))
        }
        io::ErrorKind::PermissionDenied => {
            Cause::new(Code::VllmNotFound, format!("{program} may not be executed"))
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::ArgumentListTooLong => Cause::new(
            Code::InvalidConfiguration,
            format!("{program} cannot be started with these arguments and variables: {error}"),
        ),
        _ => {
            let retry = RetryClass::Transient;
            let summary = format!("{program} cannot be started: {error}");
            Cause { retry, ..Cause::new(Code::Unrecognised, summary) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_configuration_can_cure_is_permanent() {
        use RetryClass::{AfterCleanup, Permanent, Transient};
        for (number, code, class) in [
            (libc::ENOSPC, "VLM-024", AfterCleanup),
            (libc::EDQUOT, "VLM-024", AfterCleanup),
            (libc::EADDRINUSE, "VLM-005", AfterCleanup),
            (libc::EADDRNOTAVAIL, "VLM-008", Transient),
            (libc::EACCES, "VLM-008", Permanent),
            (libc::ENOTDIR, "VLM-008", Permanent),
            (libc::ELOOP, "VLM-008", Permanent),
            (libc::EMFILE, "VLM-099", Transient),
            (libc::ENFILE, "VLM-099", Transient),
            (libc::ENOMEM, "VLM-099", Transient),
            (libc::EAGAIN, "VLM-099", Transient),
            (libc::EIO, "VLM-099", Transient),
            (libc::EROFS, "VLM-099", Transient),
            (libc::ENOENT, "VLM-099", Transient),
            (libc::ESTALE, "VLM-099", Transient),
            (libc::ENETDOWN, "VLM-099", Transient),
        ] {
            let error = io::Error::from_raw_os_error(number);
            let cause = cause("x", &error);
            assert_eq!((cause.code.to_string().as_str(), cause.retry), (code, class), "{error}");
        }
    }

    #[test]
    fn a_program_that_cannot_be_started_for_now_is_tried_again() {
        for number in [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ETXTBSY, libc::EIO] {
            let cause = cannot_run("vllm", &io::Error::from_raw_os_error(number));
            assert_eq!(cause.retry, RetryClass::Transient, "{cause}");
        }
        for number in [libc::ENOENT, libc::EACCES, libc::E2BIG] {
            let cause = cannot_run("vllm", &io::Error::from_raw_os_error(number));
            assert_eq!(cause.retry, RetryClass::Permanent, "{cause}");
        }
    }
}
