//! The Python that runs vLLM, and what is known by it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};

use super::memory::{Likes, packages};
use super::{ProcessLauncher, child_command};
use crate::adapters::warm::{Kit, Warm, of_script};
use crate::domain::spec::LaunchPolicy;
use crate::domain::target::Target;

impl ProcessLauncher {
    /// The warm process, which is begun with the first launch.
    pub(super) fn warm(&self) -> Weak<Warm> {
        let mut warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        if warm.is_none() {
            match self.begin_warm() {
                Ok(begun) => *warm = Some(Arc::new(begun)),
                // Who has left the choice to us need not be told.
                Err(why) if self.recipe.launch == LaunchPolicy::Auto => {
                    tracing::debug!(why, "vLLM is launched cold");
                }
                Err(why) => tracing::warn!(why, "vLLM is launched cold"),
            }
        }
        warm.as_ref().map_or_else(Weak::new, Arc::downgrade)
    }

    /// vLLM's script, and the Python that runs it.
    fn script(&self) -> Result<(&Path, PathBuf), String> {
        let [script, serve] = &*self.recipe.before_model else {
            return Err("vLLM's command has words of its own".to_owned());
        };
        let script = Path::new(script);
        let python = of_script(script).filter(|_| serve == "serve");
        let python =
            python.ok_or_else(|| format!("{} is no script of Python", script.display()))?;
        Ok((script, python))
    }

    /// Whether there is more than one way to make a launch, and we choose.
    pub(super) fn is_auto(&self) -> bool {
        self.recipe.launch == LaunchPolicy::Auto && self.script().is_ok()
    }

    /// Launches like that of this.
    pub(super) fn likes(&self, target: &Target) -> Likes {
        let python = self.script().ok().map(|(_, python)| python);
        Likes::new(self.settings(target), python.as_deref())
    }

    fn begin_warm(&self) -> Result<Warm, String> {
        let (script, python) = self.script()?;
        let recipe = self.recipe.clone();
        Warm::begin(Kit {
            path: script.parent().unwrap_or(Path::new("/")).to_owned(),
            secrets: self.recipe.hidden(),
            lessons: self.recipe.lessons.clone(),
            command: Box::new(move || child_command::warm(&recipe, &python)),
        })
        .map_err(|error| error.to_string())
    }

    /// Whether vLLM is known to be a build that uses the GPUs that it is given: not a build for CPUs, nor
    /// a command of others, which may choose them by itself.
    pub fn is_for_gpus(&self) -> bool {
        let Ok((_, python)) = self.script() else { return false };
        let packages = packages(&python);
        !packages.is_empty() && !packages.iter().any(|package| package.contains("cpu"))
    }
}
