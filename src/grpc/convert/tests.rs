//! What masks, etags and keys mean.

use super::*;

const NONE: &[&str] = &[];

/// A message with a name, a subscription that is set to an empty text, and no handshake.
fn message() -> v1::Organization {
    v1::Organization {
        id: 90,
        name: Some("a".to_owned()),
        subscription_id: Some(String::new()),
        ..v1::Organization::default()
    }
}

fn mask(paths: &[&str]) -> FieldMask {
    FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }
}

/// The paths and the reasons of the rules that a call broke.
fn broken<T>(result: Result<T>) -> Vec<(String, &'static str)> {
    match result {
        Ok(_) => Vec::new(),
        Err(Error::Invalid(violations)) => {
            violations.into_iter().map(|one| (one.path.into_owned(), one.reason)).collect()
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_mask_names_the_fields_that_are_set_and_those_that_are_cleared() {
    let (name, empty) = (|| Change::Set("a".to_owned()), || Change::Set(String::new()));
    let none = || [Change::Keep, Change::Keep, Change::Keep];
    let whole = || [name(), empty(), Change::Clear];
    let all_set = || [name(), empty(), Change::Keep];
    let name_alone = || [name(), Change::Keep, Change::Keep];
    let subscription_alone = || [Change::Keep, empty(), Change::Keep];
    for (paths, expected) in [
        (NONE, all_set()),
        (&["name"], name_alone()),
        (&["name", "name", "name"], name_alone()),
        (&["subscription_id"], subscription_alone()),
        (&["subscriptionId"], subscription_alone()),
        (&["subscriptionId", "subscription_id"], subscription_alone()),
        (&["handshake"], [Change::Keep, Change::Keep, Change::Clear]),
        (&["handshake", "name"], [name(), Change::Keep, Change::Clear]),
        (&["handshake", "subscription_id", "name"], whole()),
        (&["*"], whole()),
        // A mask is a set.
        (&["*", "*"], whole()),
        // Output-only fields name nothing, which is another thing than to say nothing.
        (&["id"], none()),
        (&["id", "date_created", "date_modified", "etag", "writable_fields"], none()),
        (&["etag", "etag"], none()),
        (&["etag", "name", "id"], name_alone()),
    ] {
        let patch = patch(message(), Some(mask(paths))).unwrap();
        assert!(patch.each().map(|(_, change)| change).eq(&expected), "{paths:?}: {patch:?}");
    }
    let without = patch(message(), None).unwrap();
    assert!(without.each().map(|(_, change)| change).eq(&all_set()), "{without:?}");
    let empty = patch(v1::Organization::default(), None).unwrap();
    assert!(empty.is_empty(), "{empty:?}");
}

#[test]
fn a_mask_has_the_paths_of_fields_or_the_wildcard_alone() {
    use reason::{MASK_PATH_UNKNOWN as UNKNOWN, MASK_WILDCARD_NOT_ALONE as NOT_ALONE};
    let long = "name".repeat(10_000);
    for (paths, expected) in [
        (&["*", "name"][..], &[NOT_ALONE][..]),
        (&["name", "*"], &[NOT_ALONE]),
        (&["*", "etag"], &[NOT_ALONE]),
        (&["*", "x", ""], &[NOT_ALONE]),
        (&["*", " *"], &[NOT_ALONE]),
        (&["**"], &[UNKNOWN]),
        (&[" *"], &[UNKNOWN]),
        (&["*.name"], &[UNKNOWN]),
        (&["\u{ff0a}"], &[UNKNOWN]),
        (&[""], &[UNKNOWN]),
        (&[" "], &[UNKNOWN]),
        (&["x"], &[UNKNOWN]),
        (&["nam"], &[UNKNOWN]),
        (&["names"], &[UNKNOWN]),
        (&[" name"], &[UNKNOWN]),
        (&["name "], &[UNKNOWN]),
        (&["name\0"], &[UNKNOWN]),
        (&["\tname\n"], &[UNKNOWN]),
        (&["name,handshake"], &[UNKNOWN]),
        (&["Name"], &[UNKNOWN]),
        (&["NAME"], &[UNKNOWN]),
        (&["subscriptionID"], &[UNKNOWN]),
        (&["SubscriptionId"], &[UNKNOWN]),
        (&["subscription-id"], &[UNKNOWN]),
        // Nested, or from above.
        (&["name.first"], &[UNKNOWN]),
        (&["name."], &[UNKNOWN]),
        (&[".name"], &[UNKNOWN]),
        (&["name.*"], &[UNKNOWN]),
        (&["organization.name"], &[UNKNOWN]),
        (&["organization"], &[UNKNOWN]),
        (&["date_created.seconds"], &[UNKNOWN]),
        // What is put out has the proto's spelling alone.
        (&["dateCreated"], &[UNKNOWN]),
        (&["writableFields"], &[UNKNOWN]),
        (&["ID"], &[UNKNOWN]),
        // Letters of other scripts that look alike, and a mark that is not seen.
        (&["n\u{430}me"], &[UNKNOWN]),
        (&["\u{feff}name"], &[UNKNOWN]),
        (&[&long], &[UNKNOWN]),
        // All of them are told, and only they.
        (&["x", "name", "y", "id", ""], &[UNKNOWN, UNKNOWN, UNKNOWN]),
    ] {
        let expected = expected.iter().map(|reason| ("update_mask".to_owned(), *reason));
        let broken = broken(patch(message(), Some(mask(paths))));
        assert!(expected.eq(broken.iter().cloned()), "{paths:?}: {broken:?}");
    }
}

#[test]
fn an_unknown_path_is_shown_short_and_in_ascii() {
    let long = "x".repeat(48);
    for (path, shown) in [
        ("", ""),
        ("nam", "nam"),
        ("a\"b\\c'", r#"a\"b\\c\'"#),
        ("\n\0\u{7f}", r"\n\u{0}\u{7f}"),
        ("n\u{e4}me\u{202e}", r"n\u{e4}me\u{202e}"),
        (&long, &long),
        (&format!("{long}y"), &long),
        (&"\u{1f600}".repeat(10_000), r"\u{1f600}".repeat(6).split_at(48).0),
    ] {
        let expected = format!(
            "\"{shown}\" is not a field. The fields are name, subscription_id and handshake."
        );
        assert_eq!(unknown_path(path), expected);
    }
}

#[test]
fn an_etag_names_a_version_or_none_that_an_organization_can_have() {
    for (tag, expected) in [
        ("", None),
        ("\"1\"", Some(1)),
        ("\"3\"", Some(3)),
        ("\"9223372036854775807\"", Some(i64::MAX)),
        ("\"9223372036854775808\"", Some(0)),
        ("\"0\"", Some(0)),
        ("\"-3\"", Some(0)),
        ("\"03\"", Some(0)),
        ("\"\"", Some(0)),
        ("\"", Some(0)),
        (" ", Some(0)),
        ("3", Some(0)),
        ("'3'", Some(0)),
        ("W/\"3\"", Some(0)),
        // As in a list of several.
        (" \"3\"", Some(3)),
        ("\"3\"\n", Some(3)),
        ("\"\u{663}\"", Some(0)),
        ("*", Some(0)),
        // Of several the condition is met before, and says which one is to be there.
        ("\"3\",\"5\"", Some(0)),
        ("!\"3\"", Some(0)),
    ] {
        assert_eq!(etag(tag), expected.map(Etag::from_version), "{tag:?}");
    }
}

#[test]
fn a_refusal_says_which_tags_can_never_match() {
    use reason::{ETAG_MALFORMED as MALFORMED, ETAG_MISMATCH as MISMATCH, ETAG_WEAK as WEAK};
    let current = Etag::from_version(7);
    for (tag, expected) in [
        ("\"3\"", MISMATCH),
        // Quoted as ours are, so it may have been one.
        ("\"0\"", MISMATCH),
        ("\"03\"", MISMATCH),
        ("\"\"", MISMATCH),
        ("\"3\",\"5\"", MISMATCH),
        ("\"3\" ,\t\"5\"", MISMATCH),
        ("3", MALFORMED),
        ("\"", MALFORMED),
        ("\"3", MALFORMED),
        ("3\"", MALFORMED),
        ("'3'", MALFORMED),
        ("\u{201c}3\u{201d}", MALFORMED),
        ("*", MALFORMED),
        (" ", MALFORMED),
        (",", MALFORMED),
        ("\"3\",", MALFORMED),
        ("\"3\", 5", MALFORMED),
        ("w/\"3\"", MALFORMED),
        // A quote inside, and what is weak and no tag (RFC 9110 §8.8.3).
        ("\"3\"5\"", MALFORMED),
        ("\"\"\"", MALFORMED),
        ("W/3", MALFORMED),
        ("W/", MALFORMED),
        ("W/\"3", MALFORMED),
        ("W/W/\"3\"", MALFORMED),
        (" \"3\"", MISMATCH),
        ("W\\\"3\"", MALFORMED),
        ("W/\"3\"", WEAK),
        ("\"3\", W/\"5\"", WEAK),
        ("W/\"3\",W/\"5\"", WEAK),
        ("W/\"3\", 5", MALFORMED),
        // It has one of the tags, which is no fault of theirs.
        ("!\"3\"", MISMATCH),
        ("!W/\"3\"", MISMATCH),
        ("!3, \"7\"", MISMATCH),
        ("!", MISMATCH),
    ] {
        let told = match refusal(tag, Error::EtagMismatch { current }) {
            Error::EtagMismatch { current } => (MISMATCH, current),
            Error::EtagWeak { current } => (WEAK, current),
            Error::EtagMalformed { current } => (MALFORMED, current),
            other => panic!("{other}"),
        };
        assert_eq!(told, (expected, current), "{tag:?}");
        // Any other refusal is what it was.
        let other = refusal(tag, Error::ForbiddenOrganization);
        assert!(matches!(other, Error::ForbiddenOrganization), "{tag:?}: {other}");
    }
}

#[test]
fn a_request_s_id_is_a_uuid_with_hyphens_in_any_case() {
    const KEY: &str = "0b8d3c5e-7f21-4a69-9c04-5d1e2f3a4b5c";
    const NIL: &str = "00000000-0000-0000-0000-000000000000";
    for (text, expected) in [
        ("", Ok(None)),
        (KEY, Ok(Some(KEY))),
        ("0B8D3C5E-7F21-4a69-9C04-5D1E2F3A4B5C", Ok(Some(KEY))),
        (NIL, Ok(Some(NIL))),
        ("0b8d3c5e7f214a699c045d1e2f3a4b5c", Err(())),
        ("{0b8d3c5e-7f21-4a69-9c04-5d1e2f3a4b5c}", Err(())),
        ("urn:uuid:0b8d3c5e-7f21-4a69-9c04-5d1e2f3a4b5c", Err(())),
        ("\"0b8d3c5e-7f21-4a69-9c04-5d1e2f3a4b5c\"", Err(())),
        (" 0b8d3c5e-7f21-4a69-9c04-5d1e2f3a4b5c", Err(())),
        ("0b8d3c5e-7f21-4a69-9c04-5d1e2f3a4b5 ", Err(())),
        ("0b8d3c5e-7f21-4a69-9c04-5d1e2f3a4b5", Err(())),
        ("0b8d3c5e-7f21-4a69-9c04-5d1e2f3a4b5c0", Err(())),
        ("0b8d3c5e-7f21-4a69-9c04-5d1e2f3a4b5g", Err(())),
        ("0b8d3c5-e7f21-4a69-9c04-5d1e2f3a4b5c", Err(())),
        ("0b8d3c5e_7f21_4a69_9c04_5d1e2f3a4b5c", Err(())),
        // 36 bytes, of which two are one letter.
        ("\u{e9}8d3c5e-7f21-4a69-9c04-5d1e2f3a4b5c", Err(())),
        (" ", Err(())),
        ("-", Err(())),
    ] {
        let key = idempotency_key(text);
        let rules = [("request_id".to_owned(), reason::IDEMPOTENCY_KEY_MALFORMED)];
        match expected {
            Ok(expected) => assert_eq!(key.unwrap().as_deref(), expected, "{text}"),
            Err(()) => assert_eq!(broken(key), rules, "{text}"),
        }
    }
}
