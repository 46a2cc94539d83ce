//! Which Python runs a command of vLLM.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of a script that are looked at: what the kernel reads of its first line is less (execve(2)).
const HEAD: u64 = 4096;

/// The Python of this script, as pip and uv write the scripts of a package: in the first line, or,
/// where that would be too long or has a space, as a shell is told to execute it. `None` for any
/// other program: a script of somebody's own does more than vLLM's does.
pub(in crate::adapters) fn of_script(script: &Path) -> Option<PathBuf> {
    let mut head = Vec::new();
    File::open(script).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
    of_text(&String::from_utf8_lossy(&head))
}

fn of_text(head: &str) -> Option<PathBuf> {
    let mut lines = head.lines();
    let first = lines.next()?.strip_prefix("#!")?.trim();
    let program = if first == "/bin/sh" {
        let second = lines.next()?.strip_prefix("'''exec' ")?;
        let quoted = second.strip_prefix('"').and_then(|rest| rest.split_once('"'));
        quoted.map_or_else(|| second.split(' ').next(), |(program, _)| Some(program))?
    } else {
        // With arguments it would be another Python, or none: `/usr/bin/env python3`.
        Some(first).filter(|it| !it.contains([' ', '\t']))?
    };
    let program = Path::new(program);
    let is_python = program.file_name()?.to_str()?.starts_with("python");
    let is_generated = lines.all(is_line_of_a_generated_script);
    (program.is_absolute() && is_python && is_generated).then(|| program.to_owned())
}

/// Whether pip, uv or distlib write such a line into the script of an entry point: it imports that,
/// takes a suffix off its own name, and calls it.
fn is_line_of_a_generated_script(line: &str) -> bool {
    let line = line.trim();
    let is_one_of = |begins: &[&str]| begins.iter().any(|it| line.starts_with(it));
    line.is_empty()
        || ["import re", "import sys", "' '''"].contains(&line)
        || is_one_of(&["#", "from vllm", "if __name__ ==", "sys.exit(main()", "sys.argv[0] = "])
        || is_one_of(&["if sys.argv[0].endswith(", "elif sys.argv[0].endswith("])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_python_of_a_script_stands_in_its_first_line_or_behind_a_shell() {
        let python = |head: &str| of_text(head).map(|it| it.display().to_string());
        let plain = "#!/opt/venv/bin/python3.11\n# -*- coding: utf-8 -*-\nimport re\nimport sys\n\
                     from vllm.entrypoints.cli.main import main\nif __name__ == '__main__':\n    \
                     sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])\n    \
                     sys.exit(main())\n";
        assert_eq!(python(plain).as_deref(), Some("/opt/venv/bin/python3.11"));
        let long =
            "#!/bin/sh\n'''exec' \"/opt/my venv/bin/python\" \"$0\" \"$@\"\n' '''\nimport re\n";
        assert_eq!(python(long).as_deref(), Some("/opt/my venv/bin/python"));
        let uv = "#!/bin/sh\n'''exec' /opt/venv/bin/python \"$0\" \"$@\"\n' '''\n";
        assert_eq!(python(uv).as_deref(), Some("/opt/venv/bin/python"));
    }

    #[test]
    fn what_is_no_script_of_python_has_none() {
        for head in [
            "\u{7f}ELF",
            "",
            "#!/bin/sh\nexec vllm \"$@\"\n",
            "#!/usr/bin/env python3\n",
            "#!/bin/bash\n",
            "#!/opt/venv/bin/python -E\n",
            "#!/opt/venv/bin/python\nimport os\nos.environ['A'] = 'b'\n",
        ] {
            assert_eq!(of_text(head), None, "{head:?}");
        }
    }
}
