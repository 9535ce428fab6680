//! Who may what, in Nomad's own words: policies, tokens, and what they allow.
//!
//! It knows texts, files and rights; which right a route needs is `api`'s business. Secrets stay here: a token is kept as
//! the hash of its secret, and no text that leaves this module holds one, but the answer to who made it.

mod access;
mod attachment;
mod capability;
mod error;
mod files;
mod hcl;
mod identity;
mod json;
mod jwks;
mod policy;
mod rights;
mod syntax;
pub mod token;

pub use access::{ANONYMOUS, Access, Asker, Changes, Denial, Settings, Standing, Who};
pub use attachment::Attachment;
pub use error::{AclError, Complaint};
pub use files::{PolicyFile, read_policy};
#[cfg(fuzzing)]
pub use identity::fuzzing;
pub use identity::{Fault, Identity};
pub use jwks::{FetchError, KeySource};
pub use policy::{Level, Policy};
pub use rights::Rights;
pub use token::{Kind, Secret, Token};
