//! Tail probabilities, in decades of surprise: -log10 of the probability of seeing at least this much.
//!
//! The special functions come from statrs; tests hold the tails against exact sums.

use statrs::function::beta::{checked_beta_reg, ln_beta};
use statrs::function::factorial::ln_binomial;

/// No surprise is larger: beyond it doubles have underflowed.
pub const DECADES_MAX: f64 = 300.0;

/// Surprise of at least `n` events in an exposure of `w`, the rate having the posterior Gamma(shape `a`, rate `b`).
///
/// The predictive count is negative binomial with shape `a` and success probability b/(b+w); its upper tail is the
/// regularised incomplete beta function I_{w/(b+w)}(n, a) (NIST DLMF 8.17.5), which also serves where `n` is not whole.
/// Relative error of the decades below 1e-9 for shapes to 20,000, counts to 40,000 and tails to 1e-290.
pub fn gamma_poisson(n: f64, w: f64, a: f64, b: f64) -> f64 {
    if n <= 0.0 || w <= 0.0 || a <= 0.0 || b <= 0.0 {
        return 0.0;
    }
    decades(checked_beta_reg(n, a, w / (b + w)).unwrap_or(1.0))
}

/// At least [`gamma_poisson`], at a third of its cost: the first term of the power series of the incomplete beta function,
/// x^n (1-x)^a / (n B(n, a)) (NIST DLMF 8.17.8), all terms of which are positive.
pub fn gamma_poisson_bound(n: f64, w: f64, a: f64, b: f64) -> f64 {
    if n <= 0.0 || w <= 0.0 || a <= 0.0 || b <= 0.0 {
        return 0.0;
    }
    let x = w / (b + w);
    let first_ln = n * x.ln() + a * (-x).ln_1p() - n.ln() - ln_beta(n, a);
    (-first_ln / std::f64::consts::LN_10).clamp(0.0, DECADES_MAX)
}

/// The smallest count whose surprise reaches `decades`: the inverse of [`gamma_poisson`] in `n`, within 1/1000.
pub fn gamma_poisson_limit(decades: f64, w: f64, a: f64, b: f64) -> f64 {
    let enough = |n: f64| gamma_poisson(n, w, a, b) >= decades;
    let mut high = 1.0;
    while !enough(high) && high < 1e9 {
        high *= 2.0;
    }
    let mut low = 0.0;
    while high - low > 1e-3 * high.max(1.0) {
        let middle = f64::midpoint(low, high);
        if enough(middle) { high = middle } else { low = middle }
    }
    high
}

/// Answers beyond this many are scaled down with their refusals: a little less surprise (the posterior is never as narrow as
/// so many answers would allow to tell), and a bound on the sum.
const ANSWERS_MAX: u32 = 256;

/// Surprise of at least `refused` refusals among `answered` answers, the share of refusals having the posterior
/// Beta(`alpha`, `beta`): the upper tail of the beta-binomial distribution, summed from its probability function
/// C(n,k) B(k+alpha, n-k+beta) / B(alpha, beta). Relative error of the decades below 1e-8 up to 256 answers; beyond, at most
/// 0.01 decades too many, and (from a `beta` of 10 on) of the first ten decades at most 15 % and 0.05 too few.
pub fn beta_binomial(refused: u32, answered: u32, alpha: f64, beta: f64) -> f64 {
    if refused == 0 || alpha <= 0.0 || beta <= 0.0 {
        return 0.0;
    }
    let answered = answered.max(refused);
    let (k, n) = match answered {
        n if n > ANSWERS_MAX => ((u64::from(refused) * u64::from(ANSWERS_MAX) / u64::from(n)) as u32, ANSWERS_MAX),
        n => (refused, n),
    };
    if k == 0 {
        return 0.0;
    }
    let (kf, nf) = (f64::from(k), f64::from(n));
    let first_ln = ln_binomial(u64::from(n), u64::from(k)) + ln_beta(kf + alpha, nf - kf + beta) - ln_beta(alpha, beta);
    // Relative to the first term, by the ratio of neighbouring terms: no term can underflow alone.
    let (mut sum, mut term) = (1.0, 1.0);
    for i in k..n {
        let i = f64::from(i);
        term *= (nf - i) / (i + 1.0) * (alpha + i) / (beta + nf - i - 1.0);
        sum += term;
        if term < 1e-9 * sum {
            break;
        }
    }
    (-(first_ln + f64::ln(sum)) / std::f64::consts::LN_10).clamp(0.0, DECADES_MAX)
}

fn decades(p: f64) -> f64 {
    // Also what is no number, as at an infinite count, is nothing that was ever seen.
    if p > 0.0 { (-p.log10()).clamp(0.0, DECADES_MAX) } else { DECADES_MAX }
}
