//! What the directory says of whole customers, as decisions: what is to be decided and what to be taken back, so that what stands is
//! what the directory has. Pure.

use std::collections::{BTreeMap, HashSet};

use super::feedback::record::{Decided, Kind, Whom};
use super::feedback::wish::NewDecision;
use crate::directory::Directory;
use crate::event::Timestamp;

/// Who decides what the directory says, as the audit has it.
pub const BY: &str = "directory";
const DAY_MS: i64 = 86_400_000;
/// A decision lasts for so long, and is made anew when so much is left of it: an exemption may last a year.
const LASTS_MS: i64 = 360 * DAY_MS;
const RENEW_MS: i64 = 30 * DAY_MS;
/// What is to begin when another ends must do so this much later than now.
const AHEAD_MS: i64 = 60_000;

/// What makes that which stands what is wanted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Differences {
    /// What is to be decided.
    pub new: Vec<NewDecision>,
    /// Ids of what is to be taken back.
    pub over: Vec<String>,
}

/// One thing that is wanted of a customer.
#[derive(Debug, Clone, PartialEq, Default)]
struct One {
    factor: Option<f64>,
    decades: Option<f64>,
    stratum: Option<String>,
}

/// Compares what the directory has with what was `decided` by it, at `now_ms`, in milliseconds since 1970. What a person has taken
/// back stays so, until the directory says something else.
pub fn differences<'a>(directory: &Directory, decided: impl Iterator<Item = &'a Decided>, now_ms: i64) -> Differences {
    let mut wanted: BTreeMap<(String, &str), (Kind, One)> = BTreeMap::new();
    for tenant in directory.tenants() {
        let Some(policy) = &tenant.policy else { continue };
        let Some(scope) = Whom::Tenant.scope(&tenant.tenant) else { continue };
        let mut want = |what: Kind, one| wanted.insert((scope.name().into_owned(), what.name()), (what, one));
        if let Some(factor) = policy.exempt {
            want(Kind::Exempt, One { factor: Some(factor), ..One::default() });
        }
        if let Some(decades) = policy.tolerate {
            want(Kind::Tolerate, One { decades: Some(decades), ..One::default() });
        }
        if let Some(stratum) = &policy.stratum {
            want(Kind::Pin, One { stratum: Some(stratum.to_string()), ..One::default() });
        }
    }
    let mut differences = Differences::default();
    let (mut until, mut refused) = (BTreeMap::new(), HashSet::new());
    for d in decided.filter(|d| d.scope == Whom::Tenant && d.by == BY) {
        let key = (d.name.clone(), d.what.name());
        let says = One { factor: d.factor, decades: d.decades, stratum: d.stratum.clone() };
        let is_wanted = wanted.get(&key).is_some_and(|(_, one)| *one == says);
        let ends_ms = d.until.map_or(i64::MAX, |until| until.0);
        match &d.taken_back {
            Some(word) if is_wanted && word.by != BY => drop(refused.insert(key)),
            Some(_) => {}
            None if ends_ms <= now_ms => {}
            None if is_wanted => {
                let known = until.entry(key).or_insert(ends_ms);
                *known = ends_ms.max(*known);
            }
            None => differences.over.push(d.id.clone()),
        }
    }
    for (key, (what, one)) in wanted {
        let ends_ms = until.get(&key).copied();
        if refused.contains(&key) || ends_ms.is_some_and(|at| at > now_ms + RENEW_MS) {
            continue;
        }
        let from_ms = ends_ms.filter(|at| *at > now_ms + AHEAD_MS);
        differences.new.push(NewDecision {
            scope: Whom::Tenant,
            name: key.0,
            what,
            factor: one.factor,
            decades: one.decades,
            stratum: one.stratum,
            from: from_ms.map(Timestamp),
            until: Timestamp(from_ms.unwrap_or(now_ms) + LASTS_MS),
            note: "the customer's policy in the directory".to_owned(),
        });
    }
    differences.over.sort_unstable();
    differences
}
