//! Any bytes as a log of Postfix: stamps, assembly and hops keep their bounds and do not panic.
//!
//! The first two bytes choose small bounds, so that giving up is met as often as everything else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailfuse::event::{Event, Kind, Timestamp};
use mailfuse::logs::postfix::{Options, Postfix};
use mailfuse::logs::stamp::{StampOptions, Stamper};

fuzz_target!(|data: &[u8]| {
    let [bounds, hosts, log @ ..] = data else { return };
    let options = Options {
        max_open_messages: u32::from(bounds & 15),
        max_recipients: u32::from(bounds >> 6),
        max_recipients_total: u32::from(bounds >> 4),
        own_hosts: if hosts & 1 == 1 { vec!["out1".to_owned(), "10.0.0.9".to_owned()] } else { Vec::new() },
        ..Options::default()
    };
    let (open_max, kept_max) = (options.max_open_messages.max(1) as usize, options.max_recipients_total as usize);
    let mut stamper = Stamper::new(StampOptions { year: Some(2024), ..StampOptions::default() });
    let mut postfix = Postfix::new(options);
    let mut events = 0;
    let mut sink = |event: &Event<'_>| {
        events += 1;
        let failed = matches!(&event.kind, Kind::Auth(auth) if !auth.ok);
        assert!(failed || event.account.as_ref().is_some_and(|a| !a.is_empty()));
        assert!(event.account.as_ref().is_none_or(|a| !a.bytes().any(|b| b.is_ascii_uppercase())));
    };
    let mut ts = Timestamp(0);
    for line in log.split(|b| *b == b'\n') {
        // Lines without a stamp are read too, as the fuzzer seldom keeps one.
        let at = match stamper.stamp(line) {
            Some((stamp, at)) => {
                ts = stamp;
                at
            }
            None => 0,
        };
        postfix.push(ts, &line[at..], &mut sink);
        assert!(postfix.open_messages() <= open_max);
        assert!(postfix.recipients_kept() <= kept_max);
    }
    postfix.finish(&mut sink);
    assert_eq!((postfix.open_messages(), postfix.recipients_kept()), (0, 0));
    let stats = postfix.stats();
    assert_eq!(events, stats.sends + stats.outcomes + stats.auth_ok + stats.auth_failed);
});
