use super::*;

#[test]
fn routes_once_the_key_is_there() {
    let fixed = Fixed::new(37, key(4, 3)).unwrap();
    assert_eq!(wants(&fixed, b"......"), 7);
    says(&fixed, b"....key", route(37, 4..7));
}

#[test]
fn a_key_without_length_needs_the_whole_frame() {
    let fixed = Fixed::new(8, key_to_end(5)).unwrap();
    assert_eq!(wants(&fixed, b"......."), 8);
    says(&fixed, b".....key", route(8, 5..8));
    says(&fixed, b".....key and the next frame", route(8, 5..8));
}

#[test]
fn a_key_may_end_where_the_frame_does_and_no_further() {
    assert!(Fixed::new(8, key(5, 3)).is_ok());
    let error = |size, key| Fixed::new(size, key).unwrap_err();
    assert_eq!(error(8, key(5, 4)), FrameSpecError::KeyBeyondSize);
    assert_eq!(error(8, key_to_end(8)), FrameSpecError::KeyBeyondSize);
    assert_eq!(error(0, key(0, 1)), FrameSpecError::SizeZero);
    assert_eq!(error(8, key(0, 0)), FrameSpecError::KeyEmpty);
    assert_eq!(error(8, key(1, usize::MAX)), FrameSpecError::KeyTooFar);
    assert_eq!(error(8, key_to_end(usize::MAX)), FrameSpecError::KeyTooFar);
}
