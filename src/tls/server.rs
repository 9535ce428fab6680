//! The listening side (next).
