//! The events that `run` and `core` are measured with: as many sends as outcomes, of accounts that are not all equally busy, to some
//! thirty contacts each.

/// A xorshift: the same events each time.
pub struct Random(pub u64);

impl Random {
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// An ordinary event of some 300 bytes: its account and its JSON.
pub fn event(r: &mut Random, accounts: u64, i: u64, ts_ms: u64) -> (String, String) {
    let n = r.below(accounts).min(r.below(accounts));
    let account = format!("user{n}@tenant{}.example", n % 97);
    let contact = |r: &mut Random| format!("contact{n}x{}@firm{}.example", r.below(30), n % 40);
    let value = if i.is_multiple_of(2) {
        let rcpts = [contact(r), contact(r)].join("\",\"");
        format!(
            r#"{{"v":1,"kind":"send","ts":{ts_ms},"account":"{account}","relay":"out-{}","client_ip":"10.{}.7.9","mail_from":"{account}","rcpts":["{rcpts}"],"size":{},"queue_id":"q{i:x}","message_id":"{i:x}.{n}@tenant.example"}}"#,
            i % 4,
            n % 251,
            900 + r.below(60_000)
        )
    } else {
        format!(
            r#"{{"v":1,"kind":"outcome","ts":{ts_ms},"account":"{account}","relay":"out-{}","queue_id":"q{:x}","rcpt":"{}","status":"delivered","dsn":"2.0.0","reply":"250 2.0.0 OK: queued as 4XkQ7z0000000{i:x}, thank you for choosing the mail service of the example firm"}}"#,
            i % 4,
            i - 1,
            contact(r)
        )
    };
    (account, value)
}
