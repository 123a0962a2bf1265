//! The cluster-side controller: gathers what the planner needs, and does what it decides.
