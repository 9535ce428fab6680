//! Durations as Go writes and reads them: `30s`, `1m30s`, `1.5h`.
//!
//! Nomad's `wait` parameter and the sidecars' flags are Go durations, and no crate reads them as Go does.

/// Largest magnitude on the way: that of the most negative duration.
const MAGNITUDE: u64 = 1 << 63;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A Go duration in nanoseconds, with every corner of `time.ParseDuration`.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (part, after) = duration_part(rest)?;
        total = total.checked_add(part).filter(|&sum| sum <= MAGNITUDE)?;
        rest = after;
    }
    if is_negative { 0_i64.checked_sub_unsigned(total) } else { i64::try_from(total).ok() }
}

/// One number with its unit, and what follows. Takes at least one byte, so its caller comes to an end.
fn duration_part(text: &str) -> Option<(u64, &str)> {
    let (whole, after) = digits(text);
    let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
    let (unit, after) = after.split_at(end);
    let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let whole = whole.checked_mul(unit).filter(|&value| value <= MAGNITUDE)?;
    let total = whole.checked_add(fraction_of(fraction, unit))?;
    (total <= MAGNITUDE).then_some((total, after))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// The fraction of a unit. Go calculates in floating point and drops the digits that no longer fit; so do we.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as Go")]
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u64, 1_f64);
    for digit in digits.bytes() {
        let next = value.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(digit - b'0')));
        match next.filter(|&next| value <= (MAGNITUDE - 1) / 10 && next <= MAGNITUDE) {
            Some(next) => (value, scale) = (next, scale * 10.0),
            None => break,
        }
    }
    (value as f64 * (unit as f64 / scale)) as u64
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn durations_are_those_of_go() {
        const S: i64 = 1_000_000_000;
        let good: [(&str, i64); 45] = [
            ("0", 0),
            ("-0", 0),
            ("+0", 0),
            ("0s", 0),
            ("5s", 5 * S),
            ("30s", 30 * S),
            ("1478s", 1478 * S),
            ("-5s", -5 * S),
            ("+5s", 5 * S),
            ("5.0s", 5 * S),
            ("5.6s", 5 * S + 600_000_000),
            ("5.s", 5 * S),
            ("1.s", S),
            (".5s", S / 2),
            ("-.5s", -S / 2),
            ("+.5s", S / 2),
            ("1.0s", S),
            ("1.00s", S),
            ("1.004s", S + 4_000_000),
            ("1.0040s", S + 4_000_000),
            ("100.00100s", 100 * S + 1_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s", 12_000),
            ("13ms", 13_000_000),
            ("14s", 14 * S),
            ("15m", 900 * S),
            ("16h", 57_600 * S),
            ("3h30m", 12_600 * S),
            ("10.5s4m", 250 * S + S / 2),
            ("-2m3.4s", -(123 * S + 400_000_000)),
            ("1h2m3s4ms5us6ns", 3_723 * S + 4_005_006),
            ("39h9m14.425s", 140_954 * S + 425_000_000),
            ("-1.5h", -5_400 * S),
            ("52763797000ns", 52_763_797_000),
            ("0.3333333333333333333h", 1_200 * S),
            ("9007199254740993ns", 9_007_199_254_740_993),
            ("9223372036854775807ns", i64::MAX),
            ("9223372036854775.807us", i64::MAX),
            ("9223372036s854ms775us807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("-9223372036854775.808us", i64::MIN),
            ("0.100000000000000000000h", 360 * S),
            ("0.830103483285477580700h", 2_988_372_539_827),
        ];
        for (text, nanos) in good {
            assert_eq!(parse(text), Some(nanos), "{text}");
        }
        let bad = [
            "",
            "3",
            "-",
            "+",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "1d",
            "3 s",
            " 5s",
            "5s ",
            "--5s",
            "+-5s",
            "5S",
            "1e3s",
            "1_0s",
            "0x1s",
            "1h 2m",
            "\u{661}s",
            "1\u{3bc}",
            "00",
            "9223372036854775810ns",
            "9223372036854775808ns",
            "-9223372036854775809ns",
            "9223372036854776us",
            "3000000h",
            "9223372036854775.808us",
            "9223372036854ms775us808ns",
            "18446744073709551616ns",
            "99999999999999999999999999h",
            "inf",
            "PT5S",
        ];
        for text in bad {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_duration_written_in_nanoseconds_reads_as_itself(nanos: i64) {
            proptest::prop_assert_eq!(parse(&format!("{nanos}ns")), Some(nanos));
        }
    }
}
