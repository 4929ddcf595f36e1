//! Fuzzes request messages of the gRPC API.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orgd_fuzz::message(bytes));
