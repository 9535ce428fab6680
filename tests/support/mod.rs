//! What several test files share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of it")]

pub mod fixture;
pub mod gateway;
