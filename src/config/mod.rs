//! Configuration: one TOML file, unknown keys refused, every key documented in `reference.toml`.
