//! "Did you mean …?": the known key that a mistyped one is nearest to.

use strsim::osa_distance;

/// The most letters that may be wrong in a word of some length: one in three.
const fn tolerance(length: usize) -> usize {
    length.div_ceil(3)
}

/// The candidate nearest to `key`, both dotted paths. Their last words are compared, so that a
/// right word in the wrong section is found too; of equals, one of the same section wins. Two
/// letters in the wrong order count as one mistake.
pub(super) fn nearest<'a>(
    key: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let (section, word) = split(key);
    candidates
        .into_iter()
        .map(|candidate| {
            let (candidate_section, candidate_word) = split(candidate);
            let distance = osa_distance(word, candidate_word);
            (distance, candidate_section != section, candidate)
        })
        .filter(|(distance, ..)| *distance <= tolerance(word.len()))
        .min()
        .map(|(.., candidate)| candidate)
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_in_its_own_section_first() {
        let keys = ["model", "port", "gpu.monitor", "lifecycle.mode", "lifecycle.start_timeout"];
        assert_eq!(nearest("prot", keys), Some("port"));
        assert_eq!(nearest("modle", keys), Some("model"));
        assert_eq!(nearest("gpu.montior", keys), Some("gpu.monitor"));
        assert_eq!(nearest("start_timeout", keys), Some("lifecycle.start_timeout"));
        assert_eq!(nearest("temperature", keys), None);
    }
}
