//! The reader by itself: every kind of field at its limits.

use super::*;

fn reader(bytes: &[u8], flexible: bool) -> Reader {
    Reader::new(BytesMut::from(bytes), flexible)
}

fn error<T: fmt::Debug>(result: Result<T, DecodeError>) -> Malformed {
    result.unwrap_err().what
}

#[test]
fn varints_end_at_32_bits() {
    let check = |bytes: &[u8], expected| {
        assert_eq!(reader(bytes, true).varint().map_err(|e| e.what), expected);
    };
    check(&[0], Ok(0));
    check(&[0x7f], Ok(127));
    check(&[0x80, 1], Ok(128));
    check(&[0xff, 0xff, 0xff, 0xff, 0x0f], Ok(u32::MAX));
    check(&[0xff, 0xff, 0xff, 0xff, 0x1f], Err(Malformed::Varint));
    check(&[0x80, 0x80, 0x80, 0x80, 0x80, 0], Err(Malformed::Varint));
    check(&[0x80], Err(Malformed::Truncated));
    check(&[], Err(Malformed::Truncated));
}

#[test]
fn strings_tell_null_from_empty_from_negative() {
    let check = |bytes: &[u8], flexible, expected: Result<Option<&str>, Malformed>| {
        let string = reader(bytes, flexible).nullable_string::<StrBytes>();
        let got = string.as_ref().map(|s| s.as_deref()).map_err(|e| e.what);
        assert_eq!(got, expected);
        if expected == Ok(None) {
            let string = reader(bytes, flexible).string::<StrBytes>();
            assert_eq!(error(string), Malformed::Null);
        }
    };
    check(b"\xff\xff", false, Ok(None));
    check(b"\x00\x00", false, Ok(Some("")));
    check(b"\x00\x02hi", false, Ok(Some("hi")));
    check(b"\xff\xfe", false, Err(Malformed::Length(-2)));
    check(b"\x00\x03hi", false, Err(Malformed::Truncated));
    check(b"\x7f\xffhi", false, Err(Malformed::Truncated));
    check(b"\x00\x01\xff", false, Err(Malformed::Utf8));
    check(b"\x00", true, Ok(None));
    check(b"\x01", true, Ok(Some("")));
    check(b"\x03hi", true, Ok(Some("hi")));
    check(b"\x04hi", true, Err(Malformed::Truncated));
    check(b"\xff\xff\xff\xff\x0fhi", true, Err(Malformed::Truncated));
}

#[test]
fn a_count_is_refused_before_memory_is_taken() {
    let mut four = reader(&[0, 0, 0, 4, 1, 2, 3, 4], false);
    assert_eq!(error(four.array(2, Reader::i16)), Malformed::Count(4));
    assert_eq!(four.decoded_bytes(), 0);
    let mut four = reader(&[0, 0, 0, 4, 1, 2, 3, 4], false);
    assert_eq!(four.array(1, Reader::i8).unwrap(), [1, 2, 3, 4]);
    assert_eq!(four.decoded_bytes(), 4);

    let mut huge = reader(&[0x7f, 0xff, 0xff, 0xff, 0], false);
    assert_eq!(error(huge.i32s::<i32>()), Malformed::Count(i32::MAX as u32));
    let mut huge = reader(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0], true);
    assert_eq!(error(huge.i32s::<i32>()), Malformed::Count(u32::MAX - 1));
    assert_eq!(huge.decoded_bytes(), 0);
}

#[test]
fn all_arrays_of_a_request_share_one_allowance() {
    const COUNT: usize = 1 << 20;
    let mut frame = BytesMut::new();
    for _ in 0..2 {
        frame.extend_from_slice(&(COUNT as u32).to_be_bytes());
        frame.resize(frame.len() + COUNT, 0);
    }
    // Both arrays fit the frame; each alone fits the allowance; together they do not.
    let element = |reader: &mut Reader| reader.i8().map(|byte| [byte; 20]);
    let mut reader = Reader::new(frame, false);
    assert_eq!(reader.array(1, element).unwrap().len(), COUNT);
    assert_eq!(error(reader.array(1, element)), Malformed::TooLarge);
    assert_eq!(reader.decoded_bytes(), 20 * COUNT);
}

#[test]
fn byte_fields_are_split_off_and_may_be_changed_in_place() {
    let mut reader = reader(b"\x04abc\x03de\x00", true);
    let mut first = reader.bytes_mut().unwrap().unwrap();
    let at = first.as_ptr();
    first[0] = b'A';
    assert_eq!(reader.bytes().unwrap(), "de");
    assert_eq!(reader.bytes_mut().unwrap(), None);
    assert_eq!(first.freeze().as_ptr(), at, "not copied");
    reader.finish().unwrap();
}

#[test]
fn tagged_fields_are_skipped_within_bounds() {
    let skip = |bytes: &[u8]| reader(bytes, true).skip_tagged_fields().map_err(|e| e.what);
    assert_eq!(skip(&[0]), Ok(()));
    assert_eq!(skip(&[2, 0, 1, 9, 7, 0]), Ok(()));
    assert_eq!(skip(&[1, 0, 2, 9]), Err(Malformed::Truncated));
    assert_eq!(skip(&[65]), Err(Malformed::TaggedFields(65)));
    assert_eq!(
        skip(&[1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        Err(Malformed::Truncated)
    );
    assert_eq!(reader(&[], false).skip_tagged_fields(), Ok(()));
}

#[test]
fn errors_say_where() {
    let mut reader = reader(&[0, 1, 0, 0, 0, 2, b'a'], false);
    reader.i16().unwrap();
    let error = reader.i32s::<i32>().unwrap_err();
    assert_eq!(error.at, 6);
    assert_eq!(reader.finish().unwrap_err().what, Malformed::Trailing(1));
    assert_eq!(
        error.to_string(),
        "count 2 is more than fits at byte 6 of the frame"
    );
}

#[test]
fn a_request_may_be_followed_by_more_as_with_kafka() {
    use kafka_protocol::messages::MetadataRequest;
    // Version 4: no list of topics, creation allowed; then the three bytes that librdkafka 2.12 sends.
    let frame = [255, 255, 255, 255, 1, 0, 0, 0];
    let request = reader(&frame, false).request::<MetadataRequest>(4).unwrap();
    assert_eq!(request.topics, None);
    assert!(request.allow_auto_topic_creation);
    assert!(reader(&frame, false).body::<MetadataRequest>(4).is_err());
}
