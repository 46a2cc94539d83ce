//! Tests of what the answers of a Hub mean.

use super::*;
use crate::domain::preflight::{
    ConfigFile, ModelConfig, ModelFacts, Tokenizer, WeightFile, Weights,
};

fn question() -> HubQuestion {
    HubQuestion {
        model: "org/a".to_owned(),
        revision: "v2".to_owned(),
        endpoint: "https://hub.example".to_owned(),
    }
}

fn refusal(status: u16, code: &str, message: &str) -> HubReply {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    HubReply { status, code: given(code), message: given(message), ..HubReply::default() }
}

fn judged(asker: Asker, reply: HubReply) -> Assessment {
    judge_answer(&question(), asker, &HubAnswer::Given(reply)).assessment
}

fn fatal(asker: Asker, reply: HubReply) -> Cause {
    match judged(asker, reply) {
        Assessment::Fatal(cause) => cause,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refusal_has_the_code_that_vllm_would_be_told_by() {
    const INVALID: &str = "Invalid credentials in Authorization header";
    use Asker::{Nobody, Owner};
    use Code::{AuthenticationRequired, ModelGated, ModelNotFound};
    for (asker, status, kind, message, code, part) in [
        (Nobody, 401, "RepoNotFound", "", AuthenticationRequired, "without a token"),
        (Nobody, 401, "", "Invalid username or password.", AuthenticationRequired, "password"),
        (Nobody, 401, "GatedRepo", "Access is restricted", AuthenticationRequired, "no token"),
        (Owner, 401, "", INVALID, AuthenticationRequired, "token"),
        (Owner, 403, "GatedRepo", "not in the list", ModelGated, "not in the list"),
        (Nobody, 403, "", "Access to this resource is disabled.", ModelGated, "disabled"),
        (Owner, 404, "RepoNotFound", "Repository not found", ModelNotFound, "org/a"),
        (Nobody, 404, "RevisionNotFound", "Invalid rev id: v2", ModelNotFound, "`v2`"),
    ] {
        let cause = fatal(asker, refusal(status, kind, message));
        assert_eq!(cause.code, code, "{cause}");
        assert!(cause.summary.contains(part), "{cause}");
        let remedy = cause.remedy();
        assert!(
            remedy.contains("https://hub.example/org/a") || message == INVALID,
            "{cause}: {remedy}"
        );
    }
}

#[test]
fn what_may_pass_or_is_not_of_the_hub_is_a_warning() {
    for reply in [
        refusal(429, "", "too many"),
        refusal(500, "", ""),
        refusal(503, "RepoNotFoundYet", ""),
        refusal(400, "", ""),
        // A mirror, or a proxy, that does not tell why.
        refusal(403, "", ""),
        refusal(404, "", ""),
        refusal(407, "", ""),
        // A page to log in at.
        refusal(200, "", ""),
        HubReply { location: Some("https://portal.example/".to_owned()), ..refusal(302, "", "") },
        HubReply { location: Some("//portal.example/".to_owned()), ..refusal(302, "", "") },
    ] {
        let judged = judged(Asker::Owner, reply.clone());
        assert!(matches!(judged, Assessment::Warning(_)), "{reply:?}: {judged:?}");
    }
    let renewable = refusal(401, "", "Invalid credentials in Authorization header");
    assert!(matches!(judged(Asker::Renewable, renewable), Assessment::Warning(_)));
    let unreachable = HubAnswer::Unreachable("refused".to_owned());
    let judged = judge_answer(&question(), Asker::Nobody, &unreachable).assessment;
    assert!(matches!(judged, Assessment::Warning(said) if said.contains("refused")));
}

#[test]
fn what_is_not_answered_is_not_known() {
    let late = HubAnswer::Unknown("nothing within 3s".to_owned());
    let judged = judge_answer(&question(), Asker::Nobody, &late).assessment;
    assert!(matches!(judged, Assessment::Unknown(said) if said.contains("3s")));
}

#[test]
fn what_the_hub_gives_is_fine_wherever_it_keeps_it() {
    let commit = Some("abc".to_owned());
    let moved = |location: &str| Some(location.to_owned());
    for reply in [
        HubReply { commit: commit.clone(), ..refusal(200, "", "") },
        HubReply {
            commit: commit.clone(),
            location: moved("https://cdn.example/x"),
            ..refusal(302, "", "")
        },
        HubReply { location: moved("/new/a/resolve/v2/config.json"), ..refusal(307, "", "") },
        // Of Mistral's own format.
        HubReply { commit, ..refusal(404, "EntryNotFound", "Entry not found") },
    ] {
        let judged = judged(Asker::Nobody, reply.clone());
        assert!(matches!(judged, Assessment::Fine(_)), "{reply:?}: {judged:?}");
    }
}

#[test]
fn the_hub_decides_only_of_what_is_not_whole_in_the_cache() {
    let cached = |missing: &[&str]| {
        let missing = missing.iter().map(|name| (*name).to_owned()).collect();
        let present = vec![WeightFile { name: "a.safetensors".to_owned(), bytes: 9, fault: None }];
        Cached::Snapshot(Box::new(ModelFacts::new(
            "/cache".to_owned(),
            ConfigFile::Read(ModelConfig::default()),
            Weights::Files { present, missing },
            Tokenizer::Present,
        )))
    };
    let decides = |cached: &Cached, elsewhere: &[Part]| {
        let plan = Plan { elsewhere: elsewhere.to_vec(), ..Plan::default() };
        depends_on_hub(cached, &plan, &Installed::default())
    };
    assert!(decides(&Cached::Nothing, &[]));
    assert!(decides(&cached(&["b.safetensors"]), &[]));
    assert!(!decides(&cached(&[]), &[]));
    assert!(!decides(&cached(&["b.safetensors"]), &[Part::Weights]));
    assert!(!decides(&Cached::Unread("busy".to_owned()), &[]));
    assert!(decides(&Cached::Nothing, &[Part::Weights]));
    assert!(!decides(&Cached::Nothing, &[Part::Weights, Part::Tokenizer, Part::Config]));
}
