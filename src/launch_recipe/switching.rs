//! The arguments that somebody brings who switches to another model.

use vllm_supervisor_actors::domain::cause::{Cause, Code};
use vllm_supervisor_actors::domain::target::Arguments;

use super::{arguments, devices, hidden};
use crate::config::{Argument, problems_of_arguments};

/// What these words tell vLLM.
///
/// # Errors
///
/// VLM-008, with every word that vLLM may not be told, or not by a switch.
pub(crate) fn arguments_of_a_switch(words: Vec<String>) -> Result<Arguments, Cause> {
    let faults = problems_of_arguments(&words).into_iter().map(|problem| {
        let value = problem.value.map(|value| format!(", found `{value}`")).unwrap_or_default();
        (format!("{}: {}{value}", problem.key, problem.message), problem.help)
    });
    let of_a_switch = words.iter().enumerate().filter_map(|(index, word)| {
        let (fault, help) = fault(word)?;
        Some((format!("extra_args[{index}]: {fault}"), help.to_owned()))
    });
    let (said, helps): (Vec<_>, Vec<_>) = faults.chain(of_a_switch).unzip();
    match helps.into_iter().next() {
        None => Ok(arguments(words)),
        Some(help) => {
            Err(Cause::new(Code::InvalidConfiguration, said.join("; ")).with_remedy(help))
        }
    }
}

/// What only the configuration may say.
fn fault(word: &str) -> Option<(String, &'static str)> {
    if hidden::has_a_password(word) {
        let help = "put the address into `extra_args` of the configuration, or into a variable";
        return Some(("a password in the arguments of a switch is not masked".to_owned(), help));
    }
    let argument = Argument::read(word)?;
    let flag = devices::CHOICES.iter().find(|flag| argument.is(flag))?;
    let help = "set it in `extra_args` of the configuration: which GPUs are watched is known from the start";
    Some((format!("`{flag}` chooses GPUs, which a switch cannot"), help))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<Arguments, Cause> {
        arguments_of_a_switch(words.iter().map(|&word| word.to_owned()).collect())
    }

    #[test]
    fn what_vllm_may_be_told_is_taken_as_it_is() {
        let arguments = of(&["--max-model-len", "8192", "--served-model-name=chat"]).unwrap();
        assert_eq!(arguments.words(), ["--max-model-len", "8192", "--served-model-name=chat"]);
        assert_eq!(arguments.served_name(), Some("chat"));
        assert_eq!(of(&[]).unwrap().served_name(), None);
    }

    #[test]
    fn every_word_that_it_may_not_be_told_is_named() {
        let words = ["--port", "1", "--dtype=half", "--device_ids=1", "-dp", "2"];
        let cause = of(&words).unwrap_err();
        assert_eq!(cause.code, Code::InvalidConfiguration);
        for part in ["extra_args[0]: `--port`", "extra_args[3]: `--device-ids`", "extra_args[4]"] {
            assert!(cause.summary.contains(part), "{cause}");
        }
        assert!(!cause.summary.contains("dtype"), "{cause}");
    }

    #[test]
    fn a_password_is_not_repeated() {
        let cause = of(&["--tokenizer", "https://me:hunter2222@host/x"]).unwrap_err();
        assert!(!cause.to_string().contains("hunter"), "{cause}");
    }
}
