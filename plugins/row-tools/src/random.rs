//! Draws that depend on a row and not on what was built before it.

/// SplitMix64 seeded by a row: the same row draws the same, wherever it stands.
#[derive(Debug, Clone)]
pub struct Draws(u64);

impl Draws {
    /// For one seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// For the row `id` under the configuration's `seed`.
    pub fn of_row(seed: u64, id: u64) -> Self {
        let mut seeded = Self(seed);
        Self(seeded.next_u64() ^ id.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`; 0 for a bound of 0. The bias is below 2^-32 for bounds below 2^32.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_rows_draw_differently_and_the_same_row_the_same() {
        let draw = |id| Draws::of_row(7, id).below(1000);
        assert_eq!(draw(3), draw(3));
        let mut all: Vec<usize> = (0..100).map(draw).collect();
        all.sort_unstable();
        all.dedup();
        assert!(all.len() > 80, "{}", all.len());
        let mean = (0..1000).map(|id| Draws::of_row(0, id).unit()).sum::<f64>() / 1000.0;
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
        assert_eq!(Draws::new(0).next_u64(), 0xe220_a839_7b1d_cdaf);
    }
}
