//! What an orchestrator says of an allocation that runs a driver.

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
