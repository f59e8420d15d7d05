//! Patterns that may straddle the end of what has come so far.

/// The first place at or after `from` where `needle` may still begin, given that it occurs
/// nowhere whole: the start of a proper prefix of it at the end of `haystack`, or else the end.
///
/// Costs at most the square of the needle, which is short.
pub(super) fn partial_tail(haystack: &[u8], needle: &[u8], from: usize) -> usize {
    let end = haystack.len();
    let first = from.max((end + 1).saturating_sub(needle.len()));
    (first..end)
        .find(|&start| needle.starts_with(&haystack[start..]))
        .unwrap_or(end)
}
