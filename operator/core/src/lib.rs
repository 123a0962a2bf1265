//! The rollout planner: pure decisions over a snapshot of the fleet.
