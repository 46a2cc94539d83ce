//! A virtual environment whose `vllm` becomes the stand-in: a script of Python, as pip writes it, and
//! so one that can be launched warm.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What a module asks to know whether a warm process imports it.
pub const IN_WARM_PROCESS: &str = "'VLLMD_RESERVE' in __import__('os').environ";

/// See the module. Removed when it is dropped.
#[derive(Debug)]
pub struct FakeVenv {
    directory: TempDir,
    packages: PathBuf,
    python: PathBuf,
    fake_vllm: String,
    when_forked: String,
    /// What the entry point imports, and what a launch does once it is forked.
    modules: Vec<String>,
    lessons: Vec<String>,
}

impl FakeVenv {
    /// One whose `vllm` runs the stand-in at `fake_vllm`, by the Python on the PATH.
    ///
    /// # Panics
    ///
    /// Without a `python3` on the PATH, of 3.10 or later.
    pub fn of(fake_vllm: &str) -> Self {
        Self::by(Path::new("python3"), fake_vllm)
    }

    /// The same, by this Python, which may be too old to be kept warm.
    ///
    /// # Panics
    ///
    /// When it cannot be run.
    pub fn by(python: &Path, fake_vllm: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let [python, version] = ask(python);
        let packages = directory.path().join(format!("lib/python{version}/site-packages"));
        let metadata = packages.join("vllm-9.0.dist-info");
        let bin = directory.path().join("bin");
        for made in [&metadata, &packages.join("vllm"), &bin] {
            fs::create_dir_all(made).expect("a directory");
        }
        let home = Path::new(&python).parent().expect("a directory").display().to_string();
        let settings = format!("home = {home}\ninclude-system-site-packages = false\n");
        write(&directory.path().join("pyvenv.cfg"), &settings);
        symlink(&python, bin.join("python3")).expect("a link");
        write(&metadata.join("METADATA"), "Metadata-Version: 2.1\nName: vllm\nVersion: 9.0\n");
        write(&metadata.join("entry_points.txt"), "[console_scripts]\nvllm = vllm.cli:main\n");
        let script = format!(
            "#!{}\nimport sys\nfrom vllm.cli import main\nsys.exit(main())\n",
            bin.join("python3").display()
        );
        write_program(&bin.join("vllm"), &script);
        let made = Self {
            directory,
            packages,
            python: python.into(),
            fake_vllm: fake_vllm.to_owned(),
            when_forked: "pass".to_owned(),
            modules: Vec::new(),
            lessons: Vec::new(),
        };
        made.install("9.0");
        made
    }

    /// One that does this first, in Python, where it was forked from a warm process. Where that was
    /// ahead of the order, `was_ordered` is false.
    ///
    /// # Panics
    ///
    /// As [`of`](Self::of) does.
    pub fn that_when_forked(fake_vllm: &str, does: &str) -> Self {
        let mut made = Self::of(fake_vllm);
        does.clone_into(&mut made.when_forked);
        made.install("9.0");
        made
    }

    /// With a module that the entry point imports.
    #[must_use]
    pub fn with_module(mut self, name: &str, source: &str) -> Self {
        write(&self.packages.join(format!("vllm/{name}.py")), source);
        self.modules.push(name.to_owned());
        self.install("9.0");
        self
    }

    /// With a module that a launch imports only when it runs, and teaches the warm process.
    #[must_use]
    pub fn with_lesson(mut self, name: &str, source: &str) -> Self {
        write(&self.packages.join(format!("vllm/{name}.py")), source);
        self.lessons.push(name.to_owned());
        self.install("9.0");
        self
    }

    /// One that is laid out as vLLM is, so that a launch is looked at beforehand; it knows no architecture.
    #[must_use]
    pub fn laid_out_as_vllm(self) -> Self {
        let models = self.packages.join("vllm/model_executor/models");
        fs::create_dir_all(&models).expect("a directory");
        write(&models.join("registry.py"), "");
        self
    }

    /// Whose Python is a shell that does this when it is to be kept warm (`python -c TEXT`), and is
    /// itself for any other words.
    #[must_use]
    pub fn whose_python_given_a_text(self, does: &str) -> Self {
        let python = self.directory.path().join("bin/python3");
        let [real, _] = ask(Path::new("python3"));
        fs::remove_file(&python).expect("a link");
        let packages = self.packages.display();
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = -c ]; then\n    {does}\nfi\n\
             PYTHONPATH='{packages}' exec '{real}' \"$@\"\n"
        );
        write_program(&python, &script);
        self
    }

    /// Its `vllm`.
    pub fn command(&self) -> String {
        self.path("bin/vllm").display().to_string()
    }

    /// The program that its Python is.
    pub fn python(&self) -> &Path {
        &self.python
    }

    /// A path in it that vLLM does not look at.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Each launch so far: whether it was forked, and the builds of the modules that it is made of,
    /// those that it began with and those that it imported last.
    pub fn launches(&self) -> Vec<String> {
        let told = fs::read_to_string(self.path("launches")).unwrap_or_default();
        told.lines().map(str::to_owned).collect()
    }

    /// Installs another build of vLLM, which does nothing else when it is forked.
    pub fn upgrade(&mut self) {
        "pass".clone_into(&mut self.when_forked);
        self.install("9.1-beta");
        let metadata = self.packages.join("vllm-9.0.dist-info");
        fs::rename(&metadata, metadata.with_file_name("vllm-9.1.dist-info")).expect("a rename");
    }

    /// Writes the modules of this build.
    fn install(&self, build: &str) {
        write(&self.packages.join("vllm/__init__.py"), &format!("BUILD = '{build}'\n"));
        write(&self.packages.join("vllm/late.py"), &format!("BUILD = '{build}'\n"));
        let mut text = format!("import os, sys, vllm\n\nBUILD = '{build}'\n");
        for module in &self.modules {
            writeln!(text, "import vllm.{module}").expect("memory");
        }
        let launches = self.path("launches").display().to_string();
        let (fake_vllm, when_forked) = (&self.fake_vllm, &self.when_forked);
        write!(
            text,
            r#"
def main():
    was_forked = getattr(sys, "orig_argv", [])[1:2] == ["-c"]
    was_ordered = "VLLMD_INSTANCE" in os.environ
    import vllm.late
    with open({launches:?}, "a") as file:
        how = "forked" if was_forked else "cold"
        print(how, BUILD, vllm.BUILD, vllm.late.BUILD, file=file)
    if was_forked:
        {when_forked}
        teach()
    os.execv({fake_vllm:?}, [{fake_vllm:?}, *sys.argv[1:]])


def teach():
    """Leaves a process that tells what it has imported, for what is executed has forgotten it."""
"#
        )
        .expect("memory");
        for module in &self.lessons {
            writeln!(text, "    import vllm.{module}").expect("memory");
        }
        if !self.lessons.is_empty() {
            text.push_str("    import signal\n    if os.fork() == 0:\n        while True:\n            signal.pause()\n");
        }
        write(&self.packages.join("vllm/cli.py"), &text);
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
}

fn write_program(path: &Path, text: &str) {
    write(path, text);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// The Python itself, not a script that chooses one, and its version.
#[expect(clippy::disallowed_methods, reason = "nobody's launch")]
fn ask(python: &Path) -> [String; 2] {
    let ask = "import os, sys; print(os.path.realpath(sys.executable)); \
               print('%d.%d' % sys.version_info[:2])";
    let output = Command::new(python).args(["-I", "-c", ask]).output().expect("a python3");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines = text.lines().map(str::to_owned);
    [(); 2].map(|()| lines.next().expect("what it was asked"))
}
