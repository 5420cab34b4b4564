//! Made events: accounts that write to their friends, and two of them hijacked.

use serde_json::json;

/// When the made events begin: 2023-11-14T22:13:20Z.
pub const BEGIN: i64 = 1_700_000_000;
pub const DAY: i64 = 86_400;
pub fn send(ts: i64, account: &str, n: i64, rcpts: &[String]) -> String {
    let client_ip = format!("198.{}.0.7", if rcpts.len() > 1 { 100 + n % 100 } else { 1 });
    json!({"v": 1, "kind": "send", "ts": ts, "account": account, "relay": "out-1", "client_ip": client_ip,
           "rcpts": rcpts, "queue_id": format!("Q{ts}N{n}")})
    .to_string()
}

/// 40 messages to ten strangers each, half of whom refuse, from ever new networks.
pub fn hijack(begin: i64, account: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for n in 0..40 {
        let ts = begin + n * 5;
        let rcpts: Vec<String> = (0..10).map(|r| format!("s{ts}-{r}@strangers.example")).collect();
        lines.push(send(ts, account, n, &rcpts));
        for (r, rcpt) in rcpts.iter().enumerate() {
            let status = if r % 2 == 0 { "bounced" } else { "delivered" };
            let dsn = if r % 2 == 0 { "5.1.1" } else { "2.0.0" };
            let outcome = json!({"v": 1, "kind": "outcome", "ts": ts + 1, "account": account, "relay": "out-1",
                "rcpt": rcpt, "status": status, "dsn": dsn, "queue_id": format!("Q{ts}N{n}")});
            lines.push(outcome.to_string());
        }
    }
    lines
}

/// Ten accounts that write to their friends for ten days.
pub fn quiet(begin: i64) -> Vec<String> {
    let mut lines = Vec::new();
    for n in 0..1000 {
        let (ts, who) = (begin + n * DAY / 100, n % 10);
        lines.push(send(ts, &format!("u{who}@example.org"), n, &[format!("friend{who}@friends.example")]));
    }
    lines
}

/// The quiet days, then u3's hijack, an hour of quiet, and u5's.
pub fn story() -> Vec<String> {
    let mut lines = quiet(BEGIN);
    lines.extend(hijack(BEGIN + 10 * DAY, "u3@example.org"));
    lines.extend(quiet(BEGIN + 10 * DAY + 3600));
    lines.extend(hijack(BEGIN + 21 * DAY, "u5@example.org"));
    lines
}

pub fn bytes(lines: &[String]) -> Vec<u8> {
    (lines.join("\n") + "\n").into_bytes()
}
