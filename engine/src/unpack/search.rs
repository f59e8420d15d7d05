//! Patterns that may straddle the end of what has come so far.

/// Where `needle` may yet begin, given that it occurs nowhere whole: the start of the longest
/// proper prefix of it at the end of `haystack`, or else the end.
///
/// Costs at most the square of the needle, which is short.
pub(super) fn partial_tail(haystack: &[u8], needle: &[u8]) -> usize {
    let end = haystack.len();
    let first = (end + 1).saturating_sub(needle.len());
    (first..end)
        .find(|&start| needle.starts_with(&haystack[start..]))
        .unwrap_or(end)
}
