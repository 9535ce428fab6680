//! Whose identity has a policy: Nomad's "ACL policy attached to a job".
//!
//! Nomad keeps it beside the rules, not in them (a block of its own would make the policy invalid), so it is a file of its
//! own here: `NAME.job.hcl` beside `NAME.hcl`, with the flags of `nomad acl policy apply` as keys, or the object `JobACL`
//! of Nomad's API as `NAME.job.json`.

use super::error::Complaint;
use super::identity::Identity;
use super::syntax::{Node, entries, is_same};
use super::{hcl, json};

/// Which workloads have a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    namespace: String,
    /// `None`: all of the namespace.
    job: Option<String>,
    /// `None`: all of the job.
    group: Option<String>,
    /// `None`: all of the group.
    task: Option<String>,
}

impl Attachment {
    /// Reads it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        let items = if json::is_json(text) { json::parse(text)? } else { hcl::parse(text)? };
        let mut found: [Option<String>; 4] = Default::default();
        for entry in entries(&items) {
            let [key] = entry.keys else { return Err(Complaint::new(format!("blocks mean nothing here; {KEYS}"))) };
            let key = key.text()?;
            let is = |names: &[&str]| names.iter().any(|name| is_same(&key, name));
            let place = match () {
                () if is(&["namespace"]) => 0,
                () if is(&["job", "job_id", "jobid"]) => 1,
                () if is(&["group"]) => 2,
                () if is(&["task"]) => 3,
                () => return Err(Complaint::new(format!("`{key}` means nothing here; {KEYS}"))),
            };
            let Node::Literal(value) = entry.node else {
                return Err(Complaint::new(format!("`{key}` is one word in quotes")));
            };
            found[place] = Some(value.text()?).filter(|value| !value.is_empty());
        }
        let [namespace, job, group, task] = found;
        // As Nomad: an attachment narrows from the left.
        for (what, has, needs, has_needed) in
            [("group", group.is_some(), "job", job.is_some()), ("task", task.is_some(), "group", group.is_some())]
        {
            if has && !has_needed {
                return Err(Complaint::new(format!("`{what}` needs a `{needs}`")));
            }
        }
        let namespace = namespace.ok_or_else(|| Complaint::new(format!("it needs a `namespace`; {KEYS}")))?;
        Ok(Self { namespace, job, group, task })
    }

    /// Whether a workload has the policy.
    pub(super) fn covers(&self, identity: &Identity) -> bool {
        let is =
            |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|wanted| Some(wanted) == found);
        self.namespace == *identity.namespace
            && is(&self.job, Some(&identity.job))
            && is(&self.group, identity.group.as_deref())
            && is(&self.task, identity.task.as_deref())
    }

    /// Whom it covers, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = format!("namespace `{}`", self.namespace);
        for (what, name) in [("job", &self.job), ("group", &self.group), ("task", &self.task)] {
            if let Some(name) = name {
                text = format!("{what} `{name}` of {text}");
            }
        }
        text
    }
}

const KEYS: &str = "there are `namespace`, `job`, `group` and `task`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_nomads_flags_or_as_nomads_object() {
        let whole = Attachment {
            namespace: "apps".to_owned(),
            job: Some("web".to_owned()),
            group: Some("api".to_owned()),
            task: Some("server".to_owned()),
        };
        for text in [
            "namespace = \"apps\"\njob = \"web\"\ngroup = \"api\"\ntask = \"server\"\n",
            r#"{"Namespace":"apps","JobID":"web","Group":"api","Task":"server"}"#,
        ] {
            assert_eq!(Attachment::parse(text), Ok(whole.clone()), "{text}");
        }
        let job = Attachment::parse(r#"{"Namespace":"apps","JobID":"web","Group":"","Task":""}"#).expect("valid");
        assert_eq!(job.summary(), "job `web` of namespace `apps`");
        for (text, said) in [
            ("", "needs a `namespace`"),
            ("job = \"web\"", "needs a `namespace`"),
            ("namespace = \"a\"\ngroup = \"g\"", "`group` needs a `job`"),
            ("namespace = \"a\"\njob = \"j\"\ntask = \"t\"", "`task` needs a `group`"),
            ("namespace = \"a\"\njobs = \"j\"", "`jobs` means nothing"),
            ("namespace \"a\" {}", "blocks mean nothing"),
            ("namespace = [\"a\"]", "one word"),
            ("namespace = a", "needs quotes"),
        ] {
            let complaint = Attachment::parse(text).expect_err(text).to_string();
            assert!(complaint.contains(said), "{text}: {complaint}");
        }
    }
}
