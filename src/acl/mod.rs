//! Who may what, in Nomad's own words: policies, tokens, and what they allow.
//!
//! It knows texts, files and rights; which right a route needs is `api`'s business. Secrets stay here: a token is kept as
//! the hash of its secret, and no text that leaves this module holds one, but the answer to who made it.

mod access;
mod capability;
mod error;
mod hcl;
mod json;
mod policy;
mod rights;
mod syntax;
pub mod token;

pub use access::{ANONYMOUS, Access, Asker, Changes, Denial, InForce, Settings, Standing, read_policy};
pub use error::{AclError, Complaint};
pub use policy::{Level, Policy};
pub use rights::Rights;
pub use token::{Kind, Secret, Token};
