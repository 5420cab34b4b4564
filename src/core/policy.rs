//! What the detector is told once: windows, the fleet's prior, thresholds, bounds. Section `[detect]` of the configuration.

use serde::{Deserialize, Serialize};

use super::baseline::Rate;
use super::window::Spans;

/// A gamma prior of a daily rate, and how much a day of the account's own weighs against it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatePrior {
    /// Shape.
    pub shape: f64,
    /// Rate, in days: shape/days is the mean a day.
    pub days: f64,
    /// Over-dispersion: that many days of the account's own weigh as one independent day.
    pub dispersion: f64,
    /// The posterior is never narrower than with this shape, its mean as it is: a great rate is no steadier for being great.
    pub shape_max: f64,
}

impl RatePrior {
    /// The posterior after a decayed sum over a decayed number of days.
    pub fn posterior(&self, sum: f64, days: f64) -> Rate {
        let (shape, days) = (self.shape + sum / self.dispersion, self.days + days / self.dispersion);
        let scale = (self.shape_max / shape).min(1.0);
        Rate { shape: shape * scale, days: days * scale }
    }
}

/// The fleet's prior, learned by calibration, never on the fly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prior {
    /// Damped new recipients a day.
    pub new_recipients: RatePrior,
    /// Damped recipients a day, known or not.
    pub volume: RatePrior,
    /// A window of a fraction f of a day is exposed like f^concentration days: people write in bursts.
    pub concentration: f64,
    /// Days after which what was learned has faded to a third.
    pub memory_days: f64,
    /// A day teaches at most what would have been a surprise of so many decades.
    pub clamp_decades: f64,
    /// Beta prior of the share of refusals: refused.
    pub refused: f64,
    /// Beta prior of the share of refusals: accepted.
    pub accepted: f64,
    /// The posterior of the share of refusals is never narrower than after so many answers.
    pub answers_known_max: f64,
    /// Active days after which learned refusals have faded to a third.
    pub refusal_memory_days: f64,
    /// Answers of one day that teach, at most.
    pub answers_max: f64,
    /// Beta prior of the share of active days with a client network never seen before: such days.
    pub foreign_days: f64,
    /// The same: all days.
    pub active_days: f64,
}

impl Default for Prior {
    fn default() -> Self {
        Self {
            new_recipients: RatePrior { shape: 0.4, days: 0.5, dispersion: 4.0, shape_max: 25.0 },
            volume: RatePrior { shape: 0.5, days: 0.2, dispersion: 4.0, shape_max: 25.0 },
            concentration: 0.4,
            memory_days: 7.0,
            clamp_decades: 2.0,
            refused: 0.5,
            accepted: 10.0,
            answers_known_max: 30.0,
            refusal_memory_days: 30.0,
            answers_max: 200.0,
            foreign_days: 0.15,
            active_days: 3.0,
        }
    }
}

/// Thresholds and caps of one stratum of accounts, in decades of surprise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// A `warning` from this score on.
    pub warning: f64,
    /// `critical` from this score on, where refusals or networks corroborate.
    pub critical: f64,
    /// `critical` from this surprise of new recipients on, alone. Infinite: never.
    pub alone: f64,
    /// A `warning` from this surprise of new recipients on, alone.
    pub alone_warning: f64,
    /// New recipients add at most this.
    pub new_recipients_max: f64,
    /// Each decade of foreign networks raises that cap by so many: what comes over them is not volume alone.
    pub foreign_raises: f64,
    /// Refusals and complaints add at most this.
    pub refusals_max: f64,
}

impl Threshold {
    /// The cap of new recipients beside so many decades of foreign networks.
    pub fn new_max(&self, networks: f64) -> f64 {
        self.new_recipients_max + self.foreign_raises * networks
    }

    /// With every bar raised by so many decades.
    #[must_use]
    pub fn raised(&self, decades: f64) -> Self {
        Self {
            warning: self.warning + decades,
            critical: self.critical + decades,
            alone: self.alone + decades,
            alone_warning: self.alone_warning + decades,
            ..self.clone()
        }
    }
}

/// Thresholds by stratum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// An account met in the first days of all history, and not yet known: nobody can say whether it is new.
    pub unknown: Threshold,
    /// An account that appeared later and has few days of its own.
    pub new: Threshold,
    /// An account with a past.
    pub established: Threshold,
    /// An account that has earned to write to many strangers.
    pub bulk: Threshold,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            unknown: Threshold {
                warning: 8.0,
                critical: 10.5,
                alone: f64::INFINITY,
                alone_warning: 16.0,
                new_recipients_max: 3.5,
                foreign_raises: 2.0,
                refusals_max: 5.0,
            },
            new: Threshold {
                warning: 7.0,
                critical: 9.5,
                alone: 16.0,
                alone_warning: 10.0,
                new_recipients_max: 7.5,
                foreign_raises: 0.0,
                refusals_max: 4.0,
            },
            established: Threshold {
                warning: 7.5,
                critical: 10.5,
                alone: 19.0,
                alone_warning: 10.0,
                new_recipients_max: 8.0,
                foreign_raises: 0.0,
                refusals_max: 4.0,
            },
            bulk: Threshold {
                warning: 8.0,
                critical: 10.5,
                alone: 24.0,
                alone_warning: 12.0,
                new_recipients_max: 7.0,
                foreign_raises: 0.0,
                refusals_max: 5.0,
            },
        }
    }
}

/// The detector's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Detect {
    /// Spans of the sliding windows, in seconds, ascending.
    pub windows_s: Vec<u32>,
    /// Windows shorter than this count, but decide nothing.
    pub decide_from_s: u32,
    /// An account met this soon after the beginning of all history is `unknown`, in days.
    pub unknown_days: u32,
    /// Days of its own after which an account is established.
    pub established_days: u32,
    /// An account is bulk from this learned rate of damped new recipients a day.
    pub bulk_new_a_day: f64,
    /// An incident is cleared when its account has been below the warning for this long, in seconds.
    pub quiet_s: u32,
    /// An event may be this late behind the newest of its partition, in seconds.
    pub lateness_s: u32,
    /// A repeat of an event's `id` is dropped within this span of event time, in seconds.
    pub repeat_s: u32,
    /// An account idle for this long is forgotten, in days.
    pub forget_days: u32,
    /// Sends of one account that are remembered for tying outcomes and for its burst.
    pub sends_max: usize,
    /// Client networks that carry many accounts (webmail, gateways): they say nothing about one account.
    pub shared_networks: Vec<ipnet::IpNet>,
    /// The fleet's prior.
    pub prior: Prior,
    /// Thresholds by stratum.
    pub thresholds: Thresholds,
}

impl Default for Detect {
    fn default() -> Self {
        Self {
            windows_s: Spans::default().all_s().to_vec(),
            decide_from_s: 600,
            unknown_days: 7,
            established_days: 3,
            bulk_new_a_day: 8.0,
            quiet_s: 12 * 3600,
            lateness_s: 300,
            repeat_s: 3600,
            forget_days: 400,
            sends_max: 1024,
            shared_networks: Vec::new(),
            prior: Prior::default(),
            thresholds: Thresholds::default(),
        }
    }
}

/// The policy in force: the configuration, checked, with what is derived from it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policy {
    /// Program version and configuration digest, written into every alert.
    pub by: String,
    /// Key of the fingerprints.
    pub key: [u8; 16],
    /// The windows.
    pub spans: Spans,
    /// Everything else.
    pub detect: Detect,
    /// Of each window: its exposure in days, and the damped new recipients that reach 0, 1, 2, … decades of surprise under the
    /// rarest posterior that an account can have.
    derived: Vec<(f64, [f64; FLOORS])>,
}

/// The key of the fingerprints where nobody has set one: whoever reads this source has it. The first 16 bytes of the SHA-256 of
/// "mailfuse: a public key; set your own".
pub const PUBLIC_KEY: [u8; 16] = 0xf108_3fe3_f764_449c_e704_4152_a5cc_f3bd_u128.to_be_bytes();

/// Decades for which [`Policy::floor_new`] is tabled.
const FLOORS: usize = 16;

/// A policy that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// `windows_s`.
    #[error("detect.windows_s: {0}")]
    Windows(#[from] super::window::BadSpans),
    /// A number that must be positive and finite.
    #[error("detect.{0} must be above zero")]
    NotPositive(&'static str),
    /// More sends than any account may remember: its stored form is bounded.
    #[error("detect.sends_max must be at most {}", super::sends::SENDS_MAX)]
    Sends,
    /// A warning above critical.
    #[error("detect.thresholds.{0}: warning must not be above critical")]
    Order(&'static str),
}

fn derive(prior: &Prior, span_s: u32) -> (f64, [f64; FLOORS]) {
    let days = f64::from(span_s) / 86_400.0;
    let exposure = if days < 1.0 { days.powf(prior.concentration) } else { days };
    let rarest = prior.new_recipients.posterior(0.0, prior.memory_days);
    let mut floors = [0.0; FLOORS];
    for (decades, floor) in floors.iter_mut().enumerate().skip(1) {
        // A little below, because the limit is found within 1/1000.
        *floor = rarest.limit(decades as f64, exposure) * 0.998;
    }
    (exposure, floors)
}

impl Policy {
    /// Checks `detect` and takes it over.
    ///
    /// # Errors
    /// Where a value cannot be used; the error names its key.
    pub fn new(detect: Detect, key: [u8; 16], by: String) -> Result<Self, BadPolicy> {
        let spans = Spans::new(detect.windows_s.clone())?;
        let p = &detect.prior;
        for (name, value) in [
            ("prior.new_recipients.shape", p.new_recipients.shape),
            ("prior.new_recipients.days", p.new_recipients.days),
            ("prior.new_recipients.dispersion", p.new_recipients.dispersion),
            ("prior.new_recipients.shape_max", p.new_recipients.shape_max),
            ("prior.volume.shape", p.volume.shape),
            ("prior.volume.days", p.volume.days),
            ("prior.volume.dispersion", p.volume.dispersion),
            ("prior.volume.shape_max", p.volume.shape_max),
            ("prior.concentration", p.concentration),
            ("prior.memory_days", p.memory_days - 1.0),
            ("prior.clamp_decades", p.clamp_decades),
            ("prior.refused", p.refused),
            ("prior.accepted", p.accepted),
            ("prior.answers_known_max", p.answers_known_max),
            ("prior.refusal_memory_days", p.refusal_memory_days - 1.0),
            ("prior.answers_max", p.answers_max),
            ("prior.foreign_days", p.foreign_days),
            ("prior.active_days", p.active_days - p.foreign_days),
            ("sends_max", detect.sends_max as f64),
            ("quiet_s", f64::from(detect.quiet_s)),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(BadPolicy::NotPositive(name));
            }
        }
        if detect.sends_max > super::sends::SENDS_MAX {
            return Err(BadPolicy::Sends);
        }
        let t = &detect.thresholds;
        for (name, t) in [("unknown", &t.unknown), ("new", &t.new), ("established", &t.established), ("bulk", &t.bulk)]
        {
            if t.warning > t.critical {
                return Err(BadPolicy::Order(name));
            }
        }
        let derived = spans.all_s().iter().map(|&span_s| derive(&detect.prior, span_s)).collect();
        Ok(Self { by, key, spans, detect, derived })
    }

    /// Whether alerts tell fingerprints of recipients: under a key that everybody has, they would tell who the recipients are to
    /// whoever tries addresses.
    pub fn tells_recipients(&self) -> bool {
        self.key != PUBLIC_KEY
    }

    /// A window's exposure in days: a fraction f of a day counts as f^concentration, because people write in bursts.
    pub fn exposure_days(&self, window: usize) -> f64 {
        self.derived[window].0
    }

    /// Damped new recipients below which no account has a surprise of `decades` in a window.
    pub fn floor_new(&self, window: usize, decades: f64) -> f64 {
        let floors = &self.derived[window].1;
        floors[(decades.max(0.0) as usize).min(FLOORS - 1)]
    }
}
