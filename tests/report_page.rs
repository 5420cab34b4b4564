//! The incident page as a reviewer gets it.

mod report_support;

use report_support::*;

use mailfuse::report::Options;
use mailfuse::report::html::{RenderOptions, render};

/// Writes the pages for looking at them: `MAILFUSE_PAGES=/tmp/pages cargo test --test report_page`.
#[test]
fn pages_can_be_looked_at() {
    let Ok(dir) = std::env::var("MAILFUSE_PAGES") else { return };
    for (name, (alerts, events)) in [("one", one()), ("forty", forty()), ("none", (vec![], one().1))] {
        let report = collect(&alerts, &events, Options::default());
        for redact in [false, true] {
            let html = render(&report, &RenderOptions { redact });
            std::fs::write(format!("{dir}/{name}{}.html", if redact { "-redacted" } else { "" }), html).unwrap();
        }
    }
}
