//! Which known word somebody meant.

/// Longer words are not compared: the cost is the product of both lengths.
const MOST_BYTES: usize = 80;

/// The known word with the fewest differing letters, at most two and fewer than half of them; letter case never counts.
pub(in crate::ir::build) fn nearest<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.len() > MOST_BYTES {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    let near = known.into_iter().filter(|known| known.len() <= MOST_BYTES);
    let (distance, nearest) = near
        .filter(|known| known.len().abs_diff(word.len()) <= 2)
        .map(|known| (distance(&lower, &known.to_ascii_lowercase()), known))
        .min()?;
    (distance <= 2 && distance * 2 < word.len()).then_some(nearest)
}

/// Letters to insert, delete, replace or swap with their neighbour.
///
/// "Optimal string alignment", a restricted Damerau-Levenshtein distance.
fn distance(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, a) in one.iter().enumerate() {
        let mut now = vec![row + 1];
        for (column, b) in other.iter().enumerate() {
            let mut least = (last[column] + usize::from(a != b))
                .min(last[column + 1] + 1)
                .min(now[column] + 1);
            if row > 0 && column > 0 && *a == other[column - 1] && one[row - 1] == *b {
                least = least.min(before[column - 1] + 1);
            }
            now.push(least);
        }
        before = std::mem::replace(&mut last, now);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_count_and_swapped_neighbours_are_one_mistake() {
        for (one, other, letters) in [
            ("", "", 0),
            ("", "ab", 2),
            ("order", "order", 0),
            ("ordre", "order", 1),
            ("orde", "order", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), letters, "{one} {other}");
            assert_eq!(distance(other, one), letters, "{other} {one}");
        }
    }

    #[test]
    fn a_far_word_is_not_suggested() {
        let known = ["order", "cookie", "canary"];
        assert_eq!(nearest("ordre", known), Some("order"));
        assert_eq!(nearest("ORDER", known), Some("order"));
        assert_eq!(nearest("canaries", known), None);
        assert_eq!(nearest("oe", known), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }
}
