//! What an orchestrator says of allocations that run drivers, and how it is reached.

use super::time::Timestamp;

/// One allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Its id, as instances name it.
    pub id: Box<str>,
    /// The namespace that decides who may see it.
    pub namespace: Box<str>,
    /// The orchestrator's index of its last change: the order in which allocations are shown.
    pub modify_index: u64,
    /// What is shown of it: the orchestrator's own stub, one compact JSON object, passed on as it came.
    pub stub: Box<[u8]>,
}

/// How it stands with whoever is asked about allocations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orchestrator {
    /// Where it is asked.
    pub address: Box<str>,
    /// What is wrong, and what to do; empty if nothing is.
    pub problem: Box<str>,
    /// Since when it has been so.
    pub since: Timestamp,
    /// Allocations of this host that run drivers.
    pub allocations: usize,
    /// Sockets of allocations of which it says nothing, though it answers.
    pub unnamed: usize,
}

impl Orchestrator {
    /// What is wrong, for a person; `None`: nothing.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match (&*self.problem, self.unnamed) {
            ("", 0) => None,
            ("", unnamed) => Some(format!(
                "it says nothing of the allocations of {unnamed} sockets; may the token `read-job` in the namespaces of their jobs?"
            )),
            (problem, _) => Some(problem.to_owned()),
        }
    }
}
