//! The other programs of this package, for a program of it that Cargo has started: only tests are
//! told where those are, and only for tests are they built.

use std::io;
use std::path::PathBuf;
use std::process::Command;

/// Builds these programs as this one was built, and says where they are.
///
/// # Errors
///
/// What Cargo or the system said.
pub fn built<const N: usize>(names: [&str; N]) -> io::Result<[PathBuf; N]> {
    let this = std::env::current_exe()?;
    let directory = this.parent().unwrap_or(&this).to_owned();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    #[expect(clippy::disallowed_methods, reason = "a build is no supervised process")]
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME")]);
    build.args(names.iter().flat_map(|name| ["--bin", name]));
    if directory.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    let status = build.status()?;
    if !status.success() {
        return Err(io::Error::other(format!("cargo build: {status}")));
    }
    Ok(names.map(|name| directory.join(name)))
}
