//! The incident report: what a reviewer reads, prints and passes on.
