//! Every setting at its extremes: a service starts with it or is refused with a sentence.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;

use crate::harness::{ANY_PORT, Database, OWN, Service, USER, orgd_with};

/// A setting of which `orgd config` has a value.
struct Setting {
    flag: String,
    value: String,
}

fn settings() -> Vec<Setting> {
    let printed = orgd_with(&[], "config").stdout;
    let lines = printed.lines().filter(|line| !line.starts_with("# The "));
    let setting = |line: &str| {
        let line = line.trim_start_matches("# ");
        let (key, value) = line.split_once([' ', ':'])?;
        let is_key = key.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
        let value = value.trim_start_matches("= ").split("  # ").next()?.trim_matches('"');
        let is_setting = is_key && (line.contains("  # ") || line.ends_with("not set"));
        is_setting.then(|| Setting {
            flag: format!("--{}", key.replace('_', "-")),
            value: value.to_owned(),
        })
    };
    let settings: Vec<_> = lines.filter_map(setting).collect();
    assert!(settings.len() > 35, "{}: {printed}", settings.len());
    settings
}

impl Setting {
    /// Why a value is refused, in a sentence; nothing where it is taken.
    fn refusal(&self, value: &str) -> Option<String> {
        let asked = orgd_with(&[], &format!("config {}={value}", self.flag));
        assert!(!asked.stderr.contains("panicked"), "{}={value}: {}", self.flag, asked.stderr);
        if asked.code == 0 {
            return None;
        }
        assert_eq!(asked.code, 2, "{}={value}: {}", self.flag, asked.stderr);
        let about = format!("for '{} <", self.flag);
        assert!(asked.stderr.starts_with("error: "), "{}", asked.stderr);
        assert!(asked.stderr.contains(&about), "{about}: {}", asked.stderr);
        Some(asked.stderr)
    }

    fn is_number(&self) -> bool {
        self.value.parse::<u64>().is_ok() && self.flag != "--trace-sample-ratio"
    }

    fn is_time(&self) -> bool {
        humantime::parse_duration(&self.value).is_ok() && !self.is_number()
    }

    /// The smallest and the largest value that are taken.
    fn extremes(&self) -> [String; 2] {
        if self.is_time() {
            let is_none_taken = self.refusal("0s").is_none();
            let values = [if is_none_taken { "0s" } else { "1ms" }, "1day"];
            for value in ["1ms", "1day"] {
                assert_eq!(self.refusal(value), None, "{}={value}", self.flag);
            }
            for value in [
                "1ns",
                "999us",
                "86400001ms",
                "1month",
                "1year",
                "1000y",
                "584542046090y",
                "18446744073709551615s",
                "99999999999999999999s",
                "-1s",
                "1",
                "s",
                "",
            ] {
                assert!(self.refusal(value).is_some(), "{}={value}", self.flag);
            }
            return values.map(str::to_owned);
        }
        for value in ["-1", "", "1e3", "0x10", "1.5", "18446744073709551616", "٣"] {
            assert!(self.refusal(value).is_some(), "{}={value}", self.flag);
        }
        // A refusal of a number says from where to where, of one that is not too large to be read.
        let bound = |values: &[u64], side: usize| {
            let mut refusals = values.iter().map(|value| self.refusal(&value.to_string()));
            let Some(refusal) = refusals.next().flatten() else { return values[0] };
            let refusal = std::iter::once(refusal).chain(refusals.flatten());
            let refusal = refusal.collect::<Vec<_>>().join("\n");
            let (_, range) = refusal.split_once(" is not in ").expect("a range");
            let bound = range.lines().next().unwrap().split("..").nth(side).unwrap();
            bound.trim_start_matches('=').parse().unwrap()
        };
        let [smallest, largest] = [bound(&[0], 0), bound(&[u64::MAX, u64::MAX / 2], 1)];
        for beyond in [smallest.checked_sub(1), largest.checked_add(1)].into_iter().flatten() {
            assert!(self.refusal(&beyond.to_string()).is_some(), "{}={beyond}", self.flag);
        }
        for value in [smallest, largest] {
            assert_eq!(self.refusal(&value.to_string()), None, "{}={value}", self.flag);
        }
        [smallest, largest].map(|value| value.to_string())
    }
}

const LISTEN: [&str; 4] = ["--http-addr", ANY_PORT, "--ops-addr", ANY_PORT];

#[tokio::test]
async fn a_service_starts_with_every_setting_at_its_extremes_or_says_why_not() {
    let database = Database::sqlite();
    database.seed().await;
    let serve = |words: &[String]| {
        let words = words.iter().map(String::as_str);
        let words: Vec<_> =
            ["serve", "--grpc-addr", ANY_PORT].into_iter().chain(LISTEN).chain(words).collect();
        Service::try_spawn(&words, &[("ORGD_DATABASE_URL", database.url())])
    };
    let mut count = 0;
    for setting in settings() {
        if !setting.is_number() && !setting.is_time() {
            continue;
        }
        for value in setting.extremes() {
            count += 1;
            let word = format!("{}={value}", setting.flag);
            match serve(std::slice::from_ref(&word)) {
                Ok(service) => {
                    // Refused or closed is an answer too: some of these limits no request can keep.
                    let put = service.put(OWN, USER, r#"{"name": "Extreme"}"#).send();
                    let put = AssertUnwindSafe(put).catch_unwind();
                    let _ = tokio::time::timeout(Duration::from_secs(10), put).await;
                    service.signal("TERM");
                    service.until_logged("stopping").await;
                    service.signal("TERM");
                    let log = service.log();
                    assert!(!log.contains("panicked") && !log.contains("failed"), "{word}: {log}");
                    assert!(service.ended().await.success(), "{word}");
                }
                Err(log) => {
                    let sentence = log.lines().last().unwrap_or_default();
                    assert!(sentence.starts_with("error: "), "{word}: {log}");
                    assert!(!log.contains("panicked"), "{word}: {log}");
                }
            }
        }
    }
    assert!(count >= 50, "{count} extremes");
}

#[test]
fn invalid_numbers_and_times_are_refused_in_a_sentence() {
    let odd = ["", " ", "-", "\u{7f}", "∞", "..", "99999999999999999999", "a=b", "[", "\\"];
    for setting in settings() {
        // The names of files and of headers, and secrets.
        let is_free = ["--tls-cert", "--tls-key", "--config", "--database-url", "--token"];
        let is_file = ["-ca", "-file", "-headers"].iter().any(|end| setting.flag.ends_with(end));
        if is_file || is_free.contains(&setting.flag.as_str()) {
            continue;
        }
        let refused = odd.iter().filter(|value| !value.contains(' '));
        let refused = refused.filter(|value| setting.refusal(value).is_some()).count();
        // Nothing is a value of these: there is no receiver of traces, no proxy, and no origin beside all.
        let is_list = ["--otlp-endpoint", "--trusted-proxies", "--cors-origins"];
        let is_list = is_list.contains(&setting.flag.as_str());
        let taken = usize::from(is_list);
        assert_eq!(refused + taken, odd.len() - 1, "{}", setting.flag);
    }
}
