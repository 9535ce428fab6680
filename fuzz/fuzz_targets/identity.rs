#![no_main]
//! Tokens, and sets of keys: nothing panics, and nothing is believed that nobody has signed.

const KEYS: &[u8] = br#"{"keys":[
    {"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    {"kty":"RSA","kid":"b","e":"AQAB","n":"u1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0_IzW7yWR7QkrmBL7jTKEn5u-qKhbwKfBstIs-bMY2Zkp18gnTxKLxoS2tFczGkPLPgizskuemMghRniWaoLcyehkd3qqGElvW_VDL5AaWTg0nLVkjRo9z-40RQzuVaE8AkAFmxZzow3x-VJYKdjykkJ0iT9wCS0DRTXu269V264Vf_3jvredZiKRkgwlL9xNAwxXFg0x_XFw005UWVRIkdgcKWTjpBP2dPwVZ4WWC-9aGVd-Gyn1o0CLelf4rEjGoXbAAEgAqeGUxrcIlbjXfbcmw"}
]}"#;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // As a token; as its claims under headers that are well formed; as a set of keys.
    assert!(csi_gateway::acl::fuzzing::verify(KEYS, bytes).is_err());
    for header in ["eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ", "eyJhbGciOiJSUzI1NiIsImtpZCI6ImIifQ"] {
        let token = [header.as_bytes(), b".", bytes].concat();
        assert!(csi_gateway::acl::fuzzing::verify(KEYS, &token).is_err());
    }
    let _ = csi_gateway::acl::fuzzing::verify(bytes, b"eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ.e30.AA");
});
