//! What speaks bytes: the connector to one unix socket, and the generated protocol code.

pub mod connector;
pub mod pb;
