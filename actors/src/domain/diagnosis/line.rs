//! A line of a log, and what stands before its message: whoever collected it, whoever said it, how
//! loudly.

use std::borrow::Cow;

use regex::bytes::{Regex, RegexBuilder};

/// How many of them there may be: a pod, a time, a process, a rank, a level.
const MOST_PREFIXES: usize = 8;

/// How far into a line a process may be named, or a level; in bytes.
const MARKED_WITHIN: usize = 300;

/// What vLLM itself writes before a message, wherever that is in a line: a collector may have put its own
/// before it in any form, and a progress bar may not have ended its line.
const MARK: &str = r"(?x)
    \([A-Za-z][\w:]*[^()]*\bpid=\d+[^()]*\)\ ?
  | \b(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\ \d\d-\d\d\ \d\d:\d\d:\d\d(?:[.,]\d+)?\ \[[^\]]*\]\ ?
";

/// What is said by the way, though nobody says how loudly.
const NOISE: &str = r"^\[W\d|UserWarning:|FutureWarning:|DeprecationWarning:|retrying \d+ of \d+|thrown while requesting|^Retrying in \d|Failed to load plugin";

/// What is said as a warning, though it is an end (vLLM 0.32, `v1/engine/core_client.py`).
pub(super) const UNDERSTATED: &str = "[shutdown] MPClient: engine core exited unexpectedly";

/// What stands before a message, at the beginning of a line; several may, one behind the other.
const PREFIX: &str = r"(?x)^(?:
    # vLLM's processes (0.10 to 0.33: `(EngineCore_0 pid=12)`; 0.8: `(VllmWorker rank=0 pid=12)`).
    \([A-Za-z]\w*(?:\ [A-Za-z]+\d*(?:=\d+)?)*\)\ ?
    # torchrun, and torch's own.
  | \[rank\d+\]:\ ?
    # vLLM's log; before 0.8 without brackets.
  | (?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\ \d\d-\d\d\ \d\d:\d\d:\d\d(?:[.,]\d+)?\ (?:\[[^\]]*\]|\S+\])\ ?
    # uvicorn's.
  | (?:DEBUG|INFO|WARNING|ERROR|CRITICAL):\ {2,}
    # A container's runtime, with the stream and whether the line is whole.
  | \d{4}-\d\d-\d\d[T\ ]\d\d:\d\d:\d\d\S*\ (?:(?:stdout|stderr)\ [FP]\ )?
    # The same with a host and a process (journalctl -o short-iso).
  | \S+\ [\w.@-]+\[\d+\]:\ ?
    # A time in brackets; a number of a task (srun -l); what a terminal shows of Ctrl-C.
  | \[\d[^\]]*\]\ 
  | \d+:\ 
  | \^C
    # json-file, of Docker.
  | \{\x22log\x22:\x22
    # journald and syslog.
  | [A-Z][a-z]{2}\ [\ \d]\d\ \d\d:\d\d:\d\d\ \S+\ [^\s\[:]+\[\d+\]:\ ?
    # kubectl with --prefix, stern.
  | \[pod/[^\]]*\]\ 
    # Compose.
  | [\w.-]+\ *\|\ 
)";

/// How loudly something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loudness {
    /// Up to a warning: vLLM goes on.
    Quiet,
    /// An error, or nobody says how bad it is.
    Loud,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// An engine or a worker.
    Engine,
    /// The API server, or nobody says who.
    Other,
}

/// A line, taken apart.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) message: Cow<'a, [u8]>,
    pub(super) loudness: Loudness,
    pub(super) speaker: Speaker,
}

/// Takes lines apart.
#[derive(Debug)]
pub(super) struct Reader {
    prefix: Regex,
    mark: Regex,
    noise: Regex,
}

impl Reader {
    pub(super) fn new() -> Result<Self, regex::Error> {
        let pattern = |it| RegexBuilder::new(it).unicode(false).build();
        Ok(Self { prefix: pattern(PREFIX)?, mark: pattern(MARK)?, noise: pattern(NOISE)? })
    }

    pub(super) fn read<'a>(&self, raw: &'a [u8]) -> Line<'a> {
        let shown = shown(raw);
        let (mut loudness, mut speaker) = (Loudness::Loud, Speaker::Other);
        let mut start = 0;
        let mut heed = |said: &[u8]| match said {
            [b'(', name @ ..] => speaker = speaker_of(name),
            said => loudness = loudness_of(said).unwrap_or(loudness),
        };
        // Groups would take ten times as long to be found.
        for mark in self.mark.find_iter(&shown[..shown.len().min(MARKED_WITHIN)]) {
            heed(mark.as_bytes());
            start = mark.end();
        }
        for _ in 0..MOST_PREFIXES {
            let Some(found) = self.prefix.find(&shown[start..]) else { break };
            heed(found.as_bytes());
            start += found.end();
        }
        if self.noise.is_match(&shown[start..]) {
            loudness = Loudness::Quiet;
        } else if shown[start..].starts_with(UNDERSTATED.as_bytes()) {
            loudness = Loudness::Loud;
        }
        let message = match shown {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[start..]),
            Cow::Owned(mut bytes) => {
                bytes.drain(..start);
                Cow::Owned(bytes)
            }
        };
        Line { message, loudness, speaker }
    }
}

fn loudness_of(prefix: &[u8]) -> Option<Loudness> {
    let quiet: [&[u8]; 3] = [b"INFO", b"WARNING", b"DEBUG"];
    let loud: [&[u8]; 2] = [b"ERROR", b"CRITICAL"];
    let begins_with = |levels: &[&[u8]]| levels.iter().any(|level| prefix.starts_with(level));
    if begins_with(&quiet) {
        Some(Loudness::Quiet)
    } else {
        begins_with(&loud).then_some(Loudness::Loud)
    }
}

/// Whether it is quiet at a glance, as nearly all lines of a server are.
pub(super) fn is_plainly_quiet(raw: &[u8]) -> bool {
    let said = match raw.strip_prefix(b"(") {
        Some(rest) => {
            rest.splitn(2, |byte| *byte == b')').nth(1).unwrap_or_default().trim_ascii_start()
        }
        None => raw,
    };
    let levels: [&[u8]; 5] = [b"INFO ", b"INFO: ", b"WARNING ", b"WARNING: ", b"DEBUG "];
    levels.iter().any(|level| said.starts_with(level))
}

fn speaker_of(name: &[u8]) -> Speaker {
    let engines: [&[u8]; 3] = [b"EngineCore", b"Worker", b"VllmWorker"];
    if engines.iter().any(|it| name.starts_with(it)) { Speaker::Engine } else { Speaker::Other }
}

/// What a terminal would show of it: the last that was written over the line, without colours and other
/// control characters.
fn shown(raw: &[u8]) -> Cow<'_, [u8]> {
    let is_control = |byte: u8| byte.is_ascii_control() && byte != b'\t';
    // Of nearly all lines, and without a branch a byte.
    if !raw.iter().fold(false, |any, byte| any | is_control(*byte)) {
        return Cow::Borrowed(raw);
    }
    let is_blank = |part: &&[u8]| part.iter().all(u8::is_ascii_whitespace);
    let last = raw.rsplit(|byte| *byte == b'\r').find(|part| !is_blank(part)).unwrap_or_default();
    if !last.iter().any(|byte| is_control(*byte)) {
        return Cow::Borrowed(last);
    }
    let mut plain = Vec::with_capacity(last.len());
    let mut rest = last.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte == 0x1b && rest.next_if_eq(&b'[').is_some() {
            // ECMA-48, 5.4: parameters and intermediates, then one final byte.
            while rest.next_if(|byte| (0x20..0x40).contains(byte)).is_some() {}
            rest.next_if(|byte| (0x40..0x7f).contains(byte));
        } else if !byte.is_ascii_control() || byte == b'\t' {
            plain.push(byte);
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> (String, Loudness, Speaker) {
        let reader = Reader::new().unwrap();
        let line = reader.read(raw.as_bytes());
        (String::from_utf8(line.message.into_owned()).unwrap(), line.loudness, line.speaker)
    }

    #[test]
    fn whatever_stands_before_a_message_is_taken_away() {
        let wanted = ("ValueError: no".to_owned(), Loudness::Loud, Speaker::Engine);
        for raw in [
            "(EngineCore_DP0 pid=344) ERROR 10-30 17:26:13 [core.py:708] ValueError: no",
            "(VllmWorker rank=0 pid=120) ERROR 03-13 09:12:39 [multiproc_executor.py:375] ValueError: no",
            "\x1b[1;36m(Worker_TP0 pid=624)\x1b[0;0m ValueError: no",
            "Jan 29 10:00:40 host vllm[123]: (EngineCore pid=1) [rank0]: ValueError: no",
            "2026-01-29T10:00:40.123456789Z stderr F (EngineCore pid=1) ValueError: no",
            "[pod/vllm-0/server] (EngineCore pid=1) ValueError: no",
            "vllm-1  | (Worker pid=1) ValueError: no",
            "10% done\r(Worker pid=1) ValueError: no\r",
        ] {
            assert_eq!(read(raw), wanted, "{raw:?}");
        }
    }

    #[test]
    fn who_does_not_raise_his_voice_is_quiet() {
        for raw in [
            "INFO 04-10 13:40:15 [__init__.py:239] x",
            "(APIServer pid=1) WARNING 08-06 03:25:23 [_ipex_ops.py:16] x",
            "INFO:     x",
            "(APIServer pid=1990) INFO:     x",
            "WARNING 01-02 03:04:05 config.py:510] x",
        ] {
            assert_eq!(read(raw), ("x".to_owned(), Loudness::Quiet, Speaker::Other), "{raw:?}");
            assert!(is_plainly_quiet(raw.as_bytes()), "{raw:?}");
        }
        for raw in ["(APIServer pid=1) ERROR 08-06 03:25:23 [x.py:1] x", "ERROR: x", "x", "(x", ""]
        {
            assert!(!is_plainly_quiet(raw.as_bytes()), "{raw:?}");
        }
        let error = read("ERROR:    [Errno 98] x");
        assert_eq!(error, ("[Errno 98] x".to_owned(), Loudness::Loud, Speaker::Other));
    }
}
