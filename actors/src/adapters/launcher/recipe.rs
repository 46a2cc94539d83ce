//! How vLLM is to be started, as the configuration says.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::adapters::ownership::on_own_thread;
use crate::adapters::preflight::Preflight;
use crate::domain::gpu::Devices;
use crate::domain::secret::Secret;
use crate::domain::spec::{ExitPolicy, LaunchPolicy};
use crate::domain::target::{Arguments, Target};

/// How long it is looked where vLLM is installed: a disk that hangs must not keep a launch from failing, or
/// succeeding, by itself.
const FORESEEN_WITHIN: Duration = Duration::from_millis(500);

/// What is known of a launch by what vLLM is told besides its model.
#[derive(Clone, Debug)]
pub struct Foreseen {
    /// What is looked at before it.
    pub preflight: Preflight,
    /// The GPUs whose memory it wants a share of; [`Devices::Unknown`] where it wants none, too.
    pub filled: Devices,
}

/// Tells what is known of a launch with these arguments. It looks where vLLM is installed, on a disk that may
/// hang.
pub type Foresee = Arc<dyn Fn(&Arguments) -> Foreseen + Send + Sync>;

/// The same, on a thread of its own; `None` if that takes long, or cannot be had.
pub async fn foresee(foresee: &Foresee, arguments: &Arguments) -> Option<Foreseen> {
    let (foresee, arguments) = (Arc::clone(foresee), arguments.clone());
    let seen = on_own_thread("vllm-foresee", move || foresee(&arguments));
    match timeout(FORESEEN_WITHIN, seen).await {
        Ok(Ok(foreseen)) => Some(foreseen),
        Ok(Err(error)) => {
            tracing::warn!(%error, "what a launch would meet could not be looked at");
            None
        }
        Err(_) => {
            tracing::warn!("where vLLM is installed is not known after {FORESEEN_WITHIN:?}");
            None
        }
    }
}

/// How vLLM is to be started.
#[derive(Clone)]
pub struct LaunchRecipe {
    /// The words before the model, program first.
    pub before_model: Vec<String>,
    /// The words after it, but for those that a launch has of its own.
    pub after_model: Vec<String>,
    /// Where it is to listen.
    pub address: SocketAddr,
    /// Variables set on top of our environment. They win over what this launcher sets itself.
    pub environment: Vec<(String, String)>,
    /// Variables that it gets as well, but that are not to be compared or written anywhere.
    pub secrets: Vec<(String, Secret)>,
    /// Further secrets, which it inherits or finds in its variables.
    pub inherited_secrets: Vec<Secret>,
    /// Names of variables that it does not get from our environment.
    pub withheld: Vec<OsString>,
    /// The directories in which its programs are looked for; `None` for our own.
    pub path: Option<OsString>,
    /// Directories in which a private one for short-lived files can be made, the preferred first,
    /// which is that for temporary files.
    pub scratch: Vec<PathBuf>,
    /// Where torch's inductor keeps the kernels that it has compiled, wherever the temporary files of a
    /// launch are; `None` to leave it to it.
    pub kernels: Option<PathBuf>,
    /// What is served unless somebody switches.
    pub configured: Target,
    /// What follows from what it is told besides its model.
    pub foresee: Foresee,
    /// What all launches of this supervisor have in common in their marker.
    pub marker_prefix: String,
    /// How it is started.
    pub launch: LaunchPolicy,
    /// Where is kept what a warm process learns of vLLM; `None` to learn it anew each time.
    pub lessons: Option<PathBuf>,
    /// Whether vLLM is to be ended with us, however we end.
    pub on_exit: ExitPolicy,
}

impl LaunchRecipe {
    /// Whatever is masked where vLLM says it.
    pub fn hidden(&self) -> Vec<Secret> {
        let given = self.secrets.iter().map(|(_, secret)| secret);
        given.chain(&self.inherited_secrets).cloned().collect()
    }
}

// The environment may hold what should not be seen.
impl fmt::Debug for LaunchRecipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchRecipe")
            .field("before_model", &self.before_model)
            .field("after_model", &self.after_model)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
