//! A Go duration is refused, or it is a number of nanoseconds that is printed and read back as itself.
#![no_main]

use csi_gateway::domain::duration::parse;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Some(nanos) = parse(text) {
        let again = parse(&format!("{nanos}ns"));
        // The smallest number has no positive twin, and Go reads it with its sign all the same.
        assert_eq!(again, Some(nanos), "{text}");
    }
});
