//! Nomad's workload identities: who a task is, by a token that Nomad has signed.
//!
//! Signatures are jsonwebtoken's business, on the crypto that hashes secrets; here stands what is believed of a claim.
//! The key decides about the algorithm, never the token: `none`, HMAC with a public key and their kin are refused before
//! anything is computed. Unlike Nomad's servers nobody here knows whether the allocation still runs, so what ends an
//! identity is its own `exp`, or its key's going.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use crate::domain::text::escaped;
use crate::domain::time::Timestamp;

/// Longest token that is looked at, in bytes: Nomad's have less than two thousand.
const LONGEST: usize = 8 << 10;
/// How far clocks may be apart, in seconds; Nomad's own.
const LEEWAY: i64 = 60;
/// Most keys of a set. Nomad has a handful.
const MOST_KEYS: usize = 256;

/// A key that identities are signed with.
pub(super) struct Key {
    /// As it came, to be told from others.
    jwk: Jwk,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl Key {
    fn of(jwk: Jwk) -> Option<Self> {
        let algorithm = match (&jwk.algorithm, jwk.common.key_algorithm) {
            (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
            (AlgorithmParameters::OctetKeyPair(pair), None | Some(KeyAlgorithm::EdDSA))
                if pair.curve == EllipticCurve::Ed25519 =>
            {
                Algorithm::EdDSA
            }
            _ => return None,
        };
        let is_for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let decoding = DecodingKey::from_jwk(&jwk).ok().filter(|_| is_for_signatures)?;
        Some(Self { jwk, algorithm, decoding })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.algorithm)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.jwk == other.jwk
    }
}

/// Keys by their ids.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Keys(HashMap<Box<str>, Arc<Key>>);

#[derive(Deserialize)]
struct Written {
    /// One by one: a set may hold keys of kinds that are none of ours.
    keys: Vec<serde_json::Value>,
}

impl Keys {
    /// Reads a JSON Web Key Set. What is no key for RS256 or EdDSA with an id is passed over.
    ///
    /// # Errors
    /// It is no such set.
    pub(super) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let written: Written = serde_json::from_slice(text)?;
        let mut keys = HashMap::new();
        for value in written.keys.into_iter().take(MOST_KEYS) {
            let Ok(jwk) = serde_json::from_value::<Jwk>(value) else { continue };
            let Some(id) = jwk.common.key_id.clone().filter(|id| !id.is_empty()) else { continue };
            if let Some(key) = Key::of(jwk) {
                keys.insert(id.into_boxed_str(), Arc::new(key));
            }
        }
        Ok(Self(keys))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether an identity's key is still one of them.
    pub(super) fn have(&self, identity: &Identity) -> bool {
        self.0.get(&identity.key_id).is_some_and(|key| *key == identity.key)
    }

    /// Who a token says that its bearer is.
    ///
    /// # Errors
    /// It is not to be believed, and why.
    pub(super) fn verify(&self, token: &[u8], audiences: &[String], now: Timestamp) -> Result<Identity, Fault> {
        if token.len() > LONGEST {
            return Err(Fault::Malformed);
        }
        // What names no algorithm that exists (`none` does not) is no header.
        let header = decode_header(token).map_err(|_| Fault::Malformed)?;
        let id = header.kid.filter(|id| !id.is_empty()).ok_or(Fault::NoKeyId)?;
        let key = self.0.get(&*id).ok_or(Fault::UnknownKey)?;
        if header.alg != key.algorithm {
            return Err(Fault::Signature);
        }
        let mut validation = Validation::new(key.algorithm);
        // Claims are looked at below: by the time of whoever asks, and where some may be missing.
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        validation.required_spec_claims.clear();
        let claims = decode::<Claims>(token, &key.decoding, &validation).map_err(|error| {
            use jsonwebtoken::errors::ErrorKind;
            match error.kind() {
                ErrorKind::Json(_) | ErrorKind::Utf8(_) => Fault::NotWorkload,
                _ => Fault::Signature,
            }
        })?;
        let claims = claims.claims;
        if claims.nbf.is_some_and(|begin| now < begin.with(-LEEWAY)) {
            return Err(Fault::NotYet);
        }
        let expires = claims.exp.map(|end| end.with(LEEWAY));
        if expires.is_some_and(|end| end <= now) {
            return Err(Fault::Expired);
        }
        if !claims.aud.iter().any(|audience| audiences.contains(audience)) {
            return Err(Fault::Audience);
        }
        let text = |text: Option<String>| text.filter(|text| !text.is_empty()).map(String::into_boxed_str);
        let namespace = text(claims.nomad_namespace).ok_or(Fault::NotWorkload)?;
        let job = text(claims.nomad_job_id).ok_or(Fault::NotWorkload)?;
        let group = claims.sub.as_deref().and_then(|subject| group_of(subject, &namespace, &job)).map(Box::from);
        let task = text(claims.nomad_task);
        Ok(Identity { namespace, job, group, task, expires, key_id: id.into_boxed_str(), key: Arc::clone(key) })
    }
}

/// The group stands in the subject only: `REGION:NAMESPACE:JOB:GROUP:TASK:IDENTITY`, of which a job's id may hold colons.
fn group_of<'a>(subject: &'a str, namespace: &str, job: &str) -> Option<&'a str> {
    let (_, rest) = subject.split_once(':')?;
    let rest = rest.strip_prefix(namespace)?.strip_prefix(':')?.strip_prefix(job)?.strip_prefix(':')?;
    rest.split(':').next().filter(|group| !group.is_empty())
}

/// What Nomad says of a task.
#[derive(Deserialize)]
struct Claims {
    nomad_namespace: Option<String>,
    nomad_job_id: Option<String>,
    nomad_task: Option<String>,
    sub: Option<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    aud: Vec<String>,
    exp: Option<Seconds>,
    nbf: Option<Seconds>,
}

/// Seconds since 1970, perhaps with a fraction.
#[derive(Clone, Copy, Deserialize)]
struct Seconds(f64);

impl Seconds {
    fn with(self, seconds: i64) -> Timestamp {
        // Far beyond what fits is as good as the end of what does: the cast saturates.
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds are meant")]
        Timestamp((self.0 as i64).saturating_add(seconds).saturating_mul(1_000_000_000))
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(OneOrMany::One(one)) => vec![one],
        Some(OneOrMany::Many(many)) => many,
    })
}

/// A task of Nomad's that proved who it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    pub(super) namespace: Box<str>,
    pub(super) job: Box<str>,
    /// `None`: its subject does not say.
    pub(super) group: Option<Box<str>>,
    /// `None`: a service's identity.
    pub(super) task: Option<Box<str>>,
    /// When it ends, leeway included; `None`: with its key.
    pub(super) expires: Option<Timestamp>,
    key_id: Box<str>,
    key: Arc<Key>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = self.task.as_deref().unwrap_or("-");
        write!(f, "identity of {}/{}/{}", escaped(&self.namespace), escaped(&self.job), escaped(task))
    }
}

/// Why an identity is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is no signed token.
    Malformed,
    /// It does not say which key it was signed with.
    NoKeyId,
    /// It was signed with a key that is not known.
    UnknownKey,
    /// The signature is not its key's.
    Signature,
    /// It is nobody's who runs a task.
    NotWorkload,
    /// It is for somebody else.
    Audience,
    /// It begins later.
    NotYet,
    /// It has ended.
    Expired,
}

impl Fault {
    /// As it is logged.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "what was sent is no token",
            Self::NoKeyId => "the identity does not name its key",
            Self::UnknownKey => "the identity was signed with a key that --acl-jwks does not have",
            Self::Signature => "the identity's signature is wrong",
            Self::NotWorkload => "the identity is not one of a workload",
            Self::Audience => "the identity is for another audience than --acl-jwt-audience",
            Self::NotYet => "the identity is not valid yet",
            Self::Expired => "the identity has expired",
        }
    }

    /// As Nomad tells whoever asks about a token (`nomad-http.md` section 24).
    #[must_use]
    pub fn as_nomads(self) -> &'static str {
        match self {
            Self::Malformed => {
                "failed to parse signed token: go-jose/go-jose: compact JWS format must have three parts"
            }
            Self::NoKeyId => "missing key ID header",
            Self::UnknownKey => "operation cancelled: no such key in keyring",
            Self::Signature => "invalid signature: go-jose/go-jose: error in cryptographic primitive",
            Self::NotWorkload => "failed to determine claim type",
            Self::Audience => "invalid claims: go-jose/go-jose/jwt: validation failed, invalid audience claim (aud)",
            Self::NotYet => "invalid claims: go-jose/go-jose/jwt: validation failed, token not valid yet (nbf)",
            Self::Expired => "invalid claims: go-jose/go-jose/jwt: validation failed, token is expired (exp)",
        }
    }
}

/// What a fuzzer asks: whether any token is believed that nobody has signed.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::{Fault, Keys, Timestamp};

    /// Judges a token by a set of keys whose private halves were thrown away.
    ///
    /// # Errors
    /// As all of them should.
    pub fn verify(keys: &[u8], token: &[u8]) -> Result<(), Fault> {
        let keys = Keys::parse(keys).unwrap_or_default();
        keys.verify(token, &["nomadproject.io".to_owned()], Timestamp(0)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_stands_in_the_subject_behind_a_job_that_may_hold_colons() {
        for (subject, group) in [
            ("global:default:web:api:server:default", Some("api")),
            ("global:default:a:b:api:server:default", None),
            ("global:apps:web:api:server:default", None),
            ("web", None),
            ("global:default:web:", None),
        ] {
            assert_eq!(group_of(subject, "default", "web"), group, "{subject}");
        }
        assert_eq!(group_of("global:default:a:b:api:server:default", "default", "a:b"), Some("api"));
    }

    #[test]
    fn of_a_set_those_keys_are_taken_that_can_sign_identities() {
        let ed =
            r#"{"kty":"OKP","crv":"Ed25519","kid":"a","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        for (set, count) in [
            (format!(r#"{{"keys":[{ed}]}}"#), 1),
            (format!(r#"{{"keys":[{},{},1,null,{{}}]}}"#, ed.replace("sig", "enc"), ed.replace("\"a\"", "\"\"")), 0),
            (format!(r#"{{"keys":[{}]}}"#, ed.replace("Ed25519", "X25519")), 0),
            (r#"{"keys":[{"kty":"oct","kid":"a","k":"c2VjcmV0","alg":"HS256"}]}"#.to_owned(), 0),
            (r#"{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB","alg":"RS512"}]}"#.to_owned(), 0),
            (r#"{"keys":[]}"#.to_owned(), 0),
        ] {
            assert_eq!(Keys::parse(set.as_bytes()).expect("a set").count(), count, "{set}");
        }
        assert!(Keys::parse(b"[]").is_err());
    }
}
