//! A small deterministic source of choices (xorshift64*), so that a seed replays exactly.

use jiff::SignedDuration;

pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    pub fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }
}

/// How far a clock is off, at most so many seconds.
pub fn off_by(dice: &mut Dice, most: u64) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(dice.roll(2 * most)).unwrap() - i64::try_from(most).unwrap())
}
