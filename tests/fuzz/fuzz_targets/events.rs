//! Any bytes as an event: no panic, what is kept is bounded, and what was read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailfuse::event::{Decoded, Event, Kind, Limits, decode, encode, time_of};

fuzz_target!(|line: &[u8]| {
    let limits = Limits { max_recipients: 4, max_account_bytes: 16, max_string_bytes: 12, ..Limits::default() };
    let Ok(Decoded::Event(event, _)) = decode(line, &limits, None) else { return };
    assert_eq!(time_of(line), Some(event.ts));
    check_bounds(&event);
    let mut out = Vec::new();
    encode(&event, &mut out).expect("what was read can be written");
    let again = decode(&out, &limits, None).expect("what was written can be read");
    let Decoded::Event(again, cut) = again else { panic!("another kind") };
    assert!(!cut.any());
    assert_eq!(again, event);
});

fn check_bounds(event: &Event<'_>) {
    assert!(event.account.as_ref().is_none_or(|a| a.len() <= 16 && !a.is_empty()));
    assert!(event.id.as_ref().is_none_or(|i| i.len() <= 12));
    match &event.kind {
        Kind::Send(s) => {
            assert!(s.rcpts.named.len() <= 4 && s.rcpts.count >= s.rcpts.named.len() as u64);
            assert!(s.rcpts.named.iter().all(|r| r.len() <= 12));
            assert!(s.user_agent.as_ref().is_none_or(|u| u.len() <= 12));
        }
        Kind::Outcome(o) => assert!(o.rcpt.len() <= 12 && o.reply.as_ref().is_none_or(|r| r.len() <= 12)),
        Kind::Complaint(_) | Kind::Auth(_) => {}
    }
}
