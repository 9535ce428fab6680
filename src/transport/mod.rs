//! What speaks bytes: the connector to one unix socket, the guard before tonic's reading of statuses, and the generated
//! protocol code.

pub mod connector;
pub mod pb;
pub mod status;
