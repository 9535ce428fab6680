//! From when to when a certificate is valid.
//!
//! What verifies certificates keeps their times to itself, and those who run a gateway want to know when theirs ends. So
//! this reads the few bytes of X.509 (RFC 5280 section 4.1) up to them, and nothing else; it decides about no signature.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::domain::time::Timestamp;

/// The times of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const EXPLICIT_VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

impl Validity {
    /// Those of a certificate in DER; `None`: it is none.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let mut certificate = Reader(certificate);
        let mut signed = Reader(Reader(certificate.take(SEQUENCE)?).take(SEQUENCE)?);
        if signed.0.first() == Some(&EXPLICIT_VERSION) {
            signed.take(EXPLICIT_VERSION)?;
        }
        signed.take(INTEGER)?; // serial number
        signed.take(SEQUENCE)?; // algorithm
        signed.take(SEQUENCE)?; // issuer
        let mut times = Reader(signed.take(SEQUENCE)?);
        Some(Self { not_before: times.time()?, not_after: times.time()? })
    }
}

/// What is left of some DER.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The value of the next element, which has to have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&found, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // The long form: so many bytes of length.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (found == tag).then_some(value)
    }

    /// `YYMMDDHHMMSSZ` up to 2049, `YYYYMMDDHHMMSSZ` from then on.
    fn time(&mut self) -> Option<Timestamp> {
        let tag = *self.0.first()?;
        let text = std::str::from_utf8(self.take(tag)?).ok()?.strip_suffix('Z')?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (year, rest) = text.split_at_checked(2)?;
                let year: i16 = number(year)?;
                (if year < 50 { 2000 + year } else { 1900 + year }, rest)
            }
            GENERALIZED_TIME => {
                let (year, rest) = text.split_at_checked(4)?;
                (number(year)?, rest)
            }
            _ => return None,
        };
        if rest.len() != 10 {
            return None;
        }
        let part = |place: usize| number(rest.get(2 * place..2 * place + 2)?)?.try_into().ok();
        let time = DateTime::new(year, part(0)?, part(1)?, part(2)?, part(3)?, part(4)?, 0).ok()?;
        let time = time.to_zoned(TimeZone::UTC).ok()?.timestamp();
        // Years beyond 2262 ("has no end" is 9999) are as far away as a timestamp reaches.
        let nanos = time.as_nanosecond();
        Some(Timestamp(i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })))
    }
}

fn number(text: &str) -> Option<i16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A time for people, RFC 3339 in seconds.
pub(super) fn text(time: Timestamp) -> String {
    jiff::Timestamp::from_second(time.0.div_euclid(1_000_000_000))
        .map_or_else(|_| String::new(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(from: (i32, u8, u8), to: (i32, u8, u8)) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn both_forms_of_times_are_read() {
        let shown = |from, to| Validity::of(&certificate(from, to)).map(|v| (text(v.not_before), text(v.not_after)));
        let expected = Some(("2024-02-29T00:00:00Z".to_owned(), "2049-12-31T00:00:00Z".to_owned()));
        assert_eq!(shown((2024, 2, 29), (2049, 12, 31)), expected);
        let expected = Some(("1975-01-01T00:00:00Z".to_owned(), "2050-01-01T00:00:00Z".to_owned()));
        assert_eq!(shown((1975, 1, 1), (2050, 1, 1)), expected);
        let forever = Validity::of(&certificate((2024, 1, 1), (4096, 1, 1))).expect("a certificate");
        assert_eq!(forever.not_after, Timestamp(i64::MAX));
    }

    #[test]
    fn whatever_is_cut_off_or_something_else_is_no_certificate() {
        let whole = certificate((2024, 1, 1), (2034, 1, 1));
        for length in 0..whole.len() {
            assert_eq!(Validity::of(&whole[..length]), None, "{length} of {} bytes", whole.len());
        }
        for (place, _) in whole.iter().enumerate() {
            let mut bent = whole.clone();
            bent[place] ^= 0xff;
            // It need not be found out here; it must not panic.
            let _ = Validity::of(&bent);
        }
    }
}
