//! Tail probabilities against exact sums of our own: no special function, only products and sums.

use mailfuse::core::tail::{DECADES_MAX, beta_binomial, gamma_poisson, gamma_poisson_limit};

/// A sum of many small numbers that loses nothing on the way (Kahan).
#[derive(Default, Clone, Copy)]
struct Exact {
    sum: f64,
    lost: f64,
}

impl Exact {
    fn add(&mut self, x: f64) {
        let x = x - self.lost;
        let sum = self.sum + x;
        self.lost = (sum - self.sum) - x;
        self.sum = sum;
    }
}

/// -log10 of the sum of terms given by their logarithms: relative to the largest, added from the small end.
fn decades(mut terms_ln: Vec<f64>) -> f64 {
    terms_ln.sort_by(f64::total_cmp);
    let largest_ln = terms_ln.last().copied().unwrap_or(f64::NEG_INFINITY);
    let mut sum = Exact::default();
    terms_ln.into_iter().for_each(|t| sum.add((t - largest_ln).exp()));
    -(largest_ln + sum.sum.ln()) / std::f64::consts::LN_10
}

/// P(N >= n) of the negative binomial with shape `a` and success probability b/(b+w), by the ratio of neighbouring terms.
fn negative_binomial(n: u32, w: f64, a: f64, b: f64) -> f64 {
    let q = w / (b + w);
    let ratio = |k: f64| (k + a) / (k + 1.0) * q;
    let mut ln = Exact::default();
    ln.add(a * (b / (b + w)).ln());
    for k in 0..n {
        ln.add(ratio(f64::from(k)).ln());
    }
    let (mut terms_ln, mut largest_ln, mut k) = (Vec::new(), ln.sum, f64::from(n));
    // What is left out is at most a geometric series behind the last term.
    while ratio(k).max(q) >= 1.0 || ln.sum - (1.0 - ratio(k).max(q)).ln() > largest_ln - 37.0 {
        terms_ln.push(ln.sum);
        ln.add(ratio(k).ln());
        largest_ln = largest_ln.max(ln.sum);
        k += 1.0;
    }
    decades(terms_ln)
}

/// P(K >= refused) of the beta-binomial distribution.
fn beta_binomial_exactly(refused: u32, answered: u32, alpha: f64, beta: f64) -> f64 {
    let n = f64::from(answered);
    let ratio = |k: f64| (n - k) / (k + 1.0) * (alpha + k) / (beta + n - k - 1.0);
    let mut ln = Exact::default();
    for i in 0..answered {
        let i = f64::from(i);
        ln.add(((beta + i) / (alpha + beta + i)).ln());
    }
    for k in 0..refused {
        ln.add(ratio(f64::from(k)).ln());
    }
    let mut terms_ln = vec![ln.sum];
    for k in refused..answered {
        ln.add(ratio(f64::from(k)).ln());
        terms_ln.push(ln.sum);
    }
    decades(terms_ln)
}

/// The relative error of the probability, given both surprises in decades.
fn relative(a: f64, b: f64) -> f64 {
    ((a - b) * std::f64::consts::LN_10).exp_m1().abs()
}

/// Shapes and rates from the emptiest account (a tenth of the prior) to one with a long past, exposures from a minute's to a
/// week's.
fn posteriors() -> impl Iterator<Item = (f64, f64, f64)> {
    const SHAPES: [f64; 7] = [0.04, 0.4, 0.9, 1.0, 2.37, 17.5, 240.0];
    const DAYS: [f64; 4] = [0.05, 0.5, 2.25, 9.0];
    const EXPOSURES: [f64; 5] = [0.0007, 0.05, 0.28, 1.0, 7.0];
    SHAPES.into_iter().flat_map(|a| DAYS.into_iter().flat_map(move |b| EXPOSURES.into_iter().map(move |w| (w, a, b))))
}

#[test]
fn new_recipients_surprise_as_the_negative_binomial_says() {
    let (mut cells, mut deepest) = (0, 0.0);
    for (w, a, b) in posteriors() {
        for n in [1, 2, 3, 5, 8, 13, 30, 75, 200, 500, 1500, 4000] {
            let exact = negative_binomial(n, w, a, b);
            if exact > 200.0 {
                continue;
            }
            let ours = gamma_poisson(f64::from(n), w, a, b);
            assert!(relative(ours, exact) < 1e-6, "n {n} w {w} a {a} b {b}: {ours} for {exact}");
            cells += 1;
            deepest = f64::max(deepest, exact);
        }
    }
    assert!(cells > 800 && deepest > 190.0, "{cells} cells, the deepest at {deepest}: the grid has lost its tails");
}

#[test]
fn a_count_between_two_surprises_between_them() {
    for (w, a, b) in posteriors() {
        for n in [1.0, 4.0, 40.0] {
            let [low, middle, high] = [n, n + 0.5, n + 1.0].map(|n| gamma_poisson(n, w, a, b));
            assert!(low <= middle && middle <= high, "n {n} w {w} a {a} b {b}: {low} {middle} {high}");
        }
    }
}

#[test]
fn the_limit_is_the_smallest_count_that_surprises_so_much() {
    for (w, a, b) in posteriors() {
        for decades in [0.5, 2.0, 7.5, 10.5, 19.0, 60.0] {
            let limit = gamma_poisson_limit(decades, w, a, b);
            let below = limit - 2e-3 * limit.max(1.0);
            assert!(
                gamma_poisson(limit, w, a, b) >= decades,
                "{decades} decades, w {w} a {a} b {b}: {limit} is too few"
            );
            assert!(
                gamma_poisson(below, w, a, b) < decades,
                "{decades} decades, w {w} a {a} b {b}: {limit} is too many"
            );
        }
    }
}

#[test]
fn refusals_surprise_as_the_beta_binomial_says() {
    let mut deepest = 0.0;
    for alpha in [0.05, 0.5, 1.0, 3.3, 12.0, 29.0] {
        for beta in [0.7, 1.0, 4.5, 10.0, 29.5] {
            for answered in [1, 2, 5, 10, 29, 100, 255, 256] {
                for refused in (1..=answered).filter(|k| *k <= 12 || k % 17 == 0 || *k == answered) {
                    let exact = beta_binomial_exactly(refused, answered, alpha, beta);
                    let ours = beta_binomial(refused, answered, alpha, beta);
                    assert!(
                        relative(ours, exact) < 1e-6,
                        "{refused} of {answered}, {alpha}, {beta}: {ours} for {exact}"
                    );
                    deepest = f64::max(deepest, exact);
                }
            }
        }
    }
    assert!(deepest > 30.0, "the deepest at {deepest}: the grid has lost its tails");
}

/// More answers than the sum goes over are scaled down, so that it stays short: that may cost surprise (most where all are
/// refused, far above every cap), and never adds any.
#[test]
fn very_many_answers_surprise_no_more_than_they_should() {
    for (refused, answered) in [(60, 300), (300, 1000), (1000, 1000), (2000, 20_000)] {
        let (ours, exact) =
            (beta_binomial(refused, answered, 0.5, 10.0), beta_binomial_exactly(refused, answered, 0.5, 10.0));
        assert!(ours > 0.7 * exact && ours < exact + 0.01, "{refused} of {answered}: {ours} for {exact}");
    }
}

#[test]
fn nothing_is_no_surprise_and_no_surprise_is_endless() {
    assert_eq!(gamma_poisson(0.0, 1.0, 0.4, 0.5), 0.0);
    assert_eq!(gamma_poisson(5.0, 0.0, 0.4, 0.5), 0.0);
    assert_eq!(beta_binomial(0, 10, 0.5, 10.0), 0.0);
    assert_eq!(gamma_poisson(1e6, 0.0007, 0.4, 9.0), DECADES_MAX);
}
