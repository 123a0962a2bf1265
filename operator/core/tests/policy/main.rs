//! What each part of a policy means, case by case.

mod budgets;
mod changes;
mod failures;
mod first;
mod fleet;
mod live;
mod minimum;
mod recovery;
mod reset;
mod steps;
mod times;
mod turns;
