//! The stored form of a shard, and its versions.
