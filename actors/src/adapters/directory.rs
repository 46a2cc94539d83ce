//! A directory that is open: what is done in it is done there, wherever its name leads by now.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, Stat, fstat, fsync, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// See the module. Names are those of files in it.
#[derive(Debug)]
pub(super) struct Directory {
    descriptor: OwnedFd,
    /// Where it was when it was opened, for those who read of it.
    path: PathBuf,
}

impl Directory {
    /// The directory at this path, which is no link.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::of(open_in(CWD, path.as_os_str().as_bytes())?, path))
    }

    /// One that was opened for reading, at this path.
    pub(super) fn of(descriptor: OwnedFd, path: &Path) -> Self {
        Self { descriptor, path: path.to_owned() }
    }

    /// A directory in it.
    pub(super) fn below(&self, name: &str) -> io::Result<Self> {
        Ok(Self::of(open_in(self.as_fd(), name.as_bytes())?, &self.path.join(name)))
    }

    /// Where it was when it was opened: for messages, and not to be opened again.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a regular file (mode 0600 if it is made). Nothing else is followed or waited for: not
    /// a link, not a pipe.
    pub(super) fn open_file(&self, name: &str, how: OFlags) -> io::Result<File> {
        let flags = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(openat(&self.descriptor, name, flags, mode)?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
        }
    }

    /// Whether a file that is open has this name: if not, nobody will find what is written to it.
    pub(super) fn is_named(&self, name: &str, file: &File) -> io::Result<bool> {
        let ours = fstat(file)?;
        let there = self.stat(name)?;
        Ok(there.is_some_and(|there| (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)))
    }

    /// What has this name, links not followed; `None` if nothing has.
    pub(super) fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        match statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in it that are text.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.descriptor)? {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    /// Gives a file another name; a file that had it is gone.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.descriptor, from, &self.descriptor, to)?)
    }

    /// Removes a file.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.descriptor, name, AtFlags::empty())?)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn open_in(parent: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, path, flags, Mode::empty())
}

/// Replaces a file as a whole: whoever reads it finds the old one or this one. Returns when it would
/// survive a power failure. It is written under the name `draft` first.
pub(super) fn replace(
    directory: impl AsFd,
    name: &str,
    draft: &str,
    bytes: &[u8],
) -> io::Result<()> {
    let directory = directory.as_fd();
    // Left by a supervisor that was killed amid this, or prepared by somebody.
    match unlinkat(directory, draft, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, draft, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes)?;
    file.sync_all()?;
    renameat(directory, draft, directory, name)?;
    Ok(fsync(directory)?)
}
