//! The description of the HTTP API, OpenAPI 3.1. It is written by hand, in `schemas/`: most answers are records that the index
//! holds as text, of which the code has no types to derive it from. Tests hold it against the routes and against the answers.

use std::sync::LazyLock;

use serde_json::{Map, Value};

const PAGES: &str = include_str!("../../schemas/openapi.json");
const COMPONENTS: &str = include_str!("../../schemas/openapi.components.json");

/// Pages and components in one document.
pub static OPENAPI: LazyLock<String> = LazyLock::new(|| {
    // Both are part of the program; a test reads the document.
    let mut whole: Map<String, Value> = serde_json::from_str(PAGES).unwrap_or_default();
    whole.insert("components".to_owned(), serde_json::from_str(COMPONENTS).unwrap_or_default());
    Value::Object(whole).to_string()
});
