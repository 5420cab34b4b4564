//! What each role may: every page of the desk and of the hands, over the real router, without brokers. Whoever may is told that
//! this is not the active desk; whoever may not, that they may not.

use std::collections::BTreeSet;
use std::sync::Arc;

use mailfuse::config::Config;
use mailfuse::core::fingerprint::Fingerprint;
use mailfuse::desk::book::Book;
use mailfuse::desk::feedback::ledger::Ledger;
use mailfuse::desk::feedback::wish::{MeasureWish, NewMeasure, Refused, Rights};
use mailfuse::desk::measures::{Measures, Unexposed};
use mailfuse::desk::{Desk, Options};
use mailfuse::relays::Hands;
use mailfuse::relays::measure::Kind;
use mailfuse::telemetry::Metrics;
use mailfuse::telemetry::access::Right;
use mailfuse::telemetry::description::OPENAPI;
use mailfuse::telemetry::token::{Hash, Token};
use serde_json::Value;

use crate::access::{Server, serve_pages};

const ACCOUNTS: &[Right] = &[Right::Accounts];
const RELAYS: &[Right] = &[Right::Relays];
/// Which of them depends on the measure, so the active desk looks again (see below).
const EITHER: &[Right] = &[Right::Accounts, Right::Relays];

/// Each page that changes something, a body for it, and the roles of which any suffices.
const CHANGES: &[(&str, &str, &str, &[Right])] = &[
    ("post", "/v1/incidents/{id}/acknowledge", "", ACCOUNTS),
    ("post", "/v1/incidents/{id}/resolve", r#"{"as":"hijack"}"#, ACCOUNTS),
    ("post", "/v1/incidents/{id}/false-positive", r#"{"note":"x"}"#, ACCOUNTS),
    ("post", "/v1/incidents/{id}/note", r#"{"note":"x"}"#, ACCOUNTS),
    (
        "post",
        "/v1/decisions",
        r#"{"scope":"account","name":"a@b.example","what":"exempt","until":"2030-01-01T00:00:00Z","note":"x"}"#,
        ACCOUNTS,
    ),
    ("delete", "/v1/decisions/{id}", "", ACCOUNTS),
    ("post", "/v1/renames", r#"{"from":"a@b.example","to":"c@b.example"}"#, ACCOUNTS),
    ("post", "/v1/actions", r#"{"action":"account_stopped","account":"a@b.example"}"#, ACCOUNTS),
    ("post", "/v1/actions", r#"{"action":"account_released","account":"a@b.example"}"#, ACCOUNTS),
    ("post", "/v1/actions", r#"{"action":"password_changed","account":"a@b.example"}"#, ACCOUNTS),
    ("post", "/v1/actions", r#"{"action":"relay_pulled","relay":"out-1"}"#, RELAYS),
    ("post", "/v1/actions", r#"{"action":"relay_restored","relay":"out-1"}"#, RELAYS),
    ("post", "/v1/endpoints/{endpoint}/enable", "", ACCOUNTS),
    ("post", "/v1/endpoints/{endpoint}/enable", r#"{"note":"moved"}"#, ACCOUNTS),
    ("post", "/v1/deliveries/{endpoint}/{id}/resend", "", ACCOUNTS),
    ("post", "/v1/deliveries/{endpoint}/{id}/resend", r#"{"note":"lost"}"#, ACCOUNTS),
    ("post", "/v1/measures", r#"{"kind":"stop","subject":"a@b.example","note":"x"}"#, ACCOUNTS),
    ("post", "/v1/measures", r#"{"kind":"throttle","subject":"a@b.example","note":"x"}"#, ACCOUNTS),
    ("post", "/v1/measures", r#"{"kind":"pull","subject":"out-1","note":"x"}"#, RELAYS),
    ("post", "/v1/measures/{id}/confirm", "", EITHER),
    ("post", "/v1/measures/{id}/end", "", EITHER),
    ("post", "/v1/relays/restore", "{}", RELAYS),
    ("delete", "/v1/relays/hold", "", RELAYS),
];

/// Of every set of roles one token, whose secret is its name.
fn tokens() -> Vec<Token> {
    let all = [(1, Right::Look), (2, Right::Accounts), (4, Right::Relays)];
    let token = |set: u8| {
        let roles: Vec<Right> = all.iter().filter(|(bit, _)| set & bit != 0).map(|(_, role)| *role).collect();
        let name = format!("t{set}");
        Token { hash: Hash::of(&name), name, roles }
    };
    (1..8).map(token).collect()
}

/// A desk that finds no broker, with its pages and those of the hands behind tokens.
fn server(tokens: &[Token]) -> (Server, Desk, Hands) {
    let text = "[kafka]\nbootstrap_servers = '127.0.0.1:1'\n";
    let config = Config::parse(text, "test").unwrap();
    let key = config.fingerprint_key().unwrap();
    let metrics = Arc::new(Metrics::new());
    let options = Options {
        kafka: &config.kafka,
        settings: &config.desk,
        relays: &config.relays,
        directory: &config.directory,
        policy: Arc::new(config.policy(key).unwrap()),
        events: config.events.clone(),
        instance: "",
        client_id: "test",
        session_timeout_ms: config.run.session_timeout_ms,
    };
    let desk = Desk::start(&options, Arc::clone(&metrics)).unwrap();
    let hands = Hands::start(&config.relays, &config.kafka, Fingerprint::new(&key), &metrics).unwrap();
    let pages = desk.router().merge(hands.router());
    (serve_pages("192.0.2.1:80", "", tokens, pages), desk, hands)
}

fn ask(server: &Server, token: Option<&str>, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut request = format!("{} {path} HTTP/1.1\nhost: localhost", method.to_ascii_uppercase());
    if let Some(token) = token {
        request.push_str(&format!("\nauthorization: Bearer {token}"));
    }
    if !body.is_empty() {
        request.push_str("\ncontent-type: application/json");
    }
    let (status, _, said) = server.raw(&request, body);
    (status, said)
}

/// A path with something in the place of its parameters.
fn filled(path: &str) -> String {
    [("{id}", "i-1"), ("{endpoint}", "abuse"), ("{account}", "a@b.example"), ("{name}", "not-found")]
        .iter()
        .fold(path.to_owned(), |path, (parameter, value)| path.replace(parameter, value))
}

fn pages() -> Vec<(String, String)> {
    let description: Value = serde_json::from_str(&OPENAPI).unwrap();
    let of = |(path, item): (&String, &Value)| -> Vec<(String, String)> {
        item.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())).collect()
    };
    description["paths"].as_object().unwrap().iter().flat_map(of).collect()
}

#[test]
fn every_page_is_for_its_role_and_no_other() {
    let tokens = tokens();
    let (server, desk, hands) = server(&tokens);
    let listed: BTreeSet<(String, String)> =
        CHANGES.iter().map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned())).collect();
    let (reads, changes): (Vec<_>, Vec<_>) = pages().into_iter().partition(|(method, _)| method == "get");
    assert_eq!(listed, changes.into_iter().collect(), "left: the table above, right: what is described");

    for (method, path, body, any_of) in CHANGES {
        let path = filled(path);
        assert_eq!(ask(&server, None, method, &path, body).0, 401, "{method} {path} without a token");
        for token in &tokens {
            let may = any_of.iter().any(|right| token.roles.contains(right));
            let (status, said) = ask(&server, Some(&token.name), method, &path, body);
            // 421: they may, and this is not the active desk.
            let expected = if may { 421 } else { 403 };
            assert_eq!(status, expected, "{method} {path} {body} with {:?}: {said}", token.roles);
            assert!(may || said.contains("may not do this"), "{said}");
        }
    }
    for (method, path) in &reads {
        let path = filled(path);
        let is_open = ["/healthz", "/readyz"].contains(&&*path);
        let (status, _) = ask(&server, None, method, &path, "");
        assert_eq!(status == 401, !is_open, "{path} without a token: {status}");
        for token in &tokens {
            let may = is_open || token.roles.contains(&Right::Look);
            let (status, said) = ask(&server, Some(&token.name), method, &path, "");
            assert_eq!(status == 403, !may, "{path} with {:?}: {status} {said}", token.roles);
            assert_ne!(status, 401, "{path}");
        }
    }
    desk.stop();
    hands.stop();
}

/// What depends on the measure the active desk looks at itself.
#[test]
fn a_measure_is_confirmed_and_ended_by_whoever_may_order_it() {
    let pool = "[[relays.pool]]\nname = 'p'\nmember = [{ relay = 'out-1' }, { relay = 'out-2' }, { relay = 'out-3' }, \
                { relay = 'out-4' }]\n";
    let config = Config::parse(pool, "test").unwrap();
    let mut measures = Measures::new(&config.relays, Box::<Unexposed>::default(), "test");
    let (book, mut ledger) = (Book::default(), Ledger::default());
    for (kind, subject, may, may_not) in [
        (Kind::Stop, "a@b.example", Rights { accounts: true, relays: false }, Rights { accounts: false, relays: true }),
        (Kind::Pull, "out-1", Rights { accounts: false, relays: true }, Rights { accounts: true, relays: false }),
    ] {
        let new = NewMeasure { kind, subject: subject.to_owned(), for_s: None, note: "x".to_owned() };
        let (_, made) = measures.grant(MeasureWish::Order(new), "ann", &book, &mut ledger, 1_000).unwrap();
        let id = || made["id"].as_str().unwrap().to_owned();
        for wish in [
            MeasureWish::Confirm { id: id(), note: None, rights: may_not },
            MeasureWish::End { id: id(), note: None, rights: may_not },
        ] {
            let refused = measures.grant(wish, "bob", &book, &mut ledger, 2_000).unwrap_err();
            assert!(matches!(refused, Refused::Forbidden(_)), "{kind:?}: {refused}");
        }
        let end = MeasureWish::End { id: id(), note: None, rights: may };
        let (_, ended) = measures.grant(end, "ann", &book, &mut ledger, 3_000).unwrap();
        assert_eq!(ended["state"], "ended");
    }
}
