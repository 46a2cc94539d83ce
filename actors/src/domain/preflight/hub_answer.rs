//! What the Hub answers when it is asked for a model, and what that means.
//!
//! It is asked for the head of `config.json`, as vLLM's libraries begin with (`huggingface_hub` 2.4.0,
//! `file_download.py`): that one answer tells of the model, the revision, the token and the terms. The
//! description of a model (`/api/models/…`) would not do, for that of a gated one is given to everybody.

use crate::domain::cause::{Cause, Code};
use crate::domain::preflight::{
    Assessment, Cached, Finding, Installed, Part, Plan, Subject, judge,
};

/// What the Hub is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubQuestion {
    /// The model's id.
    pub model: String,
    /// The branch, tag or commit.
    pub revision: String,
    /// Where the Hub is (`HF_ENDPOINT`).
    pub endpoint: String,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Asker {
    /// Somebody without a token.
    Nobody,
    /// The owner of the token that vLLM will have.
    Owner,
    /// The owner of a token in a file, which vLLM's libraries may renew first.
    Renewable,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubAnswer {
    /// An answer.
    Given(HubReply),
    /// Nobody could be reached; why, in words.
    Unreachable(String),
    /// Nothing in time, or it could not be asked; why, in words.
    Unknown(String),
}

/// An answer of HTTP, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubReply {
    /// The status.
    pub status: u16,
    /// The kind of refusal (`X-Error-Code`).
    pub code: Option<String>,
    /// Why, in the Hub's words (`X-Error-Message`).
    pub message: Option<String>,
    /// The commit that it is of (`X-Repo-Commit`), which a Hub tells and nobody else does.
    pub commit: Option<String>,
    /// Where else it is (`Location`).
    pub location: Option<String>,
}

/// Whether the Hub decides if a model can be had, of which the local cache has this: what is whole there is
/// loaded though the Hub refuses it (`huggingface_hub` 2.4.0, `file_download.py`,
/// `_get_metadata_or_catch_error`).
pub fn depends_on_hub(cached: &Cached, plan: &Plan, installed: &Installed) -> bool {
    let all = [Part::Config, Part::Tokenizer, Part::Weights];
    if all.iter().all(|part| plan.elsewhere.contains(part)) {
        return false;
    }
    match cached {
        Cached::Nothing => true,
        Cached::Unread(_) => false,
        Cached::Snapshot(facts) => judge(facts, plan, installed)
            .iter()
            .filter_map(Finding::fatal)
            .any(|cause| cause.code == Code::ModelFilesBroken),
    }
}

/// Judges what the Hub has answered.
pub fn judge_answer(question: &HubQuestion, asker: Asker, answer: &HubAnswer) -> Finding {
    let assessment = match answer {
        HubAnswer::Given(reply) => of_reply(question, asker, reply),
        HubAnswer::Unreachable(why) => Assessment::Warning(format!(
            "{} cannot be reached: {why}; vLLM will not have {} from there either, unless that passes",
            question.endpoint, question.model
        )),
        HubAnswer::Unknown(why) => Assessment::Unknown(format!("{}: {why}", question.endpoint)),
    };
    Finding::new(Subject::Hub, assessment)
}

/// As `huggingface_hub` 2.4.0, `utils/_http.py`, `hf_raise_for_status`, tells refusals apart; the codes are
/// those of what vLLM then writes (`domain/diagnosis/rules/hub.rs`).
fn of_reply(question: &HubQuestion, asker: Asker, reply: &HubReply) -> Assessment {
    let HubQuestion { model, revision, endpoint } = question;
    let page = format!("{endpoint}/{model}");
    let said = reply.message.as_deref().map(|it| format!(": {it}")).unwrap_or_default();
    match (reply.status, reply.code.as_deref()) {
        (200..=399, _) if is_from_hub(reply) => Assessment::Fine(format!("{endpoint} gives it")),
        (200..=399, _) => Assessment::Warning(format!(
            "what answers at {endpoint} is no Hub (HTTP {}): something in between may want a login",
            reply.status
        )),
        (_, Some("RevisionNotFound")) => {
            let cause = Cause::new(
                Code::ModelNotFound,
                format!("{model} has no revision `{revision}` on the Hub"),
            );
            Assessment::Fatal(cause.with_remedy(format!(
                "correct --revision in extra_args: a branch, tag or commit of {page}"
            )))
        }
        // Models of Mistral's own format have none.
        (_, Some("EntryNotFound")) => {
            Assessment::Fine(format!("{endpoint} gives it, without a config.json"))
        }
        (401, _) => unauthorised(question, asker, reply),
        (_, Some("GatedRepo")) => gated(question, asker, &said),
        // Of one without a word of the Hub nobody knows whose it is: a company's proxy refuses so, too.
        (403, _) if reply.message.is_some() => {
            let cause = Cause::new(Code::ModelGated, format!("the Hub refuses {model}{said}"));
            Assessment::Fatal(cause.with_remedy(format!("see {page}, and what HF_TOKEN may do")))
        }
        (_, Some("RepoNotFound")) => {
            let cause =
                Cause::new(Code::ModelNotFound, format!("there is no {model} on the Hub{said}"));
            Assessment::Fatal(cause.with_remedy(format!(
                "check its name: its page would be {page}; a private one is shown to a token that may read it"
            )))
        }
        (429, _) => {
            let hint = if asker == Asker::Nobody { ", less so with HF_TOKEN" } else { "" };
            Assessment::Warning(format!(
                "{endpoint} limits how often it is asked{said}; vLLM may be refused too{hint}"
            ))
        }
        (500.., _) => Assessment::Warning(format!(
            "{endpoint} has a fault of its own (HTTP {}){said}; vLLM fails too, unless that passes",
            reply.status
        )),
        (status, _) => Assessment::Warning(format!(
            "{endpoint} does not give it (HTTP {status}){said}; whether vLLM can have it is not known"
        )),
    }
}

/// Where a file of the Hub is told of with its commit, and a model that was renamed by a path.
fn is_from_hub(reply: &HubReply) -> bool {
    let is_path = |location: &String| location.starts_with('/') && !location.starts_with("//");
    reply.commit.is_some() || reply.status >= 300 && reply.location.as_ref().is_some_and(is_path)
}

fn gated(question: &HubQuestion, asker: Asker, said: &str) -> Assessment {
    let HubQuestion { model, endpoint, .. } = question;
    let (whom, how) = match asker {
        Asker::Nobody => ("there is no token", "and set HF_TOKEN to a token of that account"),
        Asker::Owner | Asker::Renewable => {
            ("this account has no access", "with the account that the token belongs to")
        }
    };
    let cause = Cause::new(Code::ModelGated, format!("{model} is gated, and {whom}{said}"));
    Assessment::Fatal(cause.with_remedy(format!("ask for access at {endpoint}/{model}, {how}")))
}

/// What is private, or not there at all, is answered alike.
fn unauthorised(question: &HubQuestion, asker: Asker, reply: &HubReply) -> Assessment {
    let is_gated = reply.code.as_deref() == Some("GatedRepo");
    let HubQuestion { model, endpoint, .. } = question;
    let page = format!("{endpoint}/{model}");
    let is_invalid =
        reply.message.as_deref() == Some("Invalid credentials in Authorization header");
    let refused = |said: String, remedy: String| {
        let cause = Cause::new(Code::AuthenticationRequired, said);
        Assessment::Fatal(cause.with_remedy(remedy))
    };
    match (asker, is_gated) {
        (Asker::Renewable, _) if is_invalid => Assessment::Warning(
            "the Hub does not take the token that `hf auth login` has left; it may be renewed"
                .to_owned(),
        ),
        (Asker::Owner | Asker::Renewable, _) if is_invalid => refused(
            format!("the Hub does not take the token with which {model} is asked for"),
            "set HF_TOKEN to a token that is valid: https://huggingface.co/settings/tokens"
                .to_owned(),
        ),
        (Asker::Nobody, true) => refused(
            format!("{model} is gated, and there is no token"),
            format!("accept the terms at {page}, and set HF_TOKEN to a token of that account"),
        ),
        (Asker::Owner | Asker::Renewable, true) => refused(
            format!("{model} is gated, and the Hub does not take the token"),
            format!("accept the terms at {page}, and set HF_TOKEN to a token of that account"),
        ),
        (_, false) => {
            let whom = match asker {
                Asker::Nobody => "somebody without a token",
                Asker::Owner | Asker::Renewable => "the owner of this token",
            };
            let said = reply.message.as_deref().map(|it| format!(": {it}")).unwrap_or_default();
            refused(
                format!("the Hub does not show {model} to {whom}{said}"),
                format!(
                    "set HF_TOKEN to a token that may read {page}, or check its name: one that is not \
                     there is answered alike"
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests;
