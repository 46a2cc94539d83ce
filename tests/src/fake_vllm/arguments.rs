//! The command line of `vllm serve`, as far as a supervisor writes it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Flags with a value, with their short forms (vLLM 0.32, `EngineArgs` and `FrontendArgs`).
const WITH_VALUE: &[&str] = &[
    "model",
    "host",
    "port",
    "tensor-parallel-size",
    "pipeline-parallel-size",
    "gpu-memory-utilization",
    "served-model-name",
    "max-model-len",
    "max-num-seqs",
    "api-key",
    "dtype",
    "seed",
    "quantization",
    "download-dir",
    "load-format",
    "revision",
    "tokenizer",
    "uvicorn-log-level",
    "shutdown-timeout",
];
const SHORT: &[(&str, &str)] =
    &[("-tp", "tensor-parallel-size"), ("-pp", "pipeline-parallel-size"), ("-q", "quantization")];
/// Flags that stand alone.
const SWITCHES: &[&str] = &["enforce-eager", "trust-remote-code", "enable-sleep-mode"];

/// What the flags said.
#[derive(Debug)]
pub(super) struct Arguments {
    given: Vec<(String, Option<String>)>,
}

/// The flags were not understood.
#[derive(Debug)]
pub(super) struct Usage {
    /// The words that mean nothing, with blanks between them.
    pub(super) unrecognized: String,
}

impl Arguments {
    pub(super) fn parse(words: impl Iterator<Item = String>) -> Result<Self, Usage> {
        let mut words = words.peekable();
        if words.peek().is_some_and(|word| word == "serve") {
            words.next();
        }
        let (mut given, mut strange) = (Vec::new(), Vec::new());
        while let Some(word) = words.next() {
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (word.clone(), None),
            };
            match long_name(&flag) {
                Some(name) if SWITCHES.contains(&name.as_str()) => given.push((name, None)),
                Some(name) if WITH_VALUE.contains(&name.as_str()) => {
                    given.push((name, value.or_else(|| words.next())));
                }
                None if given.iter().all(|(name, _)| name != "model") => {
                    given.push(("model".to_owned(), Some(word)));
                }
                _ => strange.push(word),
            }
        }
        if strange.is_empty() {
            Ok(Self { given })
        } else {
            Err(Usage { unrecognized: strange.join(" ") })
        }
    }

    /// The model as it was named; vLLM's own default without one.
    pub(super) fn model(&self) -> &str {
        self.value("model").unwrap_or("Qwen/Qwen3-0.6B")
    }

    /// The name under which the model is served.
    pub(super) fn served_model(&self) -> &str {
        self.value("served-model-name").unwrap_or(self.model())
    }

    /// Where to listen. Without `--host` on the loopback only, where the real server would open
    /// itself to everybody.
    pub(super) fn address(&self) -> SocketAddr {
        let host = self.value("host").and_then(|host| host.parse().ok());
        let port = self.value("port").and_then(|port| port.parse().ok());
        SocketAddr::new(host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port.unwrap_or(8000))
    }

    /// The key that `/v1` asks for, if any; the flag goes before the environment.
    pub(super) fn api_key(&self) -> Option<String> {
        self.value("api-key").map(str::to_owned).or_else(|| std::env::var("VLLM_API_KEY").ok())
    }

    /// Tensor parallel size times pipeline parallel size.
    pub(super) fn world_size(&self) -> u32 {
        let size = |flag| self.value(flag).and_then(|value| value.parse().ok()).unwrap_or(1);
        size("tensor-parallel-size") * size("pipeline-parallel-size")
    }

    /// The flags as vLLM repeats them in its log, without the key.
    pub(super) fn as_python(&self) -> String {
        let items = self.given.iter().filter(|(name, _)| name != "api-key").map(|(name, value)| {
            let value = match value {
                None => "True".to_owned(),
                Some(number) if number.parse::<f64>().is_ok() => number.clone(),
                Some(text) => format!("'{text}'"),
            };
            format!("'{}': {value}", name.replace('-', "_"))
        });
        let tag = format!("'model_tag': '{}'", self.model());
        format!("{{{}}}", std::iter::once(tag).chain(items).collect::<Vec<_>>().join(", "))
    }

    fn value(&self, flag: &str) -> Option<&str> {
        // The last one counts, as with argparse.
        self.given
            .iter()
            .rev()
            .find(|(name, _)| name == flag)
            .and_then(|(_, value)| value.as_deref())
    }
}

/// The name of a flag without its dashes, or `None` for a word that is no flag. vLLM takes
/// underscores for dashes.
fn long_name(word: &str) -> Option<String> {
    if let Some((_, long)) = SHORT.iter().find(|(short, _)| *short == word) {
        return Some((*long).to_owned());
    }
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    Some(name.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::Arguments;

    fn parse(line: &str) -> Result<Arguments, String> {
        let words = line.split(' ').map(str::to_owned);
        Arguments::parse(words).map_err(|usage| usage.unrecognized)
    }

    #[test]
    fn all_spellings_of_a_flag_mean_the_same() {
        for line in [
            "serve m --tensor-parallel-size 2 -pp 3 --port 9 --enforce-eager",
            "--model m -tp=2 --pipeline_parallel_size=3 --enforce_eager --port=9",
        ] {
            let arguments = parse(line).unwrap();
            assert_eq!((arguments.model(), arguments.world_size()), ("m", 6), "{line}");
            assert_eq!(arguments.address().to_string(), "127.0.0.1:9", "{line}");
        }
    }

    #[test]
    fn what_means_nothing_is_named() {
        assert_eq!(parse("serve m n --enforce-eager --nope -x").unwrap_err(), "n --nope -x");
    }

    #[test]
    fn the_log_repeats_the_flags_but_not_the_key() {
        let arguments = parse("serve m --port 9 --api-key sesame --dtype half").unwrap();
        let text = "{'model_tag': 'm', 'model': 'm', 'port': 9, 'dtype': 'half'}";
        assert_eq!(arguments.as_python(), text);
    }
}
