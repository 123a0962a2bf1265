//! Component tests of Evenkeel; each file in `tests/` is one subject.
