//! A model of the Hugging Face Hub: what of it is in the local cache, and what that means.

use crate::domain::cause::{Cause, Code};
use crate::domain::preflight::{Assessment, Finding, Installed, ModelFacts, Plan, Subject, judge};

/// Whether vLLM may ask the Hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// It may, and downloads what it lacks.
    #[default]
    Online,
    /// It may not (`HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`): what is not in the cache cannot be had.
    Offline,
}

/// What the local cache has of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cached {
    /// Nothing.
    Nothing,
    /// A snapshot, whole or not.
    Snapshot(Box<ModelFacts>),
    /// It could not be looked at; why, in words.
    Unread(String),
}

/// Everything that can be said of a model of the Hub before it is loaded. `cache` is where the local
/// cache is.
pub fn judge_cached(
    id: &str,
    cached: &Cached,
    cache: &str,
    network: Network,
    plan: &Plan,
    installed: &Installed,
) -> Vec<Finding> {
    let lost = |said: String| Assessment::Fatal(Cause::new(Code::NotInLocalCache, said));
    let of_model = |assessment| vec![Finding::new(Subject::Model, assessment)];
    match (cached, network) {
        (Cached::Unread(why), _) => of_model(Assessment::Unknown(format!("the cache: {why}"))),
        (Cached::Nothing, Network::Offline) => of_model(lost(format!(
            "{id} is not in the local cache ({cache}), and the network is off"
        ))),
        (Cached::Nothing, Network::Online) => {
            of_model(Assessment::Fine("not in the local cache: it will be downloaded".to_owned()))
        }
        (Cached::Snapshot(facts), Network::Offline) => {
            let mut findings = judge(facts, plan, installed);
            for finding in &mut findings {
                if let Some(cause) = finding.fatal()
                    && cause.code == Code::ModelFilesBroken
                {
                    finding.assessment =
                        lost(format!("{id} is not whole in the local cache: {}", cause.summary));
                }
            }
            findings
        }
        // What is missing is downloaded, and what is there may be of another day than what the Hub has.
        (Cached::Snapshot(facts), Network::Online) => {
            let mut findings = judge(facts, plan, installed);
            findings.retain(|finding| {
                finding.fatal().is_none_or(|cause| cause.code != Code::ModelFilesBroken)
            });
            for finding in &mut findings {
                if let Some(cause) = finding.fatal() {
                    let said = format!("{}, by what is in the local cache", cause.summary);
                    finding.assessment = Assessment::Warning(said);
                }
            }
            findings
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::preflight::{ConfigFile, ModelConfig, Tokenizer, WeightFile, Weights};

    fn cached(missing: &[&str]) -> Cached {
        let missing = missing.iter().map(|name| (*name).to_owned()).collect();
        let present = vec![WeightFile { name: "a.safetensors".to_owned(), bytes: 9, fault: None }];
        let config = ModelConfig { heads: Some(2), ..ModelConfig::default() };
        Cached::Snapshot(Box::new(ModelFacts::new(
            "/cache/snapshot".to_owned(),
            ConfigFile::Read(config),
            Weights::Files { present, missing },
            Tokenizer::Present,
        )))
    }

    fn fatal(cached: &Cached, network: Network, tensor_parallel: u64) -> Option<Cause> {
        let plan = Plan { tensor_parallel, ..Plan::default() };
        let findings =
            judge_cached("org/a", cached, "/cache", network, &plan, &Installed::default());
        findings.iter().find_map(|it| it.fatal().cloned())
    }

    #[test]
    fn without_a_network_only_what_is_whole_in_the_cache_can_be_had() {
        let nothing = fatal(&Cached::Nothing, Network::Offline, 1).unwrap();
        assert_eq!(nothing.code, Code::NotInLocalCache);
        assert!(
            nothing.summary.contains("org/a") && nothing.summary.contains("/cache"),
            "{nothing}"
        );
        let partly = fatal(&cached(&["b.safetensors"]), Network::Offline, 1).unwrap();
        assert_eq!(partly.code, Code::NotInLocalCache);
        assert!(partly.summary.contains("b.safetensors"), "{partly}");
        assert_eq!(fatal(&cached(&[]), Network::Offline, 1), None);
        assert_eq!(fatal(&Cached::Unread("busy".to_owned()), Network::Offline, 1), None);
    }

    #[test]
    fn with_a_network_what_is_missing_is_downloaded_and_what_is_known_is_a_warning() {
        assert_eq!(fatal(&Cached::Nothing, Network::Online, 1), None);
        assert_eq!(fatal(&cached(&["b.safetensors"]), Network::Online, 1), None);
        let plan = Plan { tensor_parallel: 4, ..Plan::default() };
        let of = |network| {
            let installed = Installed::default();
            judge_cached("org/a", &cached(&[]), "/cache", network, &plan, &installed)
        };
        let is_warning = |it: &Finding| matches!(&it.assessment, Assessment::Warning(said) if said.contains("heads"));
        assert!(of(Network::Online).iter().any(is_warning));
        assert_eq!(fatal(&cached(&[]), Network::Offline, 4).unwrap().code, Code::ParallelSizeUnfit);
    }
}
