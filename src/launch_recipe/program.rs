//! Whether a program could be started, told before it is tried: the system says of half a dozen different
//! faults "no such file or directory".

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// The longest first line that the kernel reads (Linux, `include/uapi/linux/binfmts.h`, `BINPRM_BUF_SIZE`).
const FIRST_LINE_BYTES: usize = 256;

/// What is wrong with a program, and what to do where that is not to install vLLM.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// As the sentence goes on that names it: "is a directory".
    pub(super) said: String,
    pub(super) help: Option<String>,
}

impl Fault {
    fn new(said: impl Into<String>) -> Self {
        Self { said: said.into(), help: None }
    }

    fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Why this program could not be started, if so.
pub(super) fn fault(path: &Path) -> Option<Fault> {
    match fs::metadata(path) {
        Ok(found) => of_file(path, &found).or_else(|| of_first_line(path)),
        Err(error) => Some(of_absence(path, &error)),
    }
}

fn of_absence(path: &Path, error: &io::Error) -> Fault {
    match (error.kind(), fs::read_link(path)) {
        (io::ErrorKind::NotFound, Ok(target)) => {
            Fault::new(format!("is a link to {}, which is not there", target.display()))
        }
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _) => Fault::new("is not there"),
        _ => Fault::new(format!("cannot be looked at: {error}"))
            .with_help("see with `namei -l` who may enter each directory on the way"),
    }
}

fn of_file(path: &Path, found: &Metadata) -> Option<Fault> {
    if !found.is_file() {
        let kind = if found.is_dir() { "a directory" } else { "no regular file" };
        return Some(Fault::new(format!("is {kind}")));
    }
    // Asked of the kernel: lists of access rights and capabilities count as well.
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).err().map(|error| {
        let mode = found.permissions().mode() & 0o7777;
        let said = format!("may not be executed by this user (mode {mode:o}): {error}");
        Fault::new(said)
            .with_help("give the right to execute it (`chmod a+rx`), or run as another user")
    })
}

/// What a script is started by, as its first line names it.
pub(super) fn interpreter(path: &Path) -> Option<PathBuf> {
    first_line(path)?.split_ascii_whitespace().next().map(PathBuf::from)
}

/// The first line of a script, without the mark of one (execve(2)).
fn first_line(path: &Path) -> Option<String> {
    let mut start = Vec::new();
    // What may be executed and not read is no script.
    let file = File::open(path).ok()?;
    file.take(FIRST_LINE_BYTES as u64).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).into_owned())
}

fn of_first_line(path: &Path) -> Option<Fault> {
    let line = first_line(path)?;
    if line.ends_with('\r') {
        let said = "has line ends as on Windows (CRLF), so that its interpreter is not found";
        return Some(Fault::new(said).with_help("convert it (`dos2unix`, or `sed -i 's/\\r$//'`)"));
    }
    let interpreter = line.split_ascii_whitespace().next()?;
    let fault = Path::new(interpreter).metadata().err()?;
    let said = format!("is a script for {interpreter}, which cannot be had: {fault}");
    let help = "install vLLM anew (an environment that was moved or lost its Python is of no use), or \
        correct its first line";
    Some(Fault::new(said).with_help(help))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn of(content: &str, mode: u32) -> Option<Fault> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        fault(&path)
    }

    fn said(fault: Option<Fault>) -> String {
        fault.map(|it| it.said).unwrap_or_default()
    }

    #[test]
    fn what_can_be_started_has_no_fault() {
        for content in ["", "\x7fELF", "#!/bin/sh\n", "#! /bin/sh -e\nx", "#!/bin/sh", "#!"] {
            assert_eq!(of(content, 0o755), None, "{content:?}");
        }
        assert_eq!(fault(&std::env::current_exe().unwrap()), None);
    }

    #[test]
    fn a_script_that_has_lost_its_interpreter_is_not_said_to_be_missing() {
        let lost = said(of("#!/opt/venv/bin/python3 -P\n", 0o755));
        assert!(lost.starts_with("is a script for /opt/venv/bin/python3, which"), "{lost}");
        let windows = said(of("#!/bin/sh\r\n", 0o755));
        assert!(windows.contains("CRLF"), "{windows}");
    }

    #[test]
    fn what_nobody_may_execute_is_told_with_its_mode() {
        let fault = said(of("#!/bin/sh\n", 0o644));
        assert!(fault.contains("(mode 644)"), "{fault}");
    }

    #[test]
    fn what_is_none_is_told_from_what_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(said(fault(directory.path())), "is a directory");
        assert_eq!(said(fault(&directory.path().join("none"))), "is not there");
        let link = directory.path().join("link");
        symlink("/opt/none", &link).unwrap();
        assert_eq!(said(fault(&link)), "is a link to /opt/none, which is not there");
        symlink("circle", directory.path().join("circle")).unwrap();
        let circle = said(fault(&directory.path().join("circle")));
        assert!(circle.starts_with("cannot be looked at"), "{circle}");
    }
}
