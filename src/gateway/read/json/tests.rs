//! Which bodies are read, what they say, and in which words others are refused.

use axum::http::HeaderValue;
use serde_json::Value;

use super::*;

const NOT_AN_OBJECT: &str = "BODY_NOT_AN_OBJECT";
const MALFORMED: &str = "BODY_MALFORMED";
const REPEATED: &str = "KEY_REPEATED";

fn problem(problem: &Problem) -> Value {
    let event = problem.event("/", &HeaderValue::from_static("id"));
    serde_json::from_str(&event).unwrap()
}

/// What a body changes, such as `name="a" handshake=null`, or why it is refused and which members are.
fn told(read: Result<OrganizationBody, Problem>) -> String {
    let mut words = Vec::new();
    match read {
        Ok(body) => words.extend(body.into_iter().filter_map(|(field, change)| match change {
            Change::Keep => None,
            Change::Clear => Some(format!("{}=null", field.member())),
            Change::Set(text) => Some(format!("{}={text:?}", field.member())),
        })),
        Err(refused) => {
            let problem = problem(&refused);
            let errors = problem["errors"].as_array().into_iter().flatten();
            words.push(problem["reason"].as_str().unwrap().to_owned());
            words.extend(errors.map(|error| {
                let text = |member: &str| error[member].as_str().unwrap().to_owned();
                text("pointer") + " " + &text("reason")
            }));
        }
    }
    words.join(" ")
}

#[test]
fn a_body_is_one_object_of_valid_json_and_nothing_else() {
    for (body, expected) in [
        (&b"{}"[..], ""),
        (b" \t\r\n{ \t\r\n} \t\r\n", ""),
        (b"", NOT_AN_OBJECT),
        (b" \n", NOT_AN_OBJECT),
        (b"null", NOT_AN_OBJECT),
        (b"true", NOT_AN_OBJECT),
        (b"90", NOT_AN_OBJECT),
        (b"\"{}\"", NOT_AN_OBJECT),
        (b"[]", NOT_AN_OBJECT),
        (b"[{}]", NOT_AN_OBJECT),
        (b"}", NOT_AN_OBJECT),
        (b"\0{}", NOT_AN_OBJECT),
        // A byte order mark, a space that is none of JSON's, another encoding.
        (b"\xef\xbb\xbf{}", NOT_AN_OBJECT),
        (b"\xc2\xa0{}", NOT_AN_OBJECT),
        (b"\x0c{}", MALFORMED),
        (b"{\0}\0", MALFORMED),
        (b"{", MALFORMED),
        (b"{\"name\"", MALFORMED),
        (b"{\"name\":", MALFORMED),
        (b"{\"name\":\"a\"", MALFORMED),
        (b"{\"name\":\"a", MALFORMED),
        (b"{\"name\":\"a\",}", MALFORMED),
        (b"{,}", MALFORMED),
        (b"{name:\"a\"}", MALFORMED),
        (b"{'name':'a'}", MALFORMED),
        (b"{90:\"a\"}", MALFORMED),
        (b"{null:\"a\"}", MALFORMED),
        (b"{}//", MALFORMED),
        (b"{/**/}", MALFORMED),
        // Trailing bytes.
        (b"{}x", MALFORMED),
        (b"{}{}", MALFORMED),
        (b"{},", MALFORMED),
        (b"{}\n}", MALFORMED),
        (b"{}\0", MALFORMED),
        (b"{}\xff", MALFORMED),
        (b"{}\x0c", MALFORMED),
    ] {
        let shown = String::from_utf8_lossy(body);
        assert_eq!(told(read_update(body, 90, false)), expected, "{shown:?}");
        assert_eq!(told(read_creation(body, false)), expected, "{shown:?}");
    }
}

#[test]
fn what_is_no_value_of_json_is_refused_also_where_nobody_reads_it() {
    for (body, expected) in [
        (r#"{"x":NaN}"#, MALFORMED),
        (r#"{"x":-Infinity}"#, MALFORMED),
        (r#"{"x":undefined}"#, MALFORMED),
        (r#"{"x":Null}"#, MALFORMED),
        (r#"{"x":090}"#, MALFORMED),
        (r#"{"x":+1}"#, MALFORMED),
        (r#"{"x":.5}"#, MALFORMED),
        (r#"{"x":1.}"#, MALFORMED),
        (r#"{"x":0x1}"#, MALFORMED),
        (r#"{"x":1e400}"#, MALFORMED),
        (r#"{"x":[-1e400]}"#, MALFORMED),
        (r#"{"x":1e308}"#, ""),
        (r#"{"x":1e-400}"#, ""),
    ] {
        assert_eq!(told(read_update(body.as_bytes(), 90, false)), expected, "{body}");
    }
}

#[test]
fn texts_are_utf_8_and_their_escapes_stand_for_what_they_say() {
    for (body, expected) in [
        (&br#"{"name":"\u00e9\ud83d\ude00\n\t\"\\\/\u0000"}"#[..], r#"name="é😀\n\t\"\\/\0""#),
        ("{\"name\":\"é😀\u{7f}\"}".as_bytes(), "name=\"é😀\\u{7f}\""),
        (br#"{"n\u0061me":"a","\u0068andshake":null}"#, "name=\"a\" handshake=null"),
        (br#"{"name":"\ud83d"}"#, MALFORMED),
        (br#"{"name":"\ude00"}"#, MALFORMED),
        (br#"{"name":"\ude00\ud83d"}"#, MALFORMED),
        (br#"{"name":"\ud83dx"}"#, MALFORMED),
        (br#"{"name":"\ud83d\u0061"}"#, MALFORMED),
        (br#"{"name":"\u00e"}"#, MALFORMED),
        (br#"{"name":"\U00e9"}"#, MALFORMED),
        (br#"{"name":"\x41"}"#, MALFORMED),
        (br#"{"name":"\"}"#, MALFORMED),
        (b"{\"name\":\"a\nb\"}", MALFORMED),
        (b"{\"name\":\"a\0b\"}", MALFORMED),
        // Invalid UTF-8: no byte of it, cut, too long a form, a surrogate, beyond the last code point.
        (b"{\"name\":\"\xff\"}", MALFORMED),
        (b"{\"name\":\"\xc3\"}", MALFORMED),
        (b"{\"name\":\"\xc0\xaf\"}", MALFORMED),
        (b"{\"name\":\"\xed\xa0\xbd\"}", MALFORMED),
        (b"{\"name\":\"\xf4\x90\x80\x80\"}", MALFORMED),
        // Also where nobody reads it.
        (b"{\"\xff\":1}", MALFORMED),
        (b"{\"x\":\"\xff\"}", MALFORMED),
        (b"{\"x\":[{\"\xff\":1}]}", MALFORMED),
        (br#"{"x":"\ud83d"}"#, MALFORMED),
        (br#"{"\ud83d":1}"#, MALFORMED),
        (br#"{"x":{"y":["\ude00"]}}"#, MALFORMED),
    ] {
        let shown = String::from_utf8_lossy(body);
        assert_eq!(told(read_update(body, 90, false)), expected, "{shown}");
    }
}

#[test]
fn a_key_is_there_once_in_each_object_however_it_is_written() {
    for (body, expected) in [
        (r#"{"name":"a","name":"a"}"#, REPEATED),
        (r#"{"name":null,"name":null}"#, REPEATED),
        (r#"{"name":"a","n\u0061me":"b"}"#, REPEATED),
        (r#"{"name":"a","subscriptionId":"b","name":"c"}"#, REPEATED),
        (r#"{"id":90,"id":90}"#, REPEATED),
        (r#"{"x":1,"x":1}"#, REPEATED),
        (r#"{"":1,"":1}"#, REPEATED),
        (r#"{"x":{"a":1,"a":1}}"#, REPEATED),
        (r#"{"x":[[{"a":1,"\u0061":1}]]}"#, REPEATED),
        (r#"{"name":{"a":1,"a":1}}"#, REPEATED),
        // Other keys: case, and what looks alike.
        (r#"{"name":"a","Name":"b"}"#, "name=\"a\""),
        (r#"{"é":1,"e\u0301":1}"#, ""),
        // Other objects. What is in one of them is no member of the body.
        (r#"{"x":{"a":1},"y":{"a":1},"a":1}"#, ""),
        (r#"{"x":{"name":"b","id":7},"name":"a"}"#, "name=\"a\""),
        (r#"{"x":[{"a":1},{"a":1}]}"#, ""),
    ] {
        assert_eq!(told(read_update(body.as_bytes(), 90, false)), expected, "{body}");
    }
}

#[test]
fn a_body_has_127_levels_at_most() {
    let arrays = |levels| format!("{{\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let objects = |levels| format!("{}1{}", "{\"x\":".repeat(levels), "}".repeat(levels));
    for (body, expected) in [
        (arrays(126), ""),
        (arrays(127), MALFORMED),
        (arrays(100_000), MALFORMED),
        (objects(127), ""),
        (objects(128), MALFORMED),
        (objects(100_000), MALFORMED),
        ("[".repeat(100_000), NOT_AN_OBJECT),
    ] {
        let shown = body.split_at(6).0;
        assert_eq!(told(read_update(body.as_bytes(), 90, false)), expected, "{shown}");
    }
}

#[test]
fn a_member_is_a_string_or_null_and_nothing_is_converted() {
    for (body, expected) in [
        (r#"{"name":"a"}"#, "name=\"a\""),
        // Which values a field may have is decided behind the rights.
        (r#"{"name":"","handshake":" "}"#, "name=\"\" handshake=\" \""),
        (r#"{"name":"null"}"#, "name=\"null\""),
        (
            r#"{"handshake":null,"subscriptionId":null,"name":null}"#,
            "name=null subscriptionId=null handshake=null",
        ),
        (r#"{"subscription_id":"b"}"#, "subscriptionId=\"b\""),
        (r#"{"name":90}"#, "INVALID_INPUT #/name FIELD_TYPE"),
        (r#"{"name":99999999999999999999}"#, "INVALID_INPUT #/name FIELD_TYPE"),
        (r#"{"name":1.5}"#, "INVALID_INPUT #/name FIELD_TYPE"),
        (r#"{"name":false}"#, "INVALID_INPUT #/name FIELD_TYPE"),
        (r#"{"name":[]}"#, "INVALID_INPUT #/name FIELD_TYPE"),
        (r#"{"name":["a"]}"#, "INVALID_INPUT #/name FIELD_TYPE"),
        (r#"{"name":{}}"#, "INVALID_INPUT #/name FIELD_TYPE"),
        (
            r#"{"subscription_id":0,"name":"a","handshake":true}"#,
            "INVALID_INPUT #/subscription_id FIELD_TYPE #/handshake FIELD_TYPE",
        ),
        (
            r#"{"subscription_id":"b","subscriptionId":"b"}"#,
            "INVALID_INPUT #/subscriptionId FIELD_REPEATED",
        ),
        (
            r#"{"subscriptionId":null,"subscription_id":null}"#,
            "INVALID_INPUT #/subscription_id FIELD_REPEATED",
        ),
    ] {
        for strict in [false, true] {
            assert_eq!(told(read_update(body.as_bytes(), 90, strict)), expected, "{body}");
            assert_eq!(told(read_creation(body.as_bytes(), strict)), expected, "{body}");
        }
    }
}

#[test]
fn a_member_that_is_not_updated_is_ignored_or_with_strict_handling_told() {
    for (body, ignoring, strict) in [
        (r#"{"name":"a"}"#, "name=\"a\"", "name=\"a\""),
        (r#"{"Name":"a"}"#, "", "INVALID_INPUT #/Name FIELD_UNKNOWN"),
        (r#"{"NAME":null}"#, "", "INVALID_INPUT #/NAME FIELD_UNKNOWN"),
        (r#"{"subscriptionID":1}"#, "", "INVALID_INPUT #/subscriptionID FIELD_UNKNOWN"),
        (r#"{" name":"a"}"#, "", "INVALID_INPUT #/%20name FIELD_UNKNOWN"),
        (r#"{"etag":"\"3\""}"#, "", "INVALID_INPUT #/etag FIELD_UNKNOWN"),
        (r#"{"writableFields":[]}"#, "", "INVALID_INPUT #/writableFields FIELD_UNKNOWN"),
        (r#"{"":{}}"#, "", "INVALID_INPUT #/ FIELD_UNKNOWN"),
        // Pointers, as RFC 6901 escapes them and a fragment of a URI has them.
        (r#"{"a/b~c":1}"#, "", "INVALID_INPUT #/a~1b~0c FIELD_UNKNOWN"),
        (r#"{"\u00e9\u0000":1}"#, "", "INVALID_INPUT #/%C3%A9%00 FIELD_UNKNOWN"),
        // What is inside of one is told with it.
        (r#"{"x":{"y":1,"name":2}}"#, "", "INVALID_INPUT #/x FIELD_UNKNOWN"),
        (
            r#"{"y":1,"handshake":1,"x":2,"name":"a"}"#,
            "INVALID_INPUT #/handshake FIELD_TYPE",
            "INVALID_INPUT #/handshake FIELD_TYPE #/y FIELD_UNKNOWN #/x FIELD_UNKNOWN",
        ),
    ] {
        let body = body.as_bytes();
        let shown = String::from_utf8_lossy(body);
        for (is_strict, expected) in [(false, ignoring), (true, strict)] {
            assert_eq!(told(read_update(body, 90, is_strict)), expected, "{shown}");
            assert_eq!(told(read_creation(body, is_strict)), expected, "{shown}");
        }
    }
}

#[test]
fn as_many_ignored_members_are_kept_as_a_refusal_lists() {
    for (members, told_of) in [(1, 1), (15, 15), (16, 16), (17, 16), (10_000, 16)] {
        let members: Vec<_> = (0..members).map(|at| format!("\"{at}\":0")).collect();
        let body = format!("{{{}}}", members.join(","));
        let read = read(body.as_bytes(), true).unwrap();
        assert_eq!((read.ignored.len(), read.errors.len()), (told_of, told_of), "{members:?}");
        assert_eq!(told(read_update(body.as_bytes(), 90, false)), "", "{members:?}");
    }
}

#[test]
fn an_id_is_the_number_of_the_path_and_a_creation_has_none() {
    const DIFFERS: &str = "INVALID_INPUT #/id FIELD_IMMUTABLE";
    for (id, path, expected) in [
        ("90", 90, ""),
        // One number in other spellings.
        ("90.0", 90, ""),
        ("9e1", 90, ""),
        ("900E-1", 90, ""),
        ("9007199254740991", 9_007_199_254_740_991, ""),
        ("900719925474099.0", 900_719_925_474_099, ""),
        ("91", 90, DIFFERS),
        ("-90", 90, DIFFERS),
        ("90.5", 90, DIFFERS),
        ("9e2", 90, DIFFERS),
        ("0", 90, DIFFERS),
        ("-0.0", 90, DIFFERS),
        ("\"90\"", 90, DIFFERS),
        ("null", 90, DIFFERS),
        ("true", 90, DIFFERS),
        ("[90]", 90, DIFFERS),
        // As exactly as a float can hold them.
        ("9007199254740991.0", 9_007_199_254_740_991, ""),
        ("9007199254740991.0", 9_007_199_254_740_990, DIFFERS),
        ("90071992547409910e-1", 9_007_199_254_740_991, ""),
        ("7625096206832527.0", 7_625_096_206_832_527, ""),
        ("{\"id\":90}", 90, DIFFERS),
        // Too large for a whole number, of 64 bits with a sign and without, and for a double to hold exactly.
        ("9223372036854775808", i64::MAX, DIFFERS),
        ("18446744073709551616", 90, DIFFERS),
        ("9007199254740992.0", 9_007_199_254_740_992, DIFFERS),
        ("1e300", i64::MAX, DIFFERS),
        ("090", 90, MALFORMED),
        ("90,\"id\":90", 90, REPEATED),
    ] {
        let body = format!("{{\"id\":{id}}}");
        let body = body.as_bytes();
        for strict in [false, true] {
            assert_eq!(told(read_update(body, path, strict)), expected, "{id}");
        }
        let is_json = !matches!(expected, MALFORMED | REPEATED);
        let of_creation = ["", "INVALID_INPUT #/id FIELD_UNKNOWN"];
        for (strict, of_creation) in [false, true].into_iter().zip(of_creation) {
            let expected = if is_json { of_creation } else { expected };
            assert_eq!(told(read_creation(body, strict)), expected, "{id}");
        }
    }
    let all = br#"{"id":7,"x":1,"name":2}"#;
    let expected = "INVALID_INPUT #/name FIELD_TYPE #/x FIELD_UNKNOWN #/id FIELD_IMMUTABLE";
    assert_eq!(told(read_update(all, 90, true)), expected);
}

#[test]
fn a_refusal_says_where_to_look() {
    for (body, place) in [
        ("{\n\"name\" 1}", "line 2, column 8"),
        ("{}\n\nx", "line 3, column 1"),
        ("{\n\"x\":1,\n\"x\":2}", "line 3, column 6"),
        ("{", "line 1, column 1"),
    ] {
        let refused = problem(&read_update(body.as_bytes(), 90, false).unwrap_err());
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains(place), "{body:?}: {detail}");
    }
}
