#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| csi_gateway::api::fuzzing::path(bytes));
