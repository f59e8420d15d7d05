use super::*;

#[test]
fn the_table_is_as_large_as_it_must_be_and_names_its_worlds() {
    let worlds: [fn(&Row) -> Option<&'static str>; 3] = [
        |row| row.not_in_model,
        |row| row.not_in_turmoil,
        |row| row.not_in_kernel,
    ];
    let runs = worlds.map(|not| ROWS.iter().filter(|row| not(row).is_none()).count());
    assert!(runs[0] >= 30 && runs[1] >= 10 && runs[2] >= 30, "{runs:?}");
    for (at, row) in ROWS.iter().enumerate() {
        let again = ROWS[..at].iter().any(|other| other.name == row.name);
        assert!(!again, "{} is there twice", row.name);
        assert!(!row.reasons.is_empty(), "{} says why it ends", row.name);
        for not in worlds {
            assert_ne!(not(row), Some(""), "{}: n/a needs a reason", row.name);
        }
    }
}

#[test]
fn a_wrong_byte_is_located() {
    let mut reader = Reader::new(Side::Client);
    assert_eq!(reader.take(&HEAD), Ok(()));
    let slip = reader.take(&[byte(Side::Client, 7), 0, 1]).unwrap_err();
    assert_eq!(slip, "byte 8 of the client is 0x00, not 0x38");
}
