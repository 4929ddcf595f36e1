//! Fuzzes the mask of an update.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orgd_fuzz::update_mask(bytes));
