//! By what a secret is known that stands where none should: its name, and its shape.

/// Whether a key or an environment variable is named as secrets are: `HF_TOKEN`, `api-key`,
/// `AWS_SECRET_ACCESS_KEY`; but not `TOKENIZERS_PARALLELISM` or `HF_TOKEN_PATH`.
pub(crate) fn is_named_like_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase().replace('-', "_");
    let last = name.rsplit('_').next().unwrap_or_default();
    matches!(last, "TOKEN" | "SECRET" | "PASSWORD" | "PASSWD" | "APIKEY")
        || ["API_KEY", "ACCESS_KEY", "PRIVATE_KEY", "SECRET_KEY"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
}

/// Whether a text contains something of the shape of a Hugging Face token (`hf_` and 34 letters
/// and digits) or of an OpenAI-style key (`sk-…`).
pub(super) fn looks_like_a_secret(text: &str) -> bool {
    const SHORTEST: usize = 20;
    let is_long_word = |rest: &str| {
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').count() >= SHORTEST
    };
    ["hf_", "sk-"].iter().any(|prefix| text.split(prefix).skip(1).any(is_long_word))
}

/// What to do with a secret found in the file, by the name it was given there.
pub(super) fn where_a_secret_belongs(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    let variable = if name == "TOKEN" || name.contains("HF") || name.contains("HUGGING") {
        "HF_TOKEN"
    } else if name == "API_KEY" || name.contains("VLLM") {
        "VLLM_API_KEY"
    } else {
        return format!("set {name} in the environment of vllmd instead; vLLM inherits it");
    };
    format!("set {variable} in the environment, or {variable}_FILE to the path of a file with it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_names_that_resemble_them() {
        for name in ["HF_TOKEN", "api-key", "hf_token", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD"] {
            assert!(is_named_like_a_secret(name), "{name}");
        }
        for name in ["TOKENIZERS_PARALLELISM", "HF_TOKEN_PATH", "VLLM_MAX_TOKENS", "model"] {
            assert!(!is_named_like_a_secret(name), "{name}");
        }
    }

    #[test]
    fn the_shape_of_a_token_is_recognised_inside_a_text() {
        let token = format!("hf_{}", "a1".repeat(17));
        assert!(looks_like_a_secret(&token));
        assert!(looks_like_a_secret(&format!("--hf-token={token}")));
        assert!(!looks_like_a_secret("hf_transfer"));
        assert!(!looks_like_a_secret("hf-internal-testing/tiny-random-llama"));
    }
}
