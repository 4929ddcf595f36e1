//! What docs/API.md fixes to the byte: the headers of every answer, and the two worked examples.

use orgd::domain::Field;

use super::{ADMINISTRATOR, Answer, FOREIGN, OWN, Service, USER};

/// The headers of every answer, in the order of docs/API.md.
pub const DOCUMENTED_HEADERS: [(&str, &str); 12] = [
    ("Access-Control-Expose-Headers", "authorization, content-type"),
    ("Access-Control-Allow-Headers", "authorization, content-type"),
    ("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS, PUT"),
    ("Access-Control-Allow-Origin", "*"),
    ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-XSS-Protection", "1; mode=block"),
    (
        "Content-Security-Policy",
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("Feature-Policy", "self"),
    ("Permissions-policy", "interest-cohort=()"),
];

pub fn assert_documented_headers(answer: &Answer) {
    for (name, value) in DOCUMENTED_HEADERS {
        assert_eq!(answer.header(name), Some(value), "{name} of {answer:?}");
    }
}

/// Sends both examples, with and without a Content-Type, and checks every byte that docs/API.md fixes.
pub async fn assert_examples(service: &Service) {
    for (id, token, name) in
        [(OWN, USER, "Custom Name"), (FOREIGN, ADMINISTRATOR, "Enterprise Org")]
    {
        let body = format!("{{\n\"name\": \"{name}\"\n}}");
        let typed = service.put(id, token, &body);
        let untyped = service.put(id, token, &body).without_header("content-type");
        for request in [typed, untyped] {
            let answer = request.send().await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
            assert_eq!(answer.text(), format!("{{\"id\": {id}}}"));
            assert_documented_headers(&answer);
            assert_eq!(answer.header("etag"), None, "RFC 9110 §9.3.4");
        }
        let stored = service.database().organization(id).await;
        assert_eq!(stored.value(Field::Name), Some(name));
        assert_eq!(stored.etag.version(), 2, "the second, equal update writes nothing");
    }
}
