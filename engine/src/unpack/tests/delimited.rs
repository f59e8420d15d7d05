use super::*;

fn lines(key: Key) -> Delimited {
    Delimited::new(b"\r\n", key, ANY_SIZE).unwrap()
}

#[test]
fn a_key_with_length_routes_before_the_delimiter_has_come() {
    let lines = lines(key(4, 3));
    wants(&lines, b"GET ke");
    says(&lines, b"GET key", route(9, 4..7));
    says(&lines, b"GET key and more\r\n", route(9, 4..7));
}

#[test]
fn a_key_that_may_end_inside_a_delimiter_waits() {
    let lines = lines(key(4, 3));
    wants(&lines, b"GET ke\r");
    rejects(&lines, b"GET ke\r\n", Reject::KeyOutsideFrame);
    says(&lines, b"GET ke\r.", route(9, 4..7));
    // The carriage return is the first byte that cannot cut the key.
    says(&lines, b"GET key\r", route(9, 4..7));
    says(&lines, b"GET key\r\n", route(9, 4..7));
}

#[test]
fn a_key_without_length_ends_before_the_delimiter() {
    let lines = lines(key_to_end(4));
    wants(&lines, b"GET key\r");
    says(&lines, b"GET key\r\n", route(9, 4..7));
    says(&lines, b"GET key\r\nGET other\r\n", route(9, 4..7));
    says(&lines, b"GET k\r\r\n", route(8, 4..6));
}

#[test]
fn content_that_ends_before_the_key_is_a_reject() {
    rejects(&lines(key(4, 3)), b"\r\n", Reject::KeyOutsideFrame);
    rejects(&lines(key_to_end(4)), b"GET \r\n", Reject::KeyOutsideFrame);
    says(&lines(key_to_end(4)), b"GET k\r\n", route(7, 4..5));
}

#[test]
fn bounds_count_the_delimiter() {
    let bounded = Delimited::new(b"\r\n", key_to_end(0), size(5, 7)).unwrap();
    rejects(&bounded, b"ab\r\n", Reject::FrameTooShort);
    says(&bounded, b"abc\r\n", route(5, 0..3));
    says(&bounded, b"abcde\r\n", route(7, 0..5));
    rejects(&bounded, b"abcdef\r\n", Reject::FrameTooLong);
    // Known as soon as no delimiter can begin in time.
    wants(&bounded, b"abcde\r");
    wants(&bounded, b"abcde");
    rejects(&bounded, b"abcdef", Reject::FrameTooLong);
    rejects(&bounded, b"abcde\r.", Reject::FrameTooLong);
}

#[test]
fn a_longest_frame_holds_a_key_with_length_back() {
    let bounded = Delimited::new(b"\n", key(0, 2), size(0, 8)).unwrap();
    wants(&bounded, b"abcdefg");
    says(&bounded, b"abcdefg\n", route(8, 0..2));
    rejects(&bounded, b"abcdefgh", Reject::FrameTooLong);
    rejects(&bounded, b"a\n", Reject::KeyOutsideFrame);
}

#[test]
fn a_shortest_frame_holds_a_key_with_length_back_only_so_far() {
    let bounds = FrameSize { min: 6, max: None };
    let bounded = Delimited::new(b"\r\n", key(0, 2), bounds).unwrap();
    wants(&bounded, b"abc");
    rejects(&bounded, b"abc\r\n", Reject::FrameTooShort);
    says(&bounded, b"abcd", route(6, 0..2));
}

#[test]
fn scanning_resumes_at_a_delimiter_that_may_have_begun() {
    let delimited = Delimited::new(b"aab", key_to_end(0), ANY_SIZE).unwrap();
    let partial = |at_least, scanned| Status::Partial { at_least, scanned };
    assert_eq!(delimited.unpack(b"xxxaa", 0, false), partial(6, 3));
    assert_eq!(delimited.unpack(b"xxxaaa", 3, false), partial(7, 4));
    assert_eq!(delimited.unpack(b"xxxaaab", 4, false), route(7, 0..4));
}

#[test]
fn descriptions_that_cannot_be_are_refused() {
    let error = |delimiter: &[u8], key, size| Delimited::new(delimiter, key, size).unwrap_err();
    assert_eq!(
        error(b"", key(0, 1), ANY_SIZE),
        FrameSpecError::DelimiterEmpty
    );
    assert!(Delimited::new(&[1; 16], key(0, 1), ANY_SIZE).is_ok());
    assert_eq!(
        error(&[1; 17], key(0, 1), ANY_SIZE),
        FrameSpecError::DelimiterTooLong
    );
    assert_eq!(error(b"\n", key(0, 0), ANY_SIZE), FrameSpecError::KeyEmpty);
    assert_eq!(
        error(b"\n", key(usize::MAX - 1, 1), ANY_SIZE),
        FrameSpecError::KeyTooFar
    );
    assert_eq!(
        error(b"\n", key(0, 1), size(9, 8)),
        FrameSpecError::MinAboveMax
    );
    assert_eq!(
        error(b"\r\n", key(2, 3), size(0, 6)),
        FrameSpecError::KeyBeyondMax
    );
    assert!(Delimited::new(b"\r\n", key(2, 3), size(7, 7)).is_ok());
    assert_eq!(
        error(b"\n", key_to_end(7), size(0, 8)),
        FrameSpecError::KeyBeyondMax
    );
}

#[test]
fn far_offsets_and_bounds_do_not_overflow() {
    let far = Delimited::new(b"\n", key(usize::MAX - 2, 1), ANY_SIZE).unwrap();
    wants(&far, b"abc");
    rejects(&far, b"abc\n", Reject::KeyOutsideFrame);
    let bounds = size(usize::MAX, usize::MAX);
    let long = Delimited::new(b"\r\n", key(0, 1), bounds).unwrap();
    wants(&long, b"abc");
    rejects(&long, b"abc\r\n", Reject::FrameTooShort);
}
