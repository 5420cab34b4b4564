//! Any bytes as a request of Postfix and as an agent check of HAProxy: no panic, and nothing beyond what there is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailfuse::relays::hands::{agent, request};

fuzz_target!(|bytes: &[u8]| {
    match request::parse(bytes) {
        Ok(Some((request, used))) => {
            assert!(used <= bytes.len() && used <= request::REQUEST_BYTES_MAX + 2);
            assert!(!request.sasl_username.contains('\n') && !request.recipient.contains('\n'));
        }
        Ok(None) => assert!(bytes.len() <= request::REQUEST_BYTES_MAX),
        Err(_) => {}
    }
    if let Ok(Some(name)) = agent::name(bytes) {
        assert!(name.len() < agent::LINE_BYTES_MAX);
    }
});
