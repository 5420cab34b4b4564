//! Mails as a reader's program reads them: threading, both faces, and names that want to be something else.

use crate::desk_webhook_support;

use desk_webhook_support::{AT, alert, every, grouped, row};
use mail_parser::{HeaderValue, Message as Parsed, MessageParser};
use mailfuse::core::alert::{Action, AlertKind, Severity};
use mailfuse::desk::mail::render::{MAIL_BYTES_MAX, Mail, render};
use mailfuse::desk::mail::settings::Mailbox;
use mailfuse::desk::notice::{AccountShare, Notice, NoticeKind, Reason};
use mailfuse::desk::webhook::body::{IncidentState, Message, What};
use mailfuse::desk::webhook::digest::{Digest, TenantShare, Worst};
use mailfuse::desk::webhook::storm::{Storm, Top};
use mailfuse::event::Timestamp;

const NOW_S: i64 = 1_772_438_460;

fn mailbox() -> Mailbox {
    Mailbox {
        name: "desk".into(),
        to: vec!["Bereitschaft für Missbrauch <abuse@example.org>".into(), "second@example.org".into()],
        from: "mailfuse <alerts@mail.example.org>".into(),
        smart_host: "smtp.example.net:587".into(),
        ..Mailbox::default()
    }
}

fn mail(message: &Message) -> Mail {
    render(&mailbox().addresses().unwrap(), message, NOW_S).unwrap()
}

/// What must hold of every mail; returns it parsed.
fn check(mail: &Mail) -> Parsed<'_> {
    assert!(mail.bytes.is_ascii() && mail.bytes.len() <= MAIL_BYTES_MAX, "{} bytes", mail.bytes.len());
    let text = std::str::from_utf8(&mail.bytes).unwrap();
    for line in text.split("\r\n") {
        assert!(line.len() <= 998 && !line.contains(['\r', '\n', '\0']), "{line:?}");
    }
    let parsed = MessageParser::default().parse(&mail.bytes).unwrap();
    let names: Vec<_> = parsed.headers().iter().map(|h| h.name().to_owned()).collect();
    let mut expected = vec![
        "Date",
        "From",
        "Message-ID",
        "In-Reply-To",
        "References",
        "Subject",
        "To",
        "Auto-Submitted",
        "X-Auto-Response-Suppress",
        "X-Mailfuse-Incident",
        "X-Mailfuse-Severity",
        "X-Mailfuse-Kind",
        "MIME-Version",
        "Content-Type",
    ];
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected, "no header more, none twice");
    assert_eq!((parsed.text_body_count(), parsed.html_body_count(), parsed.attachment_count()), (1, 1, 0));
    assert!(parsed.subject().unwrap().chars().count() <= 200, "{:?}", parsed.subject());
    parsed
}

fn header(parsed: &Parsed<'_>, name: &str) -> String {
    match parsed.header(name).unwrap() {
        HeaderValue::Text(text) => text.to_string(),
        other => panic!("{name}: {other:?}"),
    }
}

fn faces(parsed: &Parsed<'_>) -> (String, String) {
    (parsed.body_text(0).unwrap().into_owned(), parsed.body_html(0).unwrap().into_owned())
}

/// Text of HTML, as it is shown.
fn shown(html: &str) -> String {
    scraper::Html::parse_document(html).root_element().text().collect::<Vec<_>>().join(" ")
}

fn storm() -> Message {
    let storm = Storm {
        row: row(),
        first_seq: 7,
        first_ts: Timestamp(AT.0 - 60_000),
        last_ts: AT,
        kinds: [("account.flagged".to_owned(), 900), ("account.escalated".to_owned(), 334)].into(),
        critical: 400,
        warning: 834,
        cleared: 0,
        recipients: 98_765,
        top: (0..10)
            .map(|n| Top {
                account: format!("user{n}@example.org"),
                tenant: "tenant-7".into(),
                incident: format!("in-{n}"),
                severity: Severity::Critical,
                recipients: 5000 - n,
            })
            .collect(),
    };
    Message {
        kind: "storm".into(),
        incident: storm.row.incident.clone(),
        what: What::Storm(Box::new(storm)),
        ..every(AlertKind::Flagged, Severity::Critical, "a")
    }
}

fn digest() -> Message {
    let worst = |n: u64| Worst {
        account: format!("user{n}@example.org"),
        tenant: format!("customer-{n}"),
        incident: format!("in-{n}"),
        severity: if n < 6 { Severity::Critical } else { Severity::Warning },
        recipients: 5000 - n,
        open: n < 2,
    };
    let share = |n: u64| TenantShare { tenant: format!("customer-{n}"), critical: n % 3, warning: 30 - n };
    let digest = Digest {
        first_seq: 1,
        due: AT,
        first_ts: Timestamp(AT.0 - 80_000_000),
        last_ts: Timestamp(AT.0 - 60_000),
        severity: Severity::Critical,
        critical: 19,
        warning: 1,
        open: 2,
        earlier_escalated: 1,
        earlier_over: 3,
        kinds: [("account.flagged".to_owned(), 20), ("campaign".to_owned(), 1)].into(),
        tenants: (0..20).map(share).collect(),
        other_tenants: 7,
        top: (0..10).map(worst).collect(),
    };
    Message {
        kind: "digest".into(),
        at: digest.due,
        incident: digest.incident(),
        link: "https://desk.example/v1/alerts?after=0".into(),
        what: What::Digest(Box::new(digest)),
        ..every(AlertKind::Flagged, Severity::Critical, "a")
    }
}

fn campaign() -> Message {
    let notice = Notice {
        v: 1,
        id: "n-1".into(),
        kind: NoticeKind::Campaign,
        ts: AT,
        severity: Severity::Critical,
        account: None,
        tenant: None,
        relay: None,
        incident: "c-1".into(),
        campaign: Some("c-1".into()),
        accounts: (0..30)
            .map(|n| AccountShare { account: format!("u{n}@example.org"), incident: format!("in-{n}"), recipients: 9 })
            .collect(),
        evidence: vec![Reason {
            signal: "client_network".into(),
            window_s: 600,
            observed: 30.0,
            expected: 0.1,
            limit: 3.0,
            weight: 0.0,
            text: "30 accounts sent from 192.0.2.0/24 within 10 min".into(),
        }],
        relays: vec![],
        action: Action::SuspendAccount,
        by: "mailfuse 0.1.0".into(),
    };
    let summary = notice.evidence[0].text.clone();
    let what = What::Other { summary, state: IncidentState::Open, data: serde_json::to_value(notice).unwrap() };
    Message {
        kind: "campaign".into(),
        incident: "c-1".into(),
        what,
        ..every(AlertKind::Flagged, Severity::Critical, "a")
    }
}

#[test]
fn an_alert_says_what_a_person_needs() {
    let mail = mail(&every(AlertKind::Flagged, Severity::Critical, "anna@example.org"));
    let parsed = check(&mail);
    assert_eq!(parsed.subject(), Some("[critical] anna@example.org: 31 strangers in 1 h, hijack"));
    assert_eq!(parsed.date().unwrap().to_timestamp(), NOW_S);
    assert_eq!(parsed.from().unwrap().first().unwrap().address(), Some("alerts@mail.example.org"));
    let to: Vec<_> = parsed.to().unwrap().iter().map(|a| (a.name(), a.address().unwrap())).collect();
    assert_eq!(to, [(Some("Bereitschaft für Missbrauch"), "abuse@example.org"), (None, "second@example.org")]);
    for (name, value) in [
        ("Auto-Submitted", "auto-generated"),
        ("X-Mailfuse-Incident", "in-0011223344556677"),
        ("X-Mailfuse-Severity", "critical"),
        ("X-Mailfuse-Kind", "account.flagged"),
    ] {
        assert_eq!(header(&parsed, name), value);
    }
    let (text, html) = faces(&parsed);
    let shown = shown(&html);
    for said in [
        "anna@example.org",
        "tenant-7",
        "2001:db8::f",
        "4XYZ9",
        "31 new recipients in 1 h; this account normally has 0-2; 12 would have sufficed",
        "31 observed, 1.2 expected, 12 would have sufficed",
        "relay-1",
        "d9.example",
        "310, 301 of them strangers, 22 refused",
        "Suspend the account now",
        "in-0011223344556677",
        "undone",
    ] {
        assert!(text.contains(said), "{said}: {text}");
        assert!(shown.contains(said), "{said}: {shown}");
    }
    let link = "https://desk.example/v1/incidents/in-0011223344556677";
    assert!(text.contains(link));
    let page = scraper::Html::parse_document(&html);
    let anchors = scraper::Selector::parse("a").unwrap();
    assert_eq!(page.select(&anchors).map(|a| a.attr("href").unwrap()).collect::<Vec<_>>(), [link, link]);
    let foreign = scraper::Selector::parse("img, script, link, iframe, object, embed, form, style, base").unwrap();
    assert_eq!(page.select(&foreign).count(), 0, "nothing is loaded, nothing runs");
    assert!(!html.contains("url(") && !html.contains("http-equiv"));
}

#[test]
fn mails_of_an_incident_are_one_thread_and_a_repeat_is_known() {
    let first = every(AlertKind::Flagged, Severity::Warning, "anna@example.org");
    let second =
        Message { id: "msg_44556677".into(), ..every(AlertKind::Escalated, Severity::Critical, "anna@example.org") };
    let other = Message { id: "msg_8".into(), incident: "in-8".into(), ..first.clone() };
    let mails = [mail(&first), mail(&second), mail(&other)];
    let threads: Vec<_> = mails
        .iter()
        .map(|mail| {
            let parsed = check(mail);
            assert_eq!(format!("<{}>", parsed.message_id().unwrap()), mail.id);
            let root = parsed.in_reply_to().as_text().unwrap().to_owned();
            assert_eq!(parsed.references().as_text(), Some(root.as_str()));
            root
        })
        .collect();
    assert_eq!(mails[0].id, "<msg_00112233@mailfuse.mail.example.org>");
    assert_eq!(threads[0], "in-0011223344556677@mailfuse.mail.example.org");
    assert_eq!(threads[0], threads[1]);
    assert_ne!(threads[0], threads[2]);
    assert_ne!(mails[0].id, mails[1].id);
    // The same delivery at another time: the date differs and nothing else.
    let later = render(&mailbox().addresses().unwrap(), &first, NOW_S + 3600).unwrap();
    let undated = |mail: &Mail| {
        let text = String::from_utf8(mail.bytes.clone()).unwrap();
        text.split("\r\n").filter(|line| !line.starts_with("Date: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(undated(&mails[0]), undated(&later));
}

#[test]
fn an_incident_says_where_it_stands() {
    let kinds = [AlertKind::Flagged, AlertKind::Escalated, AlertKind::Cleared];
    for (n, state, subject) in [
        (1, IncidentState::Open, "[warning] anna@example.org: 31 strangers in 1 h, hijack"),
        (2, IncidentState::Open, "[critical] anna@example.org: 31 strangers in 1 h, hijack"),
        (2, IncidentState::Acknowledged, "[acknowledged] anna@example.org: 310 recipients, 301 strangers"),
        (3, IncidentState::Cleared, "[over] anna@example.org: 310 recipients, 301 strangers"),
    ] {
        let severity = if n == 1 { Severity::Warning } else { Severity::Critical };
        let mail = mail(&grouped(&kinds[..n], state, severity, "anna@example.org"));
        let parsed = check(&mail);
        assert_eq!(parsed.subject(), Some(subject));
        let (text, _) = faces(&parsed);
        assert_eq!(text.contains("What to do"), state == IncidentState::Open, "{text}");
        assert_eq!(text.contains("What was said so far"), n > 1, "{text}");
        assert!(text.contains("31 new recipients in 1 h"), "the reasons stay: {text}");
    }
}

#[test]
fn a_digest_is_a_mail_of_its_own() {
    let digest = mail(&digest());
    let parsed = check(&digest);
    let subject =
        "[digest] 20 flagged: 19 critical, 1 warning; 2 still open; 1 from before became critical; 3 from before over";
    assert_eq!(parsed.subject(), Some(subject));
    assert_eq!(header(&parsed, "X-Mailfuse-Kind"), "digest");
    assert_eq!(header(&parsed, "X-Mailfuse-Incident"), "mailfuse-digest-2026-03-02T0800");
    let (text, html) = faces(&parsed);
    for said in ["user9@example.org", "4,991", "See the alerts", "customer-1", "over", "1 became critical, 3 over", "7"]
    {
        assert!(shown(&html).contains(said), "{said}: {html}");
        assert!(said == "See the alerts" || text.contains(said), "{said}: {text}");
    }
    assert!(text.contains("https://desk.example/v1/alerts?after=0") && text.contains("and 4 more"), "{text}");
    assert!(!text.contains("\nIncident:") && !text.contains("false alarm"), "it is about no single incident: {text}");
}

#[test]
fn storms_campaigns_and_tests_are_mails_too() {
    let storm = mail(&storm());
    let parsed = check(&storm);
    assert_eq!(parsed.subject(), Some("[critical] storm: 1,234 alerts, 400 critical"));
    let (text, html) = faces(&parsed);
    for said in ["user9@example.org", "4,991", "account.escalated", "98,765"] {
        assert!(text.contains(said) && shown(&html).contains(said), "{said}: {text}");
    }
    let campaign = mail(&campaign());
    let parsed = check(&campaign);
    assert_eq!(parsed.subject(), Some("[critical] campaign: 30 accounts sent from 192.0.2.0/24 within 10 min"));
    let (text, _) = faces(&parsed);
    for said in ["u15@example.org", "and 14 more", "within 10 min: 30 observed, 0.1 expected, 3 would have sufficed"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let what = What::Other {
        summary: "A test, nothing is wrong.".into(),
        state: IncidentState::Cleared,
        data: serde_json::Value::Null,
    };
    let test = mail(&Message {
        kind: "test".into(),
        what,
        link: String::new(),
        customer: None,
        ..every(AlertKind::Flagged, Severity::Warning, "a")
    });
    let parsed = check(&test);
    assert_eq!(parsed.subject(), Some("[over] test: A test, nothing is wrong."));
    assert!(!faces(&parsed).1.contains("href"));
}

const HOSTILE: &[&str] = &[
    "<script>alert(1)</script>@example.org",
    "</title><img src=x onerror=alert(1)>\"'&amp;",
    "a\r\nBcc: victim@example.net\r\n\r\nbody",
    "a\nSubject: other",
    "\r\n.\r\nMAIL FROM:<x@example.net>\r\n",
    "anna\u{202E}gro.elpmaxe@live\u{2066}\u{200B}",
    "\0\u{1}\u{7F}\u{1B}[31m",
    "=?utf-8?Q?=0D=0ABcc=3A_x?=@example.org",
    "שלום@example.org",
    "",
    ".",
    "--=_b-",
];

#[test]
fn hostile_names_stay_text() {
    let long = ["x", "🦀", "\r\n", "<", "\u{202E}", " ", "=?"].map(|part| part.repeat(10_000 / part.len()));
    for name in HOSTILE.iter().map(|s| (*s).to_owned()).chain(long) {
        let mut alert = alert(AlertKind::Flagged, Severity::Critical, &name);
        alert.tenant = name.clone();
        alert.evidence = vec![alert.evidence[0].clone(); 50];
        alert.evidence.iter_mut().for_each(|e| e.text = name.clone());
        alert.relays = vec![alert.relays[0].clone(); 500];
        alert.relays.iter_mut().for_each(|r| r.relay = name.clone());
        let burst = alert.burst.as_mut().unwrap();
        burst.client_ips = vec![name.clone(); 16];
        burst.queue_ids = vec![name.clone(); 10];
        burst.top_domains.iter_mut().for_each(|d| d.domain = name.clone());
        let mut incident = grouped(&[AlertKind::Flagged; 16], IncidentState::Open, Severity::Critical, &name);
        if let What::Incident(incident) = &mut incident.what {
            incident.alerts = vec![alert.clone(); 16];
        }
        let mut storm = storm();
        if let What::Storm(storm) = &mut storm.what {
            storm.top.iter_mut().for_each(|t| (t.account, t.tenant) = (name.clone(), name.clone()));
            storm.kinds = (0..32).map(|n| (format!("{name}{n}"), 1)).collect();
        }
        let mut digest = digest();
        if let What::Digest(digest) = &mut digest.what {
            digest.top.iter_mut().for_each(|t| (t.account, t.tenant) = (name.clone(), name.clone()));
            digest.tenants.iter_mut().for_each(|share| share.tenant.clone_from(&name));
            digest.kinds = (0..32).map(|n| (format!("{name}{n}"), 1)).collect();
        }
        let other = What::Other {
            summary: name.clone(),
            state: IncidentState::Open,
            data: serde_json::json!({ &name: &name }),
        };
        let mut campaign = campaign();
        if let What::Other { summary, data, .. } = &mut campaign.what {
            *summary = name.clone();
            data["accounts"] =
                serde_json::json!(vec![serde_json::json!({ "account": name, "incident": name, "recipients": 1 }); 100]);
            data["evidence"][0]["text"] = serde_json::json!(name);
        }
        let base = every(AlertKind::Flagged, Severity::Critical, "a");
        let odd_ids = Message {
            id: name.clone(),
            kind: name.clone(),
            incident: name.clone(),
            link: format!("https://d/{name}"),
            customer: None,
            ..base.clone()
        };
        let messages = [
            Message { what: What::Alert(Box::new(alert)), ..base.clone() },
            incident,
            storm,
            digest,
            Message { what: other, ..base },
            campaign,
            odd_ids,
        ];
        for message in messages {
            let mail = mail(&message);
            let parsed = check(&mail);
            assert!(!parsed.subject().unwrap().contains(['\r', '\n', '\u{202E}', '\0']), "{:?}", parsed.subject());
            assert!(parsed.bcc().is_none() && parsed.to().unwrap().iter().count() == 2);
            let (text, html) = faces(&parsed);
            assert!(!text.contains(['\0', '\u{1B}', '\u{202E}', '\u{200B}']) && !html.contains('\u{202E}'), "{text:?}");
            let page = scraper::Html::parse_document(&html);
            assert_eq!(page.errors, Vec::<std::borrow::Cow<'_, str>>::new());
            assert_eq!(page.select(&scraper::Selector::parse("script, img").unwrap()).count(), 0);
        }
    }
}
