//! What the relays of the pools bear: the signals' sums by the names that pools have. Pure.

use super::decide::{Burden, BurstShare};
use super::exposure::Exposure;
use super::settings::Settings;
use crate::event::Timestamp;

/// One burden for each relay of a pool of which anything is known, over the last `span_s` seconds before `now_ms` (milliseconds
/// since 1970). Of incidents those count that `stands` says yes to. What no pool knows burdens nobody.
pub fn burdens(
    settings: &Settings,
    exposure: &Exposure,
    span_s: u32,
    now_ms: i64,
    stands: &dyn Fn(&str) -> bool,
) -> Vec<Burden> {
    let loads = exposure.loads(now_ms, span_s, stands);
    let of = |relay: &str, host: &str| {
        let load = loads.get(host)?;
        let share = |b: &super::exposure::BurstShare| BurstShare {
            account: b.account.clone(),
            tenant: b.tenant.clone(),
            incident: b.incident.clone(),
            recipients: b.recipients,
            // The minute may not be over.
            ts: Timestamp(b.until_ms.min(now_ms)),
        };
        Some(Burden {
            relay: relay.to_owned(),
            carried: load.recipients,
            others: load.messages.saturating_sub(load.bursts.iter().map(|b| b.messages).sum()),
            burst: load.bursts.iter().map(share).collect(),
            refused: load.refused.iter().map(|(family, n)| (format!("{family:?}"), *n)).collect(),
            refused_ts: Timestamp(load.refused_until_ms.min(now_ms)),
        })
    };
    settings.members().filter_map(|(_, member)| of(&member.relay, member.host())).collect()
}
