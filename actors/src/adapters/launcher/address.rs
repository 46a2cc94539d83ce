//! Whether vLLM could listen at its address, and what is wrong with the address if not.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::{fmt, fs};

use crate::adapters::{listener, system_error};
use crate::domain::cause::{Cause, Code};
use crate::domain::listener::ResourceHolder;

/// From here on anybody may listen, unless the system says otherwise (ip(7),
/// `ip_unprivileged_port_start`).
const USUAL_FIRST: u16 = 1024;

/// Why vLLM could not listen at an address. Displays as a fragment that names the setting to be
/// changed, `host` or `port`.
#[derive(Debug)]
pub enum AddressFault {
    /// Somebody listens there.
    InUse {
        /// The address.
        address: SocketAddr,
        /// Who, as far as that can be seen.
        holder: Option<ResourceHolder>,
    },
    /// No interface of this machine has the address.
    Foreign {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Such a port is not for this user.
    Forbidden {
        /// The address.
        address: SocketAddr,
        /// The first port that is for everybody.
        first_free: u16,
        /// What the system said.
        source: io::Error,
    },
    /// Something else.
    Other {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Whether vLLM could listen there now.
///
/// # Errors
///
/// Why the start that would follow would fail.
pub fn can_be_listened_at(address: SocketAddr) -> Result<(), AddressFault> {
    // vLLM sets SO_REUSEADDR as well (launcher.py, 0.32), so this fails exactly when it would.
    TcpListener::bind(address).map(drop).map_err(|error| AddressFault::of(address, error))
}

impl AddressFault {
    fn of(address: SocketAddr, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::InUse { address, holder: listener::holder_of(address) },
            // The latter where a protocol is switched off.
            Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) => Self::Foreign { address, source },
            Some(libc::EACCES | libc::EPERM) => {
                let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
                let first_free = text.ok().and_then(|text| text.trim().parse().ok());
                let first_free = first_free.unwrap_or(USUAL_FIRST);
                Self::Forbidden { address, first_free, source }
            }
            _ => Self::Other { address, source },
        }
    }

    /// The cause of a launch that failed for it.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::InUse { .. } => Cause::new(Code::PortInUse, self.to_string()),
            Self::Foreign { source, .. }
            | Self::Forbidden { source, .. }
            | Self::Other { source, .. } => {
                let (code, retry) = system_error::class_of(source);
                Cause { retry, ..Cause::new(code, self.to_string()) }
            }
        }
    }
}

impl fmt::Display for AddressFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { address, holder: Some(holder) } => {
                write!(f, "{address} is in use by {holder}")
            }
            Self::InUse { address, holder: None } => {
                write!(f, "{address} is in use by another process")
            }
            Self::Foreign { address, source } => {
                let host = address.ip();
                write!(f, "`host` {host} is no address of this machine: {source}")
            }
            Self::Forbidden { address, first_free, source } => {
                let port = address.port();
                write!(
                    f,
                    "`port` {port} is not for this user, who may listen from {first_free} on: {source}"
                )
            }
            Self::Other { address, source } => {
                write!(f, "`host` and `port` cannot be listened at ({address}): {source}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::cause::RetryClass;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_of_another_machine_is_named_as_the_host() {
        // For documentation alone (RFC 5737).
        let fault = can_be_listened_at(address("192.0.2.1:8000")).unwrap_err();
        assert!(matches!(fault, AddressFault::Foreign { .. }), "{fault:?}");
        let cause = fault.cause();
        assert!(cause.summary.starts_with("`host` 192.0.2.1 is no address of this machine"));
        // Its interface may come up.
        assert_eq!((cause.code, cause.retry), (Code::InvalidConfiguration, RetryClass::Transient));
    }

    #[test]
    fn a_port_for_others_is_named_as_the_port() {
        let error = io::Error::from_raw_os_error(libc::EACCES);
        let cause = AddressFault::of(address("127.0.0.1:80"), error).cause();
        assert!(cause.summary.starts_with("`port` 80 is not for this user"), "{cause}");
        assert_eq!((cause.code, cause.retry), (Code::InvalidConfiguration, RetryClass::Permanent));
    }

    #[test]
    fn whoever_holds_the_port_is_named() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let cause = can_be_listened_at(holder.local_addr().unwrap()).unwrap_err().cause();
        assert_eq!(cause.code, Code::PortInUse);
        assert!(cause.summary.contains(&format!("pid {}", std::process::id())), "{cause}");
    }
}
