//! The maps over HTTP, as rspamd and its like fetch them.

use std::sync::Arc;

use mailfuse::relays::measure::Kind;
use mailfuse::relays::{Hands, Settings};
use mailfuse::telemetry::Metrics;

use crate::access::serve_pages;
use crate::hands_support::{board, measure};

#[test]
fn a_map_is_fetched_whole_as_a_head_and_only_when_it_has_changed() {
    let all = board([measure("m-1", Kind::Stop, "ann@x.example"), measure("m-2", Kind::Pull, "out-1")]);
    let hands = Hands::with_board(&Settings::default(), Arc::clone(&all), &Arc::new(Metrics::new())).unwrap();
    let server = serve_pages("127.0.0.1:80", "", &[], hands.router());
    let ask = |method: &str, more: &str| {
        server.raw(&format!("{method} /v1/maps/stopped HTTP/1.1\nhost: localhost{more}"), "")
    };
    // But for when it was answered.
    let headers = |head: &str| -> Vec<String> {
        let mut lines: Vec<String> = head.lines().filter(|l| !l.starts_with("date:")).map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let of = |head: &str, name: &str| -> String {
        let line = head.lines().find_map(|l| l.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name}: {head}")).to_owned()
    };
    let (status, head, body) = ask("GET", "");
    assert_eq!((status, &*body), (200, "ann@x.example i-7\n"), "{head}");
    assert_eq!(of(&head, "content-length"), body.len().to_string());
    let (tag, changed) = (of(&head, "etag"), of(&head, "last-modified"));

    let (status, same, nothing) = ask("HEAD", "");
    assert_eq!((status, &*nothing), (200, ""), "{same}");
    assert_eq!(headers(&same), headers(&head));

    for known in [format!("if-none-match: {tag}"), format!("if-none-match: \"other\", W/{tag}")] {
        for method in ["GET", "HEAD"] {
            let (status, head, nothing) = ask(method, &format!("\n{known}"));
            assert_eq!((status, &*nothing), (304, ""), "{method} {known}: {head}");
            assert_eq!((of(&head, "etag"), of(&head, "last-modified")), (tag.clone(), changed.clone()));
        }
    }
    assert_eq!(ask("GET", "\nif-none-match: \"other\"").0, 200);

    all.change(|standing| standing.take(measure("m-3", Kind::Stop, "bob@x.example")));
    let (status, head, body) = ask("GET", &format!("\nif-none-match: {tag}"));
    assert_eq!((status, &*body), (200, "ann@x.example i-7\nbob@x.example i-7\n"), "{head}");
    assert_ne!(of(&head, "etag"), tag, "another list has another tag");
    assert_ne!(of(&head, "last-modified"), changed, "and another time, though it is the same second");
    hands.stop();
}
