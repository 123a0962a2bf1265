//! The client of image registries that operator and agent share.
