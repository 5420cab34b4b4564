//! The description of the HTTP API and the program say the same: every route is described, every described page has a route.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mailfuse::telemetry::description::OPENAPI;
use serde_json::Value;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn description() -> Value {
    serde_json::from_str(&OPENAPI).unwrap()
}

/// `METHOD /path` of every `.route("/path", get(…).post(…))` in a text.
fn routes(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for call in text.split(".route(").skip(1) {
        let call = call.trim_start();
        let Some((path, rest)) = call.strip_prefix('"').and_then(|c| c.split_once('"')) else {
            panic!("a route whose path is no literal: {}", &call[..call.len().min(60)]);
        };
        // To the parenthesis that closes the call.
        let mut depth = 1;
        let end = rest.find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        let handlers = &rest[..end.unwrap()];
        for method in METHODS {
            let called = |(at, _): (usize, &str)| !handlers[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if handlers.match_indices(&format!("{method}(")).any(called) {
                found.insert(format!("{} {path}", method.to_ascii_uppercase()));
            }
        }
    }
    found
}

/// Of all files of the program, up to their tests.
fn routed(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            routed(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.append(&mut routes(text.split("#[cfg(test)]").next().unwrap()));
        }
    }
}

#[test]
fn routes_are_found_as_they_are_written() {
    let text =
        ".route(\n\"/a\", get(x)).route(\"/b/{c}\", get(|| async { f(1) }).post(y)).route(\"/d\", post(budget(z)))";
    let wanted = ["GET /a", "GET /b/{c}", "POST /b/{c}", "POST /d"];
    assert_eq!(routes(text), wanted.map(str::to_owned).into());
}

#[test]
fn every_route_is_described_and_every_described_page_has_one() {
    let mut described = BTreeSet::new();
    for (path, item) in description()["paths"].as_object().unwrap() {
        for method in METHODS.iter().filter(|m| item.get(m).is_some()) {
            described.insert(format!("{} {path}", method.to_ascii_uppercase()));
        }
    }
    let mut there = BTreeSet::new();
    routed(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut there);
    let (described_too_much, not_described): (Vec<_>, Vec<_>) =
        (described.difference(&there).collect(), there.difference(&described).collect());
    assert_eq!(not_described, Vec::<&String>::new(), "schemas/openapi.json lacks them");
    assert_eq!(described_too_much, Vec::<&String>::new(), "described without a route");
}

/// Every `$ref` of a document.
fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(all) => all.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

#[test]
fn every_page_says_what_it_takes_and_answers_and_nothing_is_left_over() {
    let description = description();
    let mut found = Vec::new();
    references(&description, &mut found);
    for reference in &found {
        let place = description.pointer(reference.strip_prefix('#').unwrap());
        assert!(place.is_some(), "{reference} is nowhere");
    }
    for kind in ["schemas", "responses", "parameters"] {
        for (name, schema) in description["components"][kind].as_object().unwrap() {
            let place = format!("#/components/{kind}/{name}");
            assert!(found.contains(&&*place), "{place} is used nowhere");
            assert!(kind != "schemas" || jsonschema::meta::is_valid(schema), "{place}");
        }
    }
    let mut ids = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, page) in item.as_object().unwrap() {
            assert!(ids.insert(page["operationId"].as_str().unwrap()), "{method} {path}: its id is another's");
            let answers = page["responses"].as_object().unwrap();
            assert!(answers.keys().any(|k| k.starts_with('2')) && answers.contains_key("405"), "{method} {path}");
            // Only health is for everybody.
            let open = page.get("security").is_some();
            assert_eq!(open, ["/healthz", "/readyz"].contains(&path.as_str()), "{method} {path}");
            assert_eq!(!open, answers.contains_key("401") && answers.contains_key("403"), "{method} {path}");
            let takes = page.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
            let in_path = takes.iter().filter(|p| {
                let p = p["$ref"].as_str().map_or(*p, |r| description.pointer(&r[1..]).unwrap());
                p["in"] == "path" && path.contains(&format!("{{{}}}", p["name"].as_str().unwrap()))
            });
            assert_eq!(in_path.count(), path.matches('{').count(), "{method} {path}");
        }
    }
}
