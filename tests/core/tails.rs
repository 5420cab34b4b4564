//! The tail probabilities against exact sums, written down term by term from the definitions of the distributions.
//!
//! The sums here share nothing with the code: no gamma function, no incomplete beta function. The first term is a sum of
//! logarithms of ratios, the others follow by the ratio of neighbours, and the smallest are added first.

use mailfuse::core::tail::{DECADES_MAX, beta_binomial, gamma_poisson, gamma_poisson_bound, gamma_poisson_limit};

/// A sum of many logarithms that loses no digits (Neumaier).
#[derive(Default)]
struct Exact {
    sum: f64,
    lost: f64,
}

impl Exact {
    fn add(&mut self, x: f64) {
        let sum = self.sum + x;
        self.lost += if self.sum.abs() >= x.abs() { (self.sum - sum) + x } else { (x - sum) + self.sum };
        self.sum = sum;
    }

    fn value(&self) -> f64 {
        self.sum + self.lost
    }
}

/// -log10 of a sum of terms of one hump, the first of which has the logarithm `first_ln`.
fn decades(first_ln: f64, ratio: impl Fn(u32) -> f64, from: u32) -> f64 {
    let (mut terms, mut term, mut largest) = (vec![1.0], 1.0_f64, 1.0_f64);
    for i in from.. {
        term *= ratio(i);
        terms.push(term);
        largest = largest.max(term);
        if largest > 1e200 {
            // All that lies below the first term is smaller than it: nothing is missing.
            return 0.0;
        }
        if term < 1e-20 * largest && ratio(i) < 1.0 {
            break;
        }
    }
    terms.sort_by(f64::total_cmp);
    let mut sum = Exact::default();
    terms.iter().for_each(|&t| sum.add(t));
    -(first_ln + sum.value().ln()) / std::f64::consts::LN_10
}

/// At least `n` where the count is negative binomial with shape `a` and success probability b/(b+w).
fn negative_binomial(n: u32, w: f64, a: f64, b: f64) -> f64 {
    let q = w / (b + w);
    let mut ln = Exact::default();
    ln.add(-a * (w / b).ln_1p());
    for i in 0..n {
        ln.add(((a + f64::from(i)) / (f64::from(i) + 1.0) * q).ln());
    }
    decades(ln.value(), |i| (a + f64::from(i)) / (f64::from(i) + 1.0) * q, n)
}

/// At least `k` of `n` where the share is Beta(`alpha`, `beta`).
fn beta_binomial_sum(k: u32, n: u32, alpha: f64, beta: f64) -> f64 {
    let mut ln = Exact::default();
    for i in 0..k {
        let i = f64::from(i);
        ln.add(((f64::from(n) - i) / (i + 1.0) * (alpha + i) / (alpha + beta + i)).ln());
    }
    for i in 0..n - k {
        let i = f64::from(i);
        ln.add(((beta + i) / (alpha + beta + f64::from(k) + i)).ln());
    }
    let ratio = |i: u32| {
        let (i, n) = (f64::from(i), f64::from(n));
        (n - i) / (i + 1.0) * (alpha + i) / (beta + n - i - 1.0)
    };
    let (mut terms, mut term) = (vec![1.0], 1.0_f64);
    for i in k..n {
        term *= ratio(i);
        terms.push(term);
    }
    terms.sort_by(f64::total_cmp);
    let mut sum = Exact::default();
    terms.iter().for_each(|&t| sum.add(t));
    (-(ln.value() + sum.value().ln()) / std::f64::consts::LN_10).max(0.0)
}

#[track_caller]
fn check(got: f64, exact: f64, relative: f64, what: &str) {
    // Near certainty a decade is a small difference from 1; there the bound is absolute.
    let bound = relative * exact.max(1.0);
    assert!((got - exact).abs() <= bound, "{what}: {got} instead of {exact}, off by {:e}", (got - exact).abs());
}

#[test]
fn gamma_poisson_is_the_exact_sum_far_into_the_tail() {
    let (mut deepest, mut cells) = (0.0_f64, 0);
    for a in [0.1, 0.4, 1.0, 2.75, 10.0, 123.456, 4_000.0, 20_000.0] {
        for b in [0.2, 0.5, 1.75, 2.25, 30.0] {
            for w in [0.02, 0.137, 0.574, 1.0, 7.0] {
                for n in [1, 2, 3, 5, 10, 30, 100, 300, 1_000, 5_000, 40_000] {
                    let exact = negative_binomial(n, w, a, b);
                    if exact > 290.0 {
                        continue;
                    }
                    let what = format!("n={n} w={w} a={a} b={b}");
                    check(gamma_poisson(f64::from(n), w, a, b), exact, 1e-9, &what);
                    deepest = deepest.max(exact);
                    cells += 1;
                }
            }
        }
    }
    assert!(deepest > 250.0 && cells > 1_000, "the grid has {cells} cells and reaches {deepest} decades");
}

/// Damped counts are no whole numbers. With a whole `a` the tail at such an `n` is a finite sum (the mirrored function).
#[test]
fn gamma_poisson_between_whole_counts() {
    for a in [1_u32, 2, 3, 8, 40] {
        for (b, w) in [(0.5, 0.137), (1.75, 1.0), (2.25, 7.0), (30.0, 0.5)] {
            for n in [0.25, 0.585, 1.585, 6.658, 17.3, 99.9, 312.1] {
                let (x, mut terms, mut term) = (w / (b + w), vec![1.0], 1.0);
                for k in 0..a - 1 {
                    let k = f64::from(k);
                    term *= (n + k) / (k + 1.0) * (1.0 - x);
                    terms.push(term);
                }
                let exact = -n * x.log10() - terms.iter().rev().sum::<f64>().log10();
                let exact = exact.min(DECADES_MAX);
                check(gamma_poisson(n, w, f64::from(a), b), exact.max(0.0), 1e-9, &format!("n={n} w={w} a={a} b={b}"));
            }
        }
    }
}

#[test]
fn gamma_poisson_at_its_edges() {
    for (n, w, a, b) in [(0.0, 1.0, 1.0, 1.0), (-1.0, 1.0, 1.0, 1.0), (5.0, 0.0, 1.0, 1.0), (5.0, 1.0, 0.0, 1.0)] {
        assert_eq!(gamma_poisson(n, w, a, b), 0.0, "{n} {w} {a} {b}");
    }
    assert_eq!(gamma_poisson(5.0, 1.0, 1.0, 0.0), 0.0);
    // Beyond what doubles hold.
    assert_eq!(gamma_poisson(1e6, 0.02, 0.4, 2.25), DECADES_MAX);
    assert_eq!(gamma_poisson(f64::INFINITY, 1.0, 1.0, 1.0), DECADES_MAX);
}

#[test]
fn the_limit_is_the_inverse() {
    for a in [0.4, 2.75, 123.456, 4_000.0] {
        for b in [0.5, 1.75, 2.25] {
            for w in [0.137, 0.574, 1.0, 7.0] {
                for decades in [0.1, 1.0, 2.0, 7.5, 19.0, 100.0, 250.0] {
                    let limit = gamma_poisson_limit(decades, w, a, b);
                    let what = format!("decades={decades} w={w} a={a} b={b}: {limit}");
                    assert!(gamma_poisson(limit, w, a, b) >= decades, "{what} is too few");
                    let less = limit - 1.001e-3 * limit.max(1.0);
                    assert!(less <= 0.0 || gamma_poisson(less, w, a, b) < decades, "{what} is too many");
                }
            }
        }
    }
}

#[test]
fn beta_binomial_is_the_exact_sum_far_into_the_tail() {
    let (mut deepest, mut cells) = (0.0_f64, 0);
    for alpha in [0.01, 0.1, 0.5, 1.43, 3.0, 29.0] {
        for beta in [0.05, 1.0, 10.0, 28.57, 1_000.0] {
            for n in [1, 2, 7, 18, 60, 255, 256] {
                for k in [1, 2, n / 10, n / 3, n / 2, n - 1, n].into_iter().filter(|k| (1..=n).contains(k)) {
                    let exact = beta_binomial_sum(k, n, alpha, beta);
                    check(beta_binomial(k, n, alpha, beta), exact, 1e-8, &format!("{k} of {n}, {alpha} {beta}"));
                    deepest = deepest.max(exact);
                    cells += 1;
                }
            }
        }
    }
    assert!(deepest > 100.0 && cells > 1_000, "the grid has {cells} cells and reaches {deepest} decades");
}

/// Beyond 256 answers the numbers are scaled down: bounded work, and a little less surprise rather than more.
#[test]
fn more_answers_than_are_summed_say_no_more_than_they_do() {
    for (alpha, beta) in [(0.5, 10.0), (1.43, 28.57), (10.0, 20.0), (20.0, 10.0)] {
        for n in [257_u32, 300, 512, 1_000, 5_000] {
            for percent in [1, 3, 5, 10, 20, 33, 50, 80, 100] {
                let k = (n * percent / 100).max(1);
                let (got, exact) = (beta_binomial(k, n, alpha, beta), beta_binomial_sum(k, n, alpha, beta));
                let what = format!("{k} of {n}, {alpha} {beta}: {got} for {exact}");
                assert!(got <= exact + 0.01, "{what}: more surprise");
                // No stratum gives refusals more than 5 decades; below 10 at most 15 % are lost.
                assert!(got >= 0.85 * exact.min(10.0) - 0.05, "{what}: much less surprise");
            }
        }
    }
    // The sum stays bounded however large the numbers.
    assert!(beta_binomial(u32::MAX, u32::MAX, 0.5, 10.0) > 5.0);
}

#[test]
fn beta_binomial_at_its_edges() {
    assert_eq!(beta_binomial(0, 10, 0.5, 10.0), 0.0);
    assert_eq!(beta_binomial(0, 0, 0.5, 10.0), 0.0);
    assert_eq!(beta_binomial(3, 10, 0.0, 10.0), 0.0);
    // Refusals whose answers have left the window are answers too.
    assert_eq!(beta_binomial(5, 2, 0.5, 10.0), beta_binomial(5, 5, 0.5, 10.0));
    // All refused: the product of (alpha + i) / (alpha + beta + i).
    let all: f64 = (0..8).map(|i| (0.5 + f64::from(i)) / (10.5 + f64::from(i))).product();
    check(beta_binomial(8, 8, 0.5, 10.0), -all.log10(), 1e-9, "8 of 8");
    // More refused of as many is never less surprising, nor the same of fewer.
    for k in 1..40 {
        assert!(beta_binomial(k + 1, 40, 0.5, 10.0) >= beta_binomial(k, 40, 0.5, 10.0));
        assert!(beta_binomial(k, 40, 0.5, 10.0) >= beta_binomial(k, 41, 0.5, 10.0));
    }
}

#[test]
fn the_cheap_bound_is_never_below_the_surprise() {
    for a in [0.04, 0.4, 1.0, 3.7, 25.0, 240.0] {
        for w in [0.13, 0.28, 1.0, 7.0] {
            for b in [0.5, 2.25, 9.0] {
                for n in [0.3, 1.0, 2.6, 8.0, 40.0, 333.3] {
                    let (exact, bound) = (gamma_poisson(n, w, a, b), gamma_poisson_bound(n, w, a, b));
                    assert!(bound >= exact - 1e-9, "n {n}, w {w}, a {a}, b {b}: {bound} < {exact}");
                    // And it is of use: far out both fall alike.
                    assert!(
                        n < 40.0 || exact < 3.0 || bound < exact + 2.0,
                        "n {n}, w {w}, a {a}, b {b}: {bound}, {exact}"
                    );
                }
            }
        }
    }
}
