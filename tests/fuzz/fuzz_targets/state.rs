//! Any bytes as a packed account and as a file of state: no panic, no more memory than an account may take, and what was read
//! can be written and read again.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mailfuse::core::fingerprint::Fingerprint;
use mailfuse::core::packed;
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::window::Spans;
use mailfuse::state;

fuzz_target!(|bytes: &[u8]| {
    let (prints, spans) = (Fingerprint::new(&[7; 16]), Spans::default());
    if let Ok(account) = packed::unpack(bytes, &prints, &spans) {
        assert!(account.bytes() < 100 * bytes.len() + 200_000);
        let mut out = Vec::new();
        packed::pack(&account, &prints, &mut out);
        let again = packed::unpack(&out, &prints, &spans).expect("what was written can be read");
        assert_eq!(again, account);
    }
    let policy = Arc::new(Policy::new(Detect::default(), [7; 16], String::new()).expect("the defaults are good"));
    let _ = state::read(bytes, &policy);
});
