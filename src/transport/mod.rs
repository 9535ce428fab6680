//! What speaks bytes: the connector to one unix socket and what it was refused for, the guard before tonic's reading of
//! statuses, and the generated protocol code.

pub mod connector;
pub mod denied;
pub mod pb;
pub mod status;
