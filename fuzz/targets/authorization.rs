//! Fuzzes the Authorization header.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orgd_fuzz::authorization(bytes));
