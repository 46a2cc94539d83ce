//! What vLLM gets of our own environment, and what it does not.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::Secret;

/// Variables that speak to us, or of us.
const WITHHELD: [&str; 26] = [
    // For vLLM this is the base of its internal ports, not the HTTP port (vLLM 0.32, `envs.py`).
    "VLLM_PORT",
    "VLLM_MODEL",
    // With these it would be one rank of a server of several (vLLM 0.32, `config/parallel.py`).
    "VLLM_DP_SIZE",
    "VLLM_DP_RANK",
    "VLLM_DP_RANK_LOCAL",
    "VLLM_DP_MASTER_IP",
    "VLLM_DP_MASTER_PORT",
    // The secrets reach vLLM from the configuration alone: it must not ask for a key that we do not
    // know.
    "HF_TOKEN",
    "HF_TOKEN_FILE",
    "VLLM_API_KEY",
    "VLLM_API_KEY_FILE",
    // With these it would speak to systemd in our name (systemd.exec(5), sd_listen_fds(3)).
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDNAMES",
    "FDSTORE",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "MAINPID",
    "CREDENTIALS_DIRECTORY",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
];

/// An older name of `HF_TOKEN`, which counts where that is not set (`huggingface_hub` 2.4.0,
/// `utils/_auth.py`).
const OLD_HF_TOKEN: &str = "HUGGING_FACE_HUB_TOKEN";

/// What all variables of ours begin with.
const OURS: &[u8] = b"VLLMD_";

/// The names that vLLM does not inherit, of an environment with these names. A token for Hugging
/// Face that is not ours to give is withheld where we give one.
pub(super) fn withheld(
    names: impl Iterator<Item = OsString>,
    hf_token: Option<&Secret>,
) -> Vec<OsString> {
    let ours = names.filter(|name| name.as_bytes().starts_with(OURS));
    let other = hf_token.filter(|token| !token.is_blank()).map(|_| OLD_HF_TOKEN);
    WITHHELD.into_iter().chain(other).map(OsString::from).chain(ours).collect()
}

/// The PATH for vLLM: first where the tools of its own environment are, such as `ninja`, which
/// nobody has to have activated. `None` to leave it as it is.
pub(super) fn path(program: Option<&String>, inherited: Option<OsString>) -> Option<OsString> {
    let program = Path::new(program?);
    let directory = program.parent().filter(|it| it.is_absolute()).map(Path::to_owned);
    // A link from elsewhere into an environment, as `pipx` and `uv tool` make them (PEP 405).
    let real = fs::canonicalize(program).ok();
    let real = real.as_deref().and_then(Path::parent);
    let is_environment = |bin: &&Path| bin.join("../pyvenv.cfg").is_file();
    let environment = real.filter(is_environment).map(Path::to_owned);
    let inherited = inherited.unwrap_or_default();
    let mut directories: Vec<PathBuf> = environment.into_iter().chain(directory).collect();
    directories.dedup();
    directories.extend(env::split_paths(&inherited).filter(|it| !it.as_os_str().is_empty()));
    env::join_paths(directories).ok()
}

/// Where a private directory could be made, the preferred place first.
pub(super) fn places(temporary: Option<OsString>, runtime: Option<OsString>) -> Vec<PathBuf> {
    let given = |text: Option<OsString>| {
        text.map(PathBuf::from).filter(|path| path.is_absolute() && !path.as_os_str().is_empty())
    };
    let usual = ["/tmp", "/dev/shm"].map(|path| Path::new(OsStr::new(path)).to_owned());
    let mut places: Vec<PathBuf> = given(temporary).into_iter().collect();
    places.extend(
        usual
            .into_iter()
            .chain(given(runtime))
            .filter(|it| !places.contains(it))
            .collect::<Vec<_>>(),
    );
    places
}

/// Where torch's inductor would keep its kernels in this environment, had a launch no temporary directory
/// of its own (PyTorch 2.13, `torch/_inductor/runtime/cache_dir_utils.py`). `None` where it is told
/// already, or not to be told.
pub(super) fn kernels(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if variable("TORCHINDUCTOR_CACHE_DIR").is_some() {
        return None;
    }
    // As Python's `getpass.getuser` asks, but for the system's list of users.
    let mut names = ["LOGNAME", "USER", "LNAME", "USERNAME"].into_iter();
    let user = names.find_map(|name| variable(name).filter(|user| !user.is_empty()))?;
    let user = user.to_str()?.replace(['\\', '/', ':', '*', '?', '"', '<', '>', '|'], "_");
    let temporary = places(variable("TMPDIR"), None).into_iter().next()?;
    Some(temporary.join(format!("torchinductor_{user}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_of_inductor_are_where_they_would_be_without_us() {
        let kernels = |given: &[(&str, &str)]| {
            let given: Vec<(String, OsString)> =
                given.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
            let value = |name: &str| given.iter().find(|it| it.0 == name).map(|it| it.1.clone());
            super::kernels(value).map(|path| path.display().to_string())
        };
        assert_eq!(kernels(&[("USER", "a\\b")]).as_deref(), Some("/tmp/torchinductor_a_b"));
        let both = [("USER", "b"), ("LOGNAME", "a"), ("TMPDIR", "/var/tmp")];
        assert_eq!(kernels(&both).as_deref(), Some("/var/tmp/torchinductor_a"));
        assert_eq!(kernels(&[("USER", "a"), ("TORCHINDUCTOR_CACHE_DIR", "/x")]), None);
        assert_eq!(kernels(&[]), None);
    }

    #[test]
    fn what_speaks_to_us_or_of_us_is_withheld() {
        let names = ["VLLMD_LOG", "VLLMD_CONFIG", "VLLM_LOGGING_LEVEL", "HOME"].map(OsString::from);
        let withheld = withheld(names.into_iter(), None);
        for name in [
            "VLLMD_LOG",
            "VLLMD_CONFIG",
            "NOTIFY_SOCKET",
            "VLLM_API_KEY",
            "VLLM_PORT",
            "VLLM_DP_SIZE",
        ] {
            assert!(withheld.iter().any(|it| it == name), "{name}");
        }
        for name in ["VLLM_LOGGING_LEVEL", "HOME"] {
            assert!(!withheld.iter().any(|it| it == name), "{name}");
        }
    }

    #[test]
    fn another_token_is_inherited_only_where_none_is_configured() {
        let is_withheld = |token: Option<&str>| {
            let token = token.map(Secret::new);
            withheld(std::iter::empty(), token.as_ref()).iter().any(|name| name == OLD_HF_TOKEN)
        };
        assert!(is_withheld(Some("hf_configured")));
        assert!(!is_withheld(Some(" ")));
        assert!(!is_withheld(None));
    }

    #[test]
    fn the_tools_of_vllms_own_environment_come_first() {
        let directory = tempfile::tempdir().unwrap();
        let at = |place: &str| directory.path().join(place);
        fs::create_dir_all(at("venv/bin")).unwrap();
        fs::create_dir_all(at("bin")).unwrap();
        fs::write(at("venv/pyvenv.cfg"), "").unwrap();
        fs::write(at("venv/bin/vllm"), "").unwrap();
        std::os::unix::fs::symlink(at("venv/bin/vllm"), at("bin/vllm")).unwrap();
        let path = |program: &str| {
            let program = at(program).to_str().unwrap().to_owned();
            let path = path(Some(&program), Some("/usr/bin:/bin".into())).unwrap();
            env::split_paths(&path).collect::<Vec<_>>()
        };
        let usual = [PathBuf::from("/usr/bin"), PathBuf::from("/bin")];
        assert_eq!(path("venv/bin/vllm"), [&[at("venv/bin")], &usual[..]].concat());
        let linked = [fs::canonicalize(at("venv/bin")).unwrap(), at("bin")];
        assert_eq!(path("bin/vllm"), [&linked, &usual[..]].concat());
    }

    #[test]
    fn the_directory_for_temporary_files_is_preferred_if_it_is_named_as_a_whole() {
        let places =
            |temporary: Option<&str>| places(temporary.map(Into::into), Some("/run/u".into()));
        let usual = ["/tmp", "/dev/shm", "/run/u"].map(PathBuf::from);
        assert_eq!(places(None), usual);
        assert_eq!(places(Some("relative")), usual);
        assert_eq!(places(Some("/tmp")), usual);
        assert_eq!(places(Some("/var/tmp"))[..2], [PathBuf::from("/var/tmp"), usual[0].clone()]);
    }
}
