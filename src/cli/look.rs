//! How text looks on a terminal: what stands out is coloured, and no word is cut at its edge.

use std::io;
use std::os::fd::AsFd;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// A terminal that is narrower is not wrapped for.
const NARROWEST: usize = 40;

/// How much further in the rest of a line stands that is wrapped.
const HANGING: usize = 4;

const TIME: &str = "2026-11-23T07:00:00Z";

/// How a stream shows text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    paint: Paint,
    /// `None` where nobody knows, and lines are left as they are.
    columns: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Paint {
    #[default]
    Plain,
    Coloured,
}

/// What a message is at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Neutral,
    Warning,
    Bad,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Neutral => Style::new(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
        }
    }
}

impl Look {
    /// Of stdout, at this moment.
    pub(super) fn of_stdout() -> Self {
        Self::of(&io::stdout())
    }

    /// Of stderr, at this moment.
    pub(super) fn of_stderr() -> Self {
        Self::of(&io::stderr())
    }

    /// Colours are had as `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE` and `TERM` say (no-color.org,
    /// bixense.com/clicolors).
    fn of(stream: &(impl RawStream + AsFd)) -> Self {
        let paint = match AutoStream::choice(stream) {
            ColorChoice::Never => Paint::Plain,
            ColorChoice::Auto | ColorChoice::AlwaysAnsi | ColorChoice::Always => Paint::Coloured,
        };
        let size = stream.is_terminal().then(|| rustix::termios::tcgetwinsize(stream));
        let columns = size.and_then(Result::ok).map(|size| usize::from(size.ws_col));
        Self { paint, columns: columns.filter(|columns| *columns >= NARROWEST) }
    }

    /// A text in which nothing is obeyed by a terminal ([`super::plain`]), as it is shown; its first line is
    /// of this tone.
    pub(super) fn dress(self, text: &str, tone: Tone) -> String {
        let tones = std::iter::once(tone).chain(std::iter::repeat(Tone::Neutral));
        let lines = text.split('\n').zip(tones).map(|(line, tone)| self.line(line, tone));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn line(self, line: &str, tone: Tone) -> String {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let further = indent + HANGING;
        let rows = match self.columns {
            Some(columns) if further <= columns / 2 => wrapped(line, columns, further),
            Some(_) | None => vec![line.to_owned()],
        };
        match self.paint {
            Paint::Plain => rows.join("\n"),
            Paint::Coloured => {
                let (first, rest) = rows.split_first().map_or(("", &[][..]), |(a, b)| (a, b));
                let rest = rest.iter().map(|row| painted(row, tone.style()));
                std::iter::once(headed(first, indent, tone))
                    .chain(rest)
                    .collect::<Vec<_>>()
                    .join("\n")
            }
        }
    }
}

/// In rows of at most so many columns, but for words that are longer.
fn wrapped(line: &str, columns: usize, hanging: usize) -> Vec<String> {
    let further = " ".repeat(hanging);
    let options = Options::new(columns)
        .subsequent_indent(&further)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    textwrap::wrap(line, options).into_iter().map(String::from).collect()
}

/// The first row of a line, with what it begins by set apart.
fn headed(row: &str, indent: usize, tone: Tone) -> String {
    let (blank, row) = row.split_at(indent.min(row.len()));
    let (time, row) = row.split_at(time_in(row));
    let dim = Style::new().dimmed();
    let (label, style) = label_of(row).unwrap_or(("", Style::new()));
    let rest = &row[label.len()..];
    [blank, &painted(time, dim), &painted(label, style), &painted(rest, tone.style())].concat()
}

/// How long the time is that a row begins with.
fn time_in(row: &str) -> usize {
    let is_time = row.get(..TIME.len()).is_some_and(|start| {
        let alike = |(a, b): (u8, u8)| a == b || a.is_ascii_digit() && b.is_ascii_digit();
        start.bytes().zip(TIME.bytes()).all(alike)
    });
    // The blanks behind it are gone where the line is wrapped there.
    let rest = row.get(TIME.len()..).unwrap_or_default();
    if is_time && (rest.is_empty() || rest.starts_with("  ")) { TIME.len() } else { 0 }
}

/// The words before a colon that say what a line is about.
fn label_of(row: &str) -> Option<(&str, Style)> {
    let end = row.find(": ").or_else(|| row.ends_with(':').then(|| row.len() - 1))?;
    let label = &row[..=end];
    let word = label.split([' ', '[', ':', '-']).next()?;
    let style = match word {
        "error" | "VLM" => AnsiColor::Red.on_default().bold(),
        "warning" => AnsiColor::Yellow.on_default().bold(),
        "help" => AnsiColor::Cyan.on_default().bold(),
        "line" | "ended" | "kernel" | "log" => Style::new().bold(),
        _ => return None,
    };
    (label.len() <= "error[VLM-000]:".len()).then_some((label, style))
}

fn painted(text: &str, style: Style) -> String {
    if text.is_empty() || style == Style::new() {
        return text.to_owned();
    }
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOURED: Look = Look { paint: Paint::Coloured, columns: None };

    fn narrow(columns: usize) -> Look {
        Look { paint: Paint::Plain, columns: Some(columns) }
    }

    /// Red is `<31>`, and its end `<0>`.
    fn shown(text: &str) -> String {
        ["0", "1", "2", "31", "32", "33", "36"].iter().fold(text.to_owned(), |text, code| {
            text.replace(&["\u{1b}[", code, "m"].concat(), &format!("<{code}>"))
        })
    }

    #[test]
    fn what_is_no_terminal_gets_the_text_as_it_is() {
        let text = "2026-11-23T07:00:00Z  VLM-016: a worker died\n    help: wait\n";
        assert_eq!(Look::default().dress(text, Tone::Bad), text);
    }

    #[test]
    fn labels_stand_out_and_the_words_of_others_do_not() {
        for (text, expected) in [
            ("error: no", "<1><31>error:<0> no"),
            ("error[VLM-013]: no", "<1><31>error[VLM-013]:<0> no"),
            ("  help: do", "  <1><36>help:<0> do"),
            ("    line 12: ValueError: x", "    <1>line 12:<0> ValueError: x"),
            ("  log:", "  <1>log:<0>"),
            ("VLM-016: it died: help: x", "<1><31>VLM-016:<0> it died: help: x"),
            ("helpless: x", "helpless: x"),
            ("log", "log"),
            ("line of a program that is long: x", "line of a program that is long: x"),
            ("", ""),
        ] {
            assert_eq!(shown(&COLOURED.dress(text, Tone::Neutral)), expected);
        }
    }

    #[test]
    fn the_first_line_has_its_tone_and_the_time_stands_back() {
        let text = "2026-11-23T07:00:00Z  crashed\n    log: /a";
        assert_eq!(
            shown(&COLOURED.dress(text, Tone::Bad)),
            "<2>2026-11-23T07:00:00Z<0><31>  crashed<0>\n    <1>log:<0> /a"
        );
        assert_eq!(shown(&COLOURED.dress("on", Tone::Good)), "<32>on<0>");
        assert_eq!(shown(&COLOURED.dress("on", Tone::Warning)), "<33>on<0>");
    }

    #[test]
    fn a_line_is_wrapped_between_words_and_the_rest_stands_further_in() {
        let text = "error: one two three four five six seven eight\n  help: /a/path/that/is/longer/than/the/terminal/is/wide now";
        let rows = "error: one two three four five six seven\n    eight\n  help:\n      /a/path/that/is/longer/than/the/terminal/is/wide\n      now";
        assert_eq!(narrow(40).dress(text, Tone::Neutral), rows);
        assert_eq!(narrow(40).dress("", Tone::Neutral), "");
        // Two columns each, three bytes.
        let word = "模型模型模型模型";
        let wide = format!("{word} {word} {word}");
        let rows = format!("{word} {word}\n    {word}");
        assert_eq!(narrow(40).dress(&wide, Tone::Neutral), rows);
        let path = "log: /var/lib/vllm-supervisor/logs-of-a-launch/vllm-12.log";
        assert_eq!(narrow(40).dress(path, Tone::Neutral), path.replace("log: ", "log:\n    "));
        let deep = format!("{}one two three", " ".repeat(50));
        assert_eq!(narrow(40).dress(&deep, Tone::Neutral), deep);
    }

    #[test]
    fn nothing_but_colours_and_breaks_is_added() {
        let text = "2026-11-23T07:00:00Z  VLM-016: one two  three\n    help: four five six seven\n    log: /a b";
        let look = Look { paint: Paint::Coloured, columns: Some(40) };
        let dressed = look.dress(text, Tone::Bad);
        let plain = anstream::adapter::strip_str(&dressed).to_string();
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&plain), words(text));
    }
}
