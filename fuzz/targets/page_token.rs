//! Fuzzes page tokens.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orgd_fuzz::page_token(bytes));
