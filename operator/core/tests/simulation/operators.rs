//! Who acts: one operator, another after it, and for a while both.

use evenkeel_operator_core::Decision;
use jiff::SignedDuration;

use crate::{
    dice::{Dice, off_by},
    leader::Leader,
    look,
    world::World,
};

/// Longest that a clock is off by itself, in seconds.
const SKEW: u64 = 120;
/// Longest jump of a clock, in seconds.
const JUMP: u64 = 1800;

/// What came of one look of the operator.
pub struct Look {
    pub quiet: bool,
    pub decision: Decision,
}

pub struct Operators {
    acting: Leader,
    /// One that does not know that another has taken over: it acts so often still, on what it saw until then.
    deposed: Option<(Leader, u64)>,
}

impl Operators {
    pub fn new(world: &World) -> Self {
        Self { acting: Leader::new(world, SignedDuration::ZERO), deposed: None }
    }

    /// A look of each that thinks that it is its turn.
    pub fn decide(&mut self, world: &mut World, dice: &mut Dice) -> Look {
        if dice.one_in(12) {
            self.take_over(world, dice);
        } else if dice.one_in(60) {
            world.seen.add("clock jumped");
            self.acting.skew = off_by(dice, JUMP);
        }
        let late = dice.one_in(2);
        if late {
            self.decide_deposed(world, dice);
        }
        self.acting.watch(world, dice, true);
        let (killed, look) = look::disturbed(&mut self.acting, world, dice);
        if killed {
            self.acting = Leader::new(world, off_by(dice, SKEW));
        }
        if !late {
            self.decide_deposed(world, dice);
        }
        look
    }

    /// A look without faults.
    pub fn decide_calmly(&mut self, world: &mut World, dice: &mut Dice) -> Look {
        self.deposed = None;
        self.acting.skew = SignedDuration::ZERO;
        self.acting.watch(world, dice, false);
        look::calm(&mut self.acting, world, dice)
    }

    fn take_over(&mut self, world: &mut World, dice: &mut Dice) {
        let next = Leader::new(world, off_by(dice, SKEW));
        let old = std::mem::replace(&mut self.acting, next);
        self.deposed = dice.one_in(3).then(|| (old, 1 + dice.roll(4)));
    }

    fn decide_deposed(&mut self, world: &mut World, dice: &mut Dice) {
        let Some((mut leader, left)) = self.deposed.take() else { return };
        world.seen.add("two leaders");
        leader.ask_only(world);
        world.begins_strays = true;
        let (killed, _) = look::disturbed(&mut leader, world, dice);
        world.begins_strays = false;
        if left > 1 && !killed {
            self.deposed = Some((leader, left - 1));
        }
    }
}
