//! Looks at what a launch would meet, and has it judged.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::model_files;
use super::ownership::on_own_thread;
use crate::domain::absence::ScanError;
use crate::domain::cause::Cause;
use crate::domain::preflight::{
    Assessment, Cached, ConfigFile, Finding, HubQuestion, Installed, LoraModule, LoraPlan,
    MemoryPlan, ModelFacts, Network, Plan, Subject, depends_on_hub, judge, judge_adapters,
    judge_cached, judge_disk, judge_host, judge_memory,
};
use crate::domain::spec::ModelId;
use crate::ports::GpuSource;

mod host;
mod hub_cache;
mod hub_request;
mod memory;

pub use host::Place;
use hub_request::ASKED_WITHIN;
pub use hub_request::{HubAccess, HubToken};

/// How long is looked. Some milliseconds are usual; a disk that hangs must not keep a launch from failing,
/// or succeeding, by itself.
const LOOKED_WITHIN: Duration = Duration::from_millis(500);

/// What is to be looked at before a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    /// What is asked of vLLM.
    pub plan: Plan,
    /// Where the Python packages of vLLM's environment are; nothing is looked at where that is not known.
    pub packages: Option<PathBuf>,
    /// Where the local cache of the Hugging Face Hub is (`HF_HUB_CACHE`), if that is known.
    pub hub_cache: Option<PathBuf>,
    /// Whether vLLM may ask the Hub.
    pub network: Network,
    /// How we ask it; `None` not to.
    pub hub: Option<HubAccess>,
    /// The branch, tag or commit of the model (`--revision`).
    pub revision: Option<String>,
    /// The LoRA adapters that are asked for.
    pub lora: LoraPlan,
    /// The home directory that vLLM has (`~`).
    pub home: Option<PathBuf>,
    /// Where we write.
    pub state: Option<Place>,
    /// Where vLLM keeps what it compiles.
    pub compiled: Option<Place>,
    /// The directories in which vLLM's programs are looked for.
    pub path: Vec<PathBuf>,
    /// The C compiler that is named to it (`CC`).
    pub compiler: Option<String>,
}

/// What was found on this machine, and what is left to ask.
#[derive(Debug, Default)]
struct Looked {
    findings: Vec<Finding>,
    /// What the Hub decides, and how it is asked.
    open: Option<(HubQuestion, HubAccess)>,
}

impl Preflight {
    /// Everything that is known of a launch of this model before it; of an address, of a single file and
    /// of a quantisation of GGUF nothing. Where the Hub decides it is asked, which may take three seconds.
    pub fn look(&self, model: &ModelId) -> Vec<Finding> {
        let Looked { mut findings, open } = self.look_here(model);
        findings.extend(open.map(|(question, hub)| hub.ask(&question)));
        findings
    }

    /// The same without asking the Hub.
    pub fn look_at_files(&self, model: &ModelId) -> Vec<Finding> {
        self.look_here(model).findings
    }

    fn look_here(&self, model: &ModelId) -> Looked {
        // Of what is started in its place, such as a container, nobody knows what it finds where.
        if self.packages.is_none() {
            let why = "it is not known where vLLM is installed".to_owned();
            let findings = vec![Finding::new(Subject::Model, Assessment::Unknown(why))];
            return Looked { findings, open: None };
        }
        let mut looked = self.look_at_model(model);
        looked.findings.extend(self.look_at_adapters());
        looked
    }

    fn look_at_adapters(&self) -> Vec<Finding> {
        let look = |module: &LoraModule| {
            let directory = self.directory_of(module)?;
            Some(model_files::look_at_adapter(module, &directory))
        };
        let adapters: Vec<_> = self.lora.modules.iter().filter_map(look).collect();
        judge_adapters(&self.lora, &adapters)
    }

    /// Where an adapter is, unless it is to be had from the Hub (vLLM 0.32, `lora/utils.py`,
    /// `get_adapter_absolute_path`).
    fn directory_of(&self, module: &LoraModule) -> Option<PathBuf> {
        let path = Path::new(&module.path);
        let is_relative = ["./", "../"].iter().any(|begin| module.path.starts_with(begin));
        match module.path.strip_prefix("~/") {
            Some(below) => Some(self.home.as_ref()?.join(below)),
            None if path.is_absolute() || is_relative || path.is_dir() => Some(path.to_owned()),
            None => None,
        }
    }

    fn look_at_model(&self, model: &ModelId) -> Looked {
        let of_findings = |findings| Looked { findings, open: None };
        let name = model.as_str();
        let path = Path::new(name);
        if path.is_absolute() {
            // That it exists is judged with its name.
            return of_findings(if path.is_dir() {
                let facts = model_files::look(path);
                let installed = self.installed(&facts);
                judge(&facts, &self.plan, &installed)
            } else {
                Vec::new()
            });
        }
        let Some(cache) = self.hub_cache.as_ref().filter(|_| !name.contains(':')) else {
            return Looked::default();
        };
        let (cached, installed) = self.cached(cache, name);
        let shown = cache.display().to_string();
        let findings = judge_cached(name, &cached, &shown, self.network, &self.plan, &installed);
        let is_open =
            self.network == Network::Online && depends_on_hub(&cached, &self.plan, &installed);
        let open = self.hub.as_ref().filter(|_| is_open).map(|hub| {
            let (model, revision) = (name.to_owned(), self.revision().to_owned());
            (HubQuestion { model, revision, endpoint: hub.endpoint.clone() }, hub.clone())
        });
        Looked { findings, open }
    }

    fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// What the machine itself offers a launch of this model; where vLLM runs elsewhere, such as in a
    /// container, only what it offers us.
    pub fn look_at_host(&self, model: &ModelId) -> Vec<Finding> {
        let mut places: Vec<Place> = self.state.iter().cloned().collect();
        if self.packages.is_none() {
            let disks = host::look_at_disks(&places);
            return disks.iter().map(judge_disk).collect();
        }
        places.extend(self.compiled.iter().filter(|_| !self.plan.eager).cloned());
        places.extend(self.to_be_downloaded_to(model));
        let facts = host::look(&places, &self.path, self.compiler.as_deref());
        judge_host(&facts, &self.plan)
    }

    /// How the weights of a model that is there fit into the GPUs, as far as this source sees them, which
    /// is begun only where that is to be known.
    pub fn look_at_memory(
        &self,
        model: &ModelId,
        plan: &MemoryPlan,
        source: impl FnOnce() -> Arc<dyn GpuSource>,
    ) -> Option<Finding> {
        // Of what is started in its place nobody knows what it loads.
        if memory::is_for_cpus(self.packages.as_ref()?) {
            return None;
        }
        let name = model.as_str();
        let path = Path::new(name);
        let directory = match &self.hub_cache {
            _ if path.is_absolute() => path.is_dir().then(|| path.to_owned())?,
            Some(cache) => hub_cache::snapshot(cache, name, self.revision()).ok()?,
            None => return None,
        };
        let snapshot = memory::first_look(&*source())?;
        judge_memory(&model_files::look(&directory), plan, &snapshot)
    }

    /// Where the model comes to, if it has to come.
    fn to_be_downloaded_to(&self, model: &ModelId) -> Option<Place> {
        let cache = self.hub_cache.as_ref().filter(|_| self.network == Network::Online)?;
        let name = model.as_str();
        let is_id = !Path::new(name).is_absolute() && !name.contains(':');
        let is_there = hub_cache::snapshot(cache, name, self.revision()).is_ok();
        let place = Place { purpose: "models of the Hub", path: cache.clone(), enough: 1 << 30 };
        (is_id && !is_there).then_some(place)
    }

    /// Looks, and says why a launch of this model would come to nothing; where that takes long, nothing
    /// is known.
    ///
    /// # Errors
    ///
    /// The first cause that is sure.
    pub async fn refuse(self, model: ModelId) -> Result<(), Cause> {
        self.refuse_in(model, ()).await
    }

    /// The same; `turn` is held until the look has ended, which may be long after the answer.
    ///
    /// # Errors
    ///
    /// Those of [`Self::refuse`].
    pub async fn refuse_in<T: Send + 'static>(self, model: ModelId, turn: T) -> Result<(), Cause> {
        let looked = on_own_thread("vllm-preflight", move || {
            let looked = self.look_here(&model);
            drop(turn);
            looked
        });
        let Looked { findings, open } = known_within(LOOKED_WITHIN, looked).await;
        refused(&findings)?;
        // The look above may be held for ever by a disk, and this one may not.
        let Some((question, hub)) = open else { return Ok(()) };
        let asked = on_own_thread("vllm-hub", move || vec![hub.ask(&question)]);
        refused(&known_within(ASKED_WITHIN + LOOKED_WITHIN, asked).await)
    }

    fn cached(&self, cache: &Path, id: &str) -> (Cached, Installed) {
        match hub_cache::snapshot(cache, id, self.revision()) {
            Ok(directory) => {
                let facts = model_files::look(&directory);
                let installed = self.installed(&facts);
                (Cached::Snapshot(Box::new(facts)), installed)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (Cached::Nothing, Installed::default())
            }
            Err(error) => (Cached::Unread(error.to_string()), Installed::default()),
        }
    }

    fn installed(&self, facts: &ModelFacts) -> Installed {
        match &facts.config {
            ConfigFile::Read(config) => model_files::installed(self.packages.as_deref(), config),
            _ => Installed::default(),
        }
    }
}

/// The first cause that is sure.
fn refused(findings: &[Finding]) -> Result<(), Cause> {
    findings.iter().find_map(Finding::fatal).cloned().map_or(Ok(()), Err)
}

/// What was found, or nothing where that takes too long or cannot be looked at.
async fn known_within<T: Default>(
    limit: Duration,
    look: impl Future<Output = Result<T, ScanError>>,
) -> T {
    match timeout(limit, look).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(%error, "what a launch would meet could not be looked at");
            T::default()
        }
        Err(_) => {
            tracing::warn!("what a launch would meet is not known after {limit:?}");
            T::default()
        }
    }
}
