//! "Did you mean …?": the known key that a mistyped one is nearest to.

/// The most letters that may be wrong in a word of some length: one in three.
const fn tolerance(length: usize) -> usize {
    length.div_ceil(3)
}

/// The candidate nearest to `key`, both dotted paths. Their last words are compared, so that a
/// right word in the wrong section is found too; of equals, one of the same section wins.
pub(super) fn nearest<'a>(
    key: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let (section, word) = split(key);
    candidates
        .into_iter()
        .map(|candidate| {
            let (candidate_section, candidate_word) = split(candidate);
            let distance = edit_distance(word, candidate_word);
            (distance, candidate_section != section, candidate)
        })
        .filter(|(distance, ..)| *distance <= tolerance(word.len()))
        .min()
        .map(|(.., candidate)| candidate)
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

/// How many letters must be inserted, removed or replaced to turn one word into the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_inserted_removed_and_replaced_letters() {
        for (from, to, distance) in
            [("port", "port", 0), ("prt", "port", 1), ("kitten", "sitting", 3), ("", "abc", 3)]
        {
            assert_eq!(edit_distance(from, to), distance, "{from} {to}");
        }
    }

    #[test]
    fn the_nearest_key_is_found_in_its_own_section_first() {
        let keys = ["port", "gpu.monitor", "lifecycle.mode", "lifecycle.start_timeout"];
        assert_eq!(nearest("prot", keys), Some("port"));
        assert_eq!(nearest("gpu.montior", keys), Some("gpu.monitor"));
        assert_eq!(nearest("start_timeout", keys), Some("lifecycle.start_timeout"));
        assert_eq!(nearest("temperature", keys), None);
    }
}
