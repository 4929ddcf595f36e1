//! The JSON of an update's body, held to what `serde_json`'s own tree of the same bytes says.

use orgd::{gateway::update_of_body, proto::v1};
use percent_encoding::percent_decode_str;
use prost_types::FieldMask;
use serde_json::{Map, Value, json};

use super::assert_told_to_anyone;

const ID: i64 = 90;
/// Bytes of a problem at most.
const PROBLEM_BYTES_MAX: usize = 4096;
/// The members that an update knows: their keys and their paths in a mask.
const MEMBERS: [(&str, &str); 4] = [
    ("name", "name"),
    ("subscriptionId", "subscription_id"),
    ("subscription_id", "subscription_id"),
    ("handshake", "handshake"),
];

/// Bytes that are a body, whatever they are.
pub fn json_body(bytes: &[u8]) {
    for strict in [false, true] {
        let tree = serde_json::from_slice::<Value>(bytes).ok();
        let read = update_of_body(bytes, ID, strict);
        let reason = read.as_ref().err().map(|problem| check(problem, tree.as_ref()));
        let Some(tree) = tree else {
            let reason = reason.expect("what is not JSON is refused");
            let reasons = ["BODY_MALFORMED", "BODY_NOT_AN_OBJECT", "KEY_REPEATED"];
            assert!(reasons.contains(&reason.as_str()), "{reason}");
            continue;
        };
        let Value::Object(object) = &tree else {
            assert_eq!(reason.as_deref(), Some("BODY_NOT_AN_OBJECT"));
            continue;
        };
        // Written again, it has no key twice, and nothing but its members decides.
        let expected = expected(object, strict);
        let again = update_of_body(tree.to_string().as_bytes(), ID, strict);
        let again = again.map_err(|problem| check(&problem, Some(&tree)));
        assert_eq!(again, expected.clone().ok_or_else(|| "INVALID_INPUT".to_owned()));
        match read {
            Ok(message) => {
                assert_eq!(Some(&message), expected.as_ref());
                let written = written(&message).to_string();
                assert_eq!(update_of_body(written.as_bytes(), ID, strict), Ok(message));
            }
            Err(_) if reason.as_deref() == Some("KEY_REPEATED") => {}
            Err(_) => assert_eq!((reason.as_deref(), expected), (Some("INVALID_INPUT"), None)),
        }
    }
}

/// The message of an object; none: it is to be refused.
fn expected(object: &Map<String, Value>, strict: bool) -> Option<v1::UpdateOrganizationRequest> {
    // One number, however it is written.
    let own = [json!(90), json!(90.0)];
    if !object.get("id").is_none_or(|id| own.contains(id)) {
        return None;
    }
    let is_known = |key: &String| key == "id" || MEMBERS.iter().any(|(known, _)| known == key);
    if strict && !object.keys().all(is_known) {
        return None;
    }
    let mut organization = v1::Organization { id: ID, ..v1::Organization::default() };
    let mut paths: Vec<String> = Vec::new();
    for (key, path) in MEMBERS {
        let value = match object.get(key) {
            None => continue,
            Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => return None,
        };
        if paths.iter().any(|earlier| earlier == path) {
            return None;
        }
        match path {
            "name" => organization.name = value,
            "subscription_id" => organization.subscription_id = value,
            "handshake" => organization.handshake = value,
            other => panic!("{other} is not a field"),
        }
        paths.push(path.to_owned());
    }
    Some(v1::UpdateOrganizationRequest {
        organization: Some(organization),
        update_mask: Some(FieldMask { paths }),
        ..v1::UpdateOrganizationRequest::default()
    })
}

/// The body that asks for what a message does.
fn written(message: &v1::UpdateOrganizationRequest) -> Value {
    let organization = message.organization.as_ref().expect("an update names an organization");
    let paths = &message.update_mask.as_ref().expect("an update of REST has a mask").paths;
    let members = paths.iter().map(|path| match path.as_str() {
        "name" => ("name".to_owned(), json!(organization.name)),
        "subscription_id" => ("subscriptionId".to_owned(), json!(organization.subscription_id)),
        "handshake" => ("handshake".to_owned(), json!(organization.handshake)),
        other => panic!("{other} is not a field"),
    });
    Value::Object(members.collect())
}

/// Checks a problem as its caller reads it, and answers its reason.
fn check(problem: &str, tree: Option<&Value>) -> String {
    assert!(problem.len() <= PROBLEM_BYTES_MAX, "{} bytes", problem.len());
    let problem: Value = serde_json::from_str(problem).expect("a problem is JSON");
    assert_eq!(problem["status"], 400);
    assert_eq!(problem["code"], "INVALID_ARGUMENT");
    assert_told_to_anyone(problem["detail"].as_str().expect("a problem has a detail"), b"");
    let reason = problem["reason"].as_str().expect("a problem has a reason");
    let errors = problem["errors"].as_array();
    assert_eq!(errors.is_some(), reason == "INVALID_INPUT", "{problem}");
    for error in errors.into_iter().flatten() {
        assert_told_to_anyone(error["detail"].as_str().expect("an error has a detail"), b"");
        let pointer = error["pointer"].as_str().expect("an error of a body has a pointer");
        let key = pointer.strip_prefix("#/").expect("a pointer is a fragment");
        assert!(key.bytes().all(|byte| byte.is_ascii_graphic()), "{pointer}");
        let key = percent_decode_str(key).decode_utf8().expect("a key is UTF-8");
        let key = key.replace("~1", "/").replace("~0", "~");
        // The first characters of a key that was sent.
        let object = tree.and_then(Value::as_object).expect("a member of an object is at fault");
        let is_sent = object.keys().any(|sent| sent.chars().take(32).eq(key.chars()));
        assert!(is_sent, "{key:?} is not in the body");
    }
    reason.to_owned()
}
