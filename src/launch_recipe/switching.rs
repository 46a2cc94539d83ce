//! The arguments that somebody brings who switches to another model.

use vllm_supervisor_actors::domain::cause::{Cause, Code};
use vllm_supervisor_actors::domain::target::Arguments;

use super::{arguments, devices};
use crate::config::{has_credentials, problems_of_arguments};

/// What these words tell vLLM in place of what is configured. Which GPUs it uses stays as it is configured.
///
/// # Errors
///
/// VLM-008, with every word that vLLM may not be told, or not by a switch.
pub(crate) fn arguments_of_a_switch(
    words: Vec<String>,
    configured: &Arguments,
) -> Result<Arguments, Cause> {
    // As whoever goes back says it.
    if words == configured.words() {
        return Ok(configured.clone());
    }
    let faults = problems_of_arguments(&words).into_iter().map(|problem| {
        let value = problem.value.map(|value| format!(", found `{value}`")).unwrap_or_default();
        (format!("{}: {}{value}", problem.key, problem.message), problem.help)
    });
    let passwords = words.iter().enumerate().filter(|(_, word)| has_credentials(word));
    let passwords = passwords.map(|(index, _)| {
        let help = "put the address into `extra_args` of the configuration, or into a variable";
        let said = "a password in the arguments of a switch is not masked";
        (format!("extra_args[{index}]: {said}"), help.to_owned())
    });
    let (gpus, told) = (devices::choices(configured.words()), devices::choices(&words));
    let others = (!told.is_empty() && told != gpus).then(|| {
        let help = "set it in `extra_args` of the configuration: which GPUs are watched is known from the start";
        (format!("`{}` chooses GPUs, which a switch cannot", told.join(" ")), help.to_owned())
    });
    let (said, helps): (Vec<_>, Vec<_>) = faults.chain(passwords).chain(others).unzip();
    match helps.into_iter().next() {
        Some(help) => {
            Err(Cause::new(Code::InvalidConfiguration, said.join("; ")).with_remedy(help))
        }
        None if told.is_empty() => Ok(arguments([gpus, words].concat())),
        None => Ok(arguments(words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<Arguments, Cause> {
        beside(&[], words)
    }

    fn beside(configured: &[&str], words: &[&str]) -> Result<Arguments, Cause> {
        let [configured, words] =
            [configured, words].map(|words| words.iter().map(|&it| it.to_owned()).collect());
        arguments_of_a_switch(words, &arguments(configured))
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
        for part in ["extra_args[0]: `--port`", "`--device-ids 1 --data-parallel-size 2` chooses"] {
            assert!(cause.summary.contains(part), "{cause}");
        }
        assert!(!cause.summary.contains("dtype"), "{cause}");
    }

    #[test]
    fn the_gpus_stay_as_they_are_configured() {
        let configured = ["--device-ids=1", "--seed=7", "-dp", "2"];
        let told = beside(&configured, &["--seed=8"]).unwrap();
        assert_eq!(told.words(), ["--device-ids", "1", "--data-parallel-size", "2", "--seed=8"]);
        let same = ["--device-i=1", "--data-parallel-size", "2"];
        assert_eq!(beside(&configured, &same).unwrap().words(), same);
        assert!(beside(&configured, &["--device-id", "0"]).is_err());
        assert!(beside(&configured, &["-dp=1"]).is_err());
    }

    #[test]
    fn what_is_configured_may_be_gone_back_to() {
        let configured = ["--tokenizer", "https://me:hunter2222@host/x", "--device-ids=1"];
        assert_eq!(beside(&configured, &configured).unwrap().words(), configured);
    }

    #[test]
    fn a_password_is_not_repeated() {
        let cause = of(&["--tokenizer", "https://me:hunter2222@host/x"]).unwrap_err();
        assert!(!cause.to_string().contains("hunter"), "{cause}");
    }
}
