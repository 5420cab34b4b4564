//! The incident page as a reviewer gets it: valid, self-contained, safe to open, the same every time.
use crate::report_support;

use std::collections::HashSet;

use mailfuse::core::alert::Alert;
use mailfuse::core::shard::Step;
use mailfuse::event::{Kind, Status};
use mailfuse::report::html::{RenderOptions, render};
use mailfuse::report::{InputFile, Inputs, Options};
use report_support::*;
use scraper::{Html, Selector};

fn page(alerts: &[Alert], events: &[Seen], redact: bool) -> String {
    render(&collect(alerts, events, Options::default()), &RenderOptions { redact })
}

/// What a reader sees, without the style sheet.
fn text(html: &str) -> String {
    let document = Html::parse_document(html);
    let body = Selector::parse("body").unwrap();
    document.select(&body).flat_map(|b| b.text()).collect()
}

fn section(html: &str, selector: &str) -> String {
    let document = Html::parse_document(html);
    let found = document.select(&Selector::parse(selector).unwrap()).next();
    found.unwrap_or_else(|| panic!("no {selector}")).text().collect::<String>()
}

/// Parses without errors; ids are unique; links and labels lead somewhere; nothing is loaded and nothing runs.
fn check(html: &str) {
    let document = Html::parse_document(html);
    assert_eq!(document.errors, Vec::<&str>::new());
    let all = Selector::parse("*").unwrap();
    let mut ids = HashSet::new();
    for e in document.select(&all) {
        if let Some(id) = e.value().id() {
            assert!(ids.insert(id), "id {id} twice");
        }
    }
    for e in document.select(&all) {
        let name = e.value().name();
        assert!(
            !["script", "iframe", "object", "embed", "link", "img", "form", "base", "use", "image"].contains(&name),
            "{name}"
        );
        for (attribute, value) in e.value().attrs() {
            assert!(
                !attribute.starts_with("on") && !["src", "action", "style", "xlink:href"].contains(&attribute),
                "{attribute}={value}"
            );
            let target = match attribute {
                "href" => value.strip_prefix('#').unwrap_or_else(|| panic!("leads outside: {value}")).to_owned(),
                "fill" if value.starts_with("url(") => {
                    value.trim_start_matches("url(#").trim_end_matches(')').to_owned()
                }
                "aria-labelledby" => {
                    assert!(value.split(' ').all(|id| ids.contains(id)), "{value}");
                    continue;
                }
                _ => continue,
            };
            assert!(ids.contains(target.as_str()), "{target} is nowhere");
        }
    }
    let css = section(html, "style");
    assert!(!css.contains("url(") && !css.contains("@import") && !css.contains('<'), "the style sheet loads something");
    let policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">";
    assert!(html.contains(policy));
    assert!(html.starts_with("<!DOCTYPE html><html lang=\"en\">"));
}

/// Writes the pages for looking at them: `MAILFUSE_PAGES=/tmp/pages cargo test --test report_page`.
#[test]
fn pages_are_valid_and_load_nothing() {
    for (name, (alerts, events)) in [("one", one()), ("forty", forty()), ("none", (vec![], one().1))] {
        for redact in [false, true] {
            let html = page(&alerts, &events, redact);
            check(&html);
            if let Ok(dir) = std::env::var("MAILFUSE_PAGES") {
                std::fs::write(format!("{dir}/{name}{}.html", if redact { "-redacted" } else { "" }), html).unwrap();
            }
        }
    }
}

#[test]
fn the_summary_says_what_happened() {
    let (alerts, events) = one();
    let html = page(&alerts, &events, false);
    let summary = section(&html, "section.summary");
    for part in [
        "info@d775f587.ru looks hijacked (critical)",
        "went out at 2012-07-10 10:11:26; it was flagged 22 s later, after 3 messages to 33 recipients",
        "266 messages to 2,926 recipients followed: 2,959 in all",
        "through the relay srv24-s-st",
    ] {
        assert!(summary.contains(part), "{part:?} is not in {summary:?}");
    }
    let collateral = section(&html, "section.collateral");
    for part in ["What the help desk can write to them", "We noticed the spam at 2012-07-10 06:11:48 UTC."] {
        assert!(collateral.contains(part), "{part:?} is not in {collateral:?}");
    }
    let head = section(&html, "header");
    for part in [
        "1 file, 118,392 lines, 40,211 events",
        "Europe/Moscow",
        "year 2012, from the file’s name",
        "12 lines rejected",
        "1 gap",
        "9f2c1a7be0",
    ] {
        assert!(head.contains(part), "{part:?} is not in {head:?}");
    }
    let sources = section(&html, "section.sources");
    for part in [
        "/var/log/mail/2012-07-10.maillog.gz",
        "9b74c9897bac770ffc029102a200c5de",
        "1.4 MB",
        "not a Postfix line",
        "6 min 40 s",
    ] {
        assert!(sources.contains(part), "{part:?} is not in {sources:?}");
    }
    assert_eq!(Html::parse_document(&html).select(&Selector::parse("svg.timeline").unwrap()).count(), 1);
}

#[test]
fn without_a_flag_the_page_says_so() {
    let html = page(&[], &one().1, false);
    assert!(section(&html, "section.summary").contains("No account was flagged."));
    assert!(section(&html, "section.sources").contains("SHA-256"));
    assert!(!html.contains("<svg"));
    // Nothing read at all is a page too.
    let empty = mailfuse::report::Collector::new(&[], Options::default()).finish(Inputs::default());
    let html = render(&empty, &RenderOptions::default());
    check(&html);
    assert!(text(&html).contains("Nothing could be read as an event"));
}

#[test]
fn forty_accounts_have_forty_sections_in_order_of_gravity() {
    let (alerts, events) = forty();
    let html = page(&alerts, &events, false);
    let document = Html::parse_document(&html);
    let count = |s: &str| document.select(&Selector::parse(s).unwrap()).count();
    assert_eq!(count("table.flagged tbody tr"), 40);
    assert_eq!(count("section.incident"), 40);
    assert_eq!(count("svg.timeline"), 40);
    assert_eq!(count("section.relay"), 3);
    let severities: Vec<String> =
        document.select(&Selector::parse("table.flagged .sev").unwrap()).map(|e| e.text().collect()).collect();
    let first_warning = severities.iter().position(|s| s.contains("warning")).unwrap();
    assert!(severities[first_warning..].iter().all(|s| s.contains("warning")), "{severities:?}");
    assert!(first_warning > 30);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for (alerts, events) in [one(), forty()] {
        for redact in [false, true] {
            let first = page(&alerts, &events, redact);
            // Another collector has other hash seeds.
            assert!((0..4).all(|_| page(&alerts, &events, redact) == first));
        }
    }
}

#[test]
fn redaction_leaves_no_name() {
    for (alerts, events) in [one(), forty()] {
        let mut alerts = alerts;
        for alert in &mut alerts {
            // The detector's own words may quote a name.
            alert.evidence.iter_mut().for_each(|e| e.text = format!("3 networks, such as {}", alert.account));
        }
        let html = page(&alerts, &events, true).to_lowercase();
        let mut names = strings(&alerts, &events);
        let file = inputs().files.remove(0).name;
        names.extend([file, "maillog".to_owned(), "from the file’s name".to_owned()]);
        let public = ["qq.com", "gmail.com", "163.com"];
        for name in names.iter().filter(|n| !public.contains(&n.as_str())) {
            assert!(!html.contains(&name.to_lowercase()), "{name} is in the redacted page");
        }
        // It quotes what remote servers said.
        assert!(!html.contains("what the help desk can write"));
        let page = text(&html);
        for token in
            ["account-1", "relay-1", "client-1", "net-1", "file-1", "message-1", "domain-1", "gmail.com", "redacted."]
        {
            assert!(page.contains(token), "{token} is missing");
        }
        // The check itself can fail: the same names are in the open page.
        let open = text(&self::page(&alerts, &events, false));
        assert!(names.iter().filter(|n| open.contains(n.as_str())).count() > 50);
    }
}

#[test]
fn redacted_names_are_told_apart_consistently() {
    let (alerts, events) = one();
    let html = page(&alerts, &events, true);
    assert!(section(&html, "section.summary").starts_with("Summary"));
    let heading = section(&html, "section.incident h2");
    assert!(heading.starts_with("account-1 "), "{heading}");
    // The envelope sender is the account, and may be seen to be.
    assert!(
        section(&html, "section.incident .tables").contains("Senderaccount-1")
            || section(&html, "section.incident .tables").contains("account-1")
    );
    let collateral = section(&html, "section.collateral");
    assert!(
        collateral.contains("account-2") && collateral.contains("account-50") && !collateral.contains("account-53")
    );
}

const NASTY: [&str; 8] = [
    "<script>alert(1)</script>@x.org",
    "\"><img src=x onerror=alert(1)>@x.org",
    "a\u{202E}gro.x@nimda",
    "tab\there\0null\u{7}@x.org",
    "</title></style></svg><b>@x.org",
    "&lt;&amp;&#x3c;'`{{}}@x.org",
    "\u{FEFF}zero\u{200B}width\u{E0041}\u{FFFE}@x.org",
    "-->]]><!--<![CDATA[@x.org",
];

#[test]
fn hostile_names_stay_text() {
    let mut dice = Dice(3);
    let (mut alerts, mut events) = (vec![], vec![]);
    for (i, name) in NASTY.iter().enumerate() {
        let mut h = Hijack::new(name, START + i as i64 * 60_000);
        h.messages = 6;
        h.relays = vec![format!("relay{name}")];
        alerts.extend(h.alerts());
        for mut seen in h.events(&mut dice) {
            match &mut seen.0.kind {
                Kind::Send(s) => {
                    s.queue_id = Some(format!("{name}{}", s.queue_id.as_deref().unwrap_or_default()).into());
                    s.mail_from = Some((*name).into());
                    s.rcpts.named[0] = format!("x@{name}").into();
                }
                Kind::Outcome(o) => {
                    o.queue_id = Some(format!("{name}{}", o.queue_id.as_deref().unwrap_or_default()).into());
                    o.reply = Some(format!("550 {name} {}", NASTY.concat()).into());
                }
                Kind::Complaint(_) | Kind::Auth(_) => {}
            }
            events.push(seen);
        }
        let innocent = format!("b{name}");
        let mut send = message(&innocent, START + 61_000, "Q", &["r@y.org".to_owned()], [10, 0, 0, 1].into());
        if let Kind::Send(s) = &mut send.kind {
            s.relay = Some(format!("relay{}", NASTY[0]).into());
        }
        events.push((send, Step::default()));
    }
    let mut inputs = inputs();
    inputs.files.extend(NASTY.iter().map(|n| InputFile {
        name: format!("/tmp/{n}"),
        sha256: (*n).to_owned(),
        bytes: 1,
    }));
    inputs.rejects.extend(NASTY.iter().map(|n| ((*n).to_owned(), 1)));
    inputs.year = NASTY[0].to_owned();
    inputs.config_digest = NASTY[1].to_owned();
    inputs.version = NASTY[2].to_owned();
    inputs.made_at = Some(NASTY[4].to_owned());
    let mut collector = mailfuse::report::Collector::new(&alerts, Options::default());
    let events = sorted(events);
    events.iter().for_each(|(e, s)| collector.event(e, s));
    let report = collector.finish(inputs);
    for redact in [false, true] {
        let html = render(&report, &RenderOptions { redact });
        check(&html);
        let unseen = |c: char| {
            c.is_control() && c != '\n' || matches!(c, '\u{202E}' | '\u{FEFF}' | '\u{200B}' | '\u{E0041}' | '\u{FFFE}')
        };
        assert_eq!(html.chars().find(|c| unseen(*c)), None);
    }
    let html = render(&report, &RenderOptions { redact: false });
    let isolated = Html::parse_document(&html);
    let isolated: Vec<String> =
        isolated.select(&Selector::parse("th > bdi, th > a > bdi").unwrap()).map(|e| e.text().collect()).collect();
    assert!(NASTY.iter().filter(|n| isolated.iter().any(|i| i == *n)).count() >= 5, "{isolated:?}");
    let open = text(&html);
    assert!(open.contains("<script>alert(1)</script>@x.org"), "markup is shown as text");
    assert!(open.contains("a⟨U+202E⟩gro.x@nimda"), "what turns the writing round is shown");
    assert!(open.contains("b<script>alert(1)</script>@x.org"), "bystanders too");
}

#[test]
fn a_name_of_ten_kilobytes_does_not_fill_the_page() {
    let mut h = Hijack::new(&format!("{}@x.org", "a".repeat(10_240)), START);
    h.messages = 5;
    let html = page(&h.alerts(), &h.events(&mut Dice(1)), false);
    check(&html);
    assert!(text(&html).contains("… (10,246 characters)"));
    assert!(html.len() < 60_000, "{} bytes", html.len());
}

#[test]
fn what_is_beyond_the_bounds_is_counted() {
    let (alerts, events) = forty();
    let mut options = Options { incidents_detailed: 3, incidents_listed: 10, ..Options::default() };
    options.shown.bystanders = 4;
    options.shown.tenants = 2;
    options.shown.addresses = 5;
    options.shown.top = 2;
    options.timeline_cells = 16;
    let report = collect(&alerts, &events, options);
    let html = render(&report, &RenderOptions::default());
    check(&html);
    assert_eq!(report.incidents.len(), 10);
    assert_eq!(report.incidents_more, 30);
    assert_eq!(report.incidents.iter().filter(|i| i.detail.is_some()).count(), 3);
    let shown = text(&html);
    assert!(shown.contains("and 30 more incidents, not listed"));
    assert!(shown.contains("40 accounts") || shown.contains("10 accounts"), "{}", &shown[..600]);
    for relay in &report.relays.rows {
        let rows: u64 = relay.others.rows.iter().map(|o| o.recipients).sum();
        assert!(relay.others.rows.len() <= 4);
        assert_eq!(rows + relay.others.more_sum, relay.others_sum.recipients);
        let tenants: u64 = relay.tenants.rows.iter().map(|t| t.recipients).sum();
        assert_eq!(tenants + relay.tenants.more_sum, relay.others_sum.recipients);
    }
    assert!(html.len() < 120_000, "{} bytes", html.len());
}

#[test]
fn times_are_in_the_zone_and_far_times_do_no_harm() {
    let (alerts, events) = one();
    let report = |zone: &str, alerts: &[Alert], events: &[Seen]| {
        let mut collector = mailfuse::report::Collector::new(alerts, Options::default());
        events.iter().for_each(|(e, s)| collector.event(e, s));
        render(&collector.finish(Inputs { zone: zone.to_owned(), ..inputs() }), &RenderOptions::default())
    };
    for (zone, first) in [
        ("Europe/Moscow", "10:11:26"),
        ("UTC", "06:11:26"),
        ("America/St_Johns", "03:41:26"),
        ("Nowhere/None", "06:11:26"),
    ] {
        let html = report(zone, &alerts, &events);
        check(&html);
        assert!(section(&html, "section.summary").contains(first), "{zone}");
    }
    // The night in which Berlin's clocks go back; the first moment there is; the last year that can be written.
    for first in [1_351_382_400_000, 0, 253_402_200_000_000, i64::MIN / 4, i64::MAX / 4] {
        let mut h = Hijack::new("a@x.org", first);
        h.messages = 8;
        h.every_ms = 1_500_000;
        let html = report("Europe/Berlin", &h.alerts(), &h.events(&mut Dice(5)));
        check(&html);
    }
}

#[test]
fn remote_replies_are_grouped_and_keep_their_codes() {
    let (alerts, events) = one();
    let report = collect(&alerts, &events, Options::default());
    let detail = report.incidents[0].detail.as_ref().unwrap();
    let bounced = events.iter().filter(|(e, _)| {
        e.account.as_deref() == Some("info@d775f587.ru")
            && matches!(&e.kind, Kind::Outcome(o) if o.status == Status::Bounced && o.reply.as_deref().unwrap().contains("frequency"))
    });
    let ((status, words), n) = &detail.replies.rows[0];
    assert_eq!((status.as_str(), *n), ("bounced", bounced.count() as u64));
    assert!(words.starts_with("host mx#.qq.com[#.#.#.#] said: 550 Connection frequency limited."), "{words}");
    assert!(detail.replies.rows.len() <= 4, "{:?}", detail.replies);
}
