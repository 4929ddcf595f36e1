//! Fuzzes the JSON of a request's body.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orgd_fuzz::json_body(bytes));
