//! Numbers that look like chance and are the same every time.

/// A generator of 64 bits of state (splitmix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    /// Of its own for each combination of numbers, so that what one account does depends on no other.
    pub(super) fn of(numbers: &[u64]) -> Self {
        let mut dice = Self(0);
        for &n in numbers {
            dice.0 = dice.next() ^ n;
        }
        dice.next();
        dice
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `n`; 0 where there is nothing below it.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// From 0 up to, but not including, 1.
    pub(super) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.share() < probability
    }

    /// One of them.
    pub(super) fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.get(self.below(of.len() as u64) as usize).copied().unwrap_or("")
    }

    /// How many, where so many are expected (Poisson; Knuth, "The Art of Computer Programming", volume 2, 3.4.1).
    pub(super) fn about(&mut self, mean: f64) -> u32 {
        // The product of shares below e^-mean; for what a mailbox sends a day that is quick, and beyond it nobody can tell.
        let (floor, mut product, mut n) = ((-mean.min(500.0)).exp(), self.share(), 0);
        while product > floor && n < 2000 {
            product *= self.share();
            n += 1;
        }
        n
    }
}
