#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = csi_gateway::acl::Policy::parse(text);
});
