//! A virtual environment whose `vllm` becomes the stand-in: a script of Python, as pip writes it, and
//! so one that can be launched warm.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// See the module. Removed when it is dropped.
#[derive(Debug)]
pub struct FakeVenv {
    directory: TempDir,
    packages: PathBuf,
}

/// Which launches something is to happen in.
const WAS_FORKED: &str = "sys.orig_argv[1:2] == ['-c']";

impl FakeVenv {
    /// One whose `vllm` runs the stand-in at `fake_vllm`.
    ///
    /// # Panics
    ///
    /// Without a `python3` on the PATH, of 3.10 or later.
    pub fn of(fake_vllm: &str) -> Self {
        Self::with(fake_vllm, "pass")
    }

    /// One that does this first, in Python, where it was forked from a warm process.
    ///
    /// # Panics
    ///
    /// Without a `python3` on the PATH, of 3.10 or later.
    pub fn that_when_forked(fake_vllm: &str, does: &str) -> Self {
        Self::with(fake_vllm, does)
    }

    fn with(fake_vllm: &str, when_forked: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let [python, version] = python();
        let packages = directory.path().join(format!("lib/python{version}/site-packages"));
        let metadata = packages.join("vllm-9.0.dist-info");
        let bin = directory.path().join("bin");
        for made in [&metadata, &packages.join("vllm"), &bin] {
            fs::create_dir_all(made).expect("a directory");
        }
        let write = |path: PathBuf, text: &str| fs::write(path, text).expect("a file");
        let home = Path::new(&python).parent().expect("a directory").display().to_string();
        write(directory.path().join("pyvenv.cfg"), &format!("home = {home}\n"));
        symlink(&python, bin.join("python3")).expect("a link");
        write(metadata.join("METADATA"), "Metadata-Version: 2.1\nName: vllm\nVersion: 9.0\n");
        write(metadata.join("entry_points.txt"), "[console_scripts]\nvllm = vllm.cli:main\n");
        write(packages.join("vllm/__init__.py"), "");
        let program = format!(
            "import os, sys\n\ndef main():\n    if {WAS_FORKED}:\n        {when_forked}\n    \
             os.execv({fake_vllm:?}, [{fake_vllm:?}, *sys.argv[1:]])\n"
        );
        write(packages.join("vllm/cli.py"), &program);
        let script = format!(
            "#!{}\nimport sys\nfrom vllm.cli import main\nsys.exit(main())\n",
            bin.join("python3").display()
        );
        write(bin.join("vllm"), &script);
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(bin.join("vllm"), executable).expect("its mode");
        Self { directory, packages }
    }

    /// Its `vllm`.
    pub fn command(&self) -> String {
        self.directory.path().join("bin/vllm").display().to_string()
    }

    /// Installs another build of vLLM, which does nothing else when it is forked.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn upgrade(&self) {
        let program = self.packages.join("vllm/cli.py");
        let old = fs::read_to_string(&program).expect("a program");
        let new = old.replace(WAS_FORKED, "False") + "# of another build\n";
        fs::write(&program, new).expect("a file");
        let metadata = self.packages.join("vllm-9.0.dist-info");
        fs::rename(&metadata, metadata.with_file_name("vllm-9.1.dist-info")).expect("a rename");
    }
}

/// The Python itself, not a script that chooses one, and its version.
#[expect(clippy::disallowed_methods, reason = "nobody's launch")]
fn python() -> [String; 2] {
    let ask = "import os, sys; print(os.path.realpath(sys.executable)); \
               print('%d.%d' % sys.version_info[:2])";
    let output = Command::new("python3").args(["-I", "-c", ask]).output().expect("a python3");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines = text.lines().map(str::to_owned);
    [(); 2].map(|()| lines.next().expect("what it was asked"))
}
