//! What Hugging Face answers, or does not (`huggingface_hub` 0.20 to 2, with requests, httpx or httpx2).

use crate::domain::cause::Code::{
    AuthenticationRequired, HubRateLimited, HubUnreachable, InvalidModelId, ModelFilesBroken,
    ModelGated, ModelNotFound, NotInLocalCache,
};
use crate::domain::diagnosis::rule::Rule;

pub(in crate::domain::diagnosis) const RULES: &[Rule] = &[
    Rule::root(HubRateLimited, r"429 Client Error|'429 Too Many Requests'|429 Too Many Requests|We had to rate limit your IP"),
    // A repository that is not there is 401 to somebody who is not logged in.
    Rule::root(AuthenticationRequired, r"401 Client Error|Client error '401 Unauthorized'|Invalid user(?:name)? (?:token|or password)|(?:InvalidHeader|LocalProtocolError): .*Bearer|Token is required \(")
        .curing("set HF_TOKEN to a token that may read this model, or check its name: one that is not there is answered alike"),
    Rule::root(ModelGated, r"403 Client Error|Client error '403 Forbidden'|403 Forbidden|Access to this resource is disabled"),
    Rule::consequence(AuthenticationRequired, r"Access to model (?P<model>\S+) is restricted\. You must have access to it and be authenticated")
        .saying("{model} is gated, and there is no token")
        .curing("accept the terms at https://huggingface.co/{model}, and set HF_TOKEN to a token of that account"),
    Rule::consequence(ModelGated, r"Access to model (?P<model>\S+) is restricted")
        .saying("{model} is gated, and this account has no access")
        .curing("ask for access at https://huggingface.co/{model} with the account that HF_TOKEN belongs to"),
    Rule::consequence(ModelGated, r"You are trying to access a gated repo|Cannot access gated repo|is a gated repository|GatedRepoError"),
    // Off the network by order.
    Rule::root(NotInLocalCache, r"outgoing traffic has been disabled|OfflineModeIsEnabled|offline mode is enabled"),
    Rule::root(NotInLocalCache, r"Cannot find (?:an appropriate cached snapshot folder|the requested files in the disk cache).*(?:local_files_only|disabled)"),
    // It was asked and does not answer.
    Rule::root(HubUnreachable, r"CERTIFICATE_VERIFY_FAILED")
        .saying("the certificate of Hugging Face, or of a proxy in between, is not trusted")
        .curing("set SSL_CERT_FILE and REQUESTS_CA_BUNDLE in env to a file with the certificate of your company's proxy"),
    Rule::root(HubUnreachable, r"Server error '5\d\d |5\d\d Server Error|HTTPError: 5\d\d|CAS service error|416 Client Error|Distant resource does not seem to be on huggingface"),
    Rule::root(HubUnreachable, r"(?:huggingface\.co|hf\.co|hf-mirror).*(?:Max retries exceeded|Failed to resolve|Read timed out|Temporary failure in name resolution)"),
    Rule::consequence(HubUnreachable, r"Max retries exceeded with url|using .hf_transfer.|ChunkedEncodingError|IncompleteRead|HarmonyError: error downloading or loading vocab file"),
    Rule::consequence(HubUnreachable, r"^(?:\w+\.)*(?:ConnectError|ConnectTimeout|ReadTimeout|ProxyError|ProtocolError|RemoteProtocolError)\b"),
    Rule::consequence(HubUnreachable, r"An error happened while trying to locate the files? on the Hub|We couldn't connect to '(?P<where>[^']*)' to load|Cannot reach the requested server"),
    // It answers that there is none.
    Rule::root(ModelNotFound, r"RepositoryNotFoundError|Repository Not Found for url|RevisionNotFoundError|Revision Not Found for url|404 Client Error: Not Found for url: \S+/models/"),
    Rule::consequence(ModelNotFound, r"(?P<model>[\w.-]+/[\w.-]+) is not a local folder and is not a valid model identifier")
        .saying("there is no model {model} on Hugging Face"),
    Rule::root(ModelFilesBroken, r"(?:Remote|Local)?EntryNotFoundError: 404|Entry Not Found for url"),
    // It was not asked: that is no name of a repository.
    Rule::root(InvalidModelId, r"HFValidationError: (?P<what>.+)")
        .saying("neither a model id nor a directory: {what}"),
    Rule::root(InvalidModelId, r"No adapter found for (?P<path>[^\s']+)")
        .saying("there is no LoRA adapter at {path}")
        .curing("correct the path in --lora-modules"),
    Rule::consequence(ModelFilesBroken, r"Invalid repository ID or local directory specified: '(?P<path>[/.~][^']*)'")
        .saying("there is no model configuration in {path}")
        .curing("put the model's config.json (of Mistral: params.json) into {path}, or correct the path"),
    Rule::consequence(InvalidModelId, r"Invalid repository ID or local directory specified: '(?P<model>[^']*)'")
        .saying("`{model}` is neither a model id nor a directory with a model"),
    Rule::consequence(InvalidModelId, r"Incorrect path_or_model_id"),
];
