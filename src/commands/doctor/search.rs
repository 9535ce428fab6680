//! Where drivers were looked for, as `serve` would, and what two of them have in common.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::{Findings, Layer, State, safe};
use crate::discovery::directory::try_events;
use crate::discovery::{self, Once, fixed};
use crate::domain::id::Role;
use crate::domain::socket::{RoleChoice, Searched, WantedSocket};

/// How long all places together are waited for. A dead network mount answers much later.
const LONGEST: Duration = Duration::from_secs(10);

/// Where drivers were looked for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Search {
    directory_events: Events,
    searched: Vec<Place>,
    ignored: Vec<Ignored>,
    #[serde(skip)]
    found: usize,
}

/// Whether the kernel would tell of changes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Events {
    state: State,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Place {
    place: String,
    what: String,
    exists: bool,
    found: usize,
    ignored: usize,
    problem: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ignored {
    path: String,
    reason: String,
}

impl Search {
    pub(super) fn is_well(&self) -> bool {
        self.found > 0 && self.searched.iter().all(|place| place.problem.is_empty())
    }

    pub(super) fn described(&self) -> String {
        let Events { state, text, remedy } = &self.directory_events;
        let mut lines = vec![format!("{:<9} directory events: {text}", state.as_str())];
        lines.extend(remedy.map(|remedy| format!("{:<9} remedy: {remedy}", "")));
        for Place { place, what, exists, found, ignored, problem } in &self.searched {
            lines.push(match (problem.is_empty(), exists) {
                (false, _) => format!("{:<9} {place} ({what}): {problem}", "not ok"),
                (true, true) => format!("{:<9} {place} ({what}): {found} found, {ignored} left alone", "searched"),
                (true, false) => format!("{:<9} {place} ({what})", "absent"),
            });
        }
        lines.extend(self.ignored.iter().map(|Ignored { path, reason }| format!("{:<9} {path}: {reason}", "ignored")));
        if self.found == 0 {
            lines.push("not ok    no driver's socket was found".to_owned());
            lines.push(format!(
                "{:<9} remedy: start a driver, or say where it listens: --csi-address, --csi-plugins-dir, --kubelet-dir, \
                 --nomad-state-dir; in a container, mount the host's directories and give --host-root",
                ""
            ));
        }
        lines.join("\n")
    }
}

/// Searches; what was found comes with it.
pub(super) async fn run(addresses: &[PathBuf], settings: discovery::Settings) -> (Search, Vec<WantedSocket>) {
    let fixed = fixed::sockets(addresses, None, RoleChoice::Auto);
    let Once { wanted, searched, ignored } = discovery::once(fixed, settings, LONGEST).await;
    let mut wanted: Vec<WantedSocket> = wanted.iter().cloned().collect();
    // As they were given; then as they were found.
    wanted.sort_by(|left, right| (left.source, left.rank, &left.path).cmp(&(right.source, right.rank, &right.path)));
    let ignored =
        ignored.iter().map(|one| Ignored { path: safe(&one.path.to_string_lossy()), reason: safe(&one.reason) });
    let search = Search {
        directory_events: events(),
        searched: searched.iter().map(place).collect(),
        ignored: ignored.collect(),
        found: wanted.len(),
    };
    (search, wanted)
}

fn events() -> Events {
    match try_events() {
        Ok(()) => Events { state: State::Ok, text: "the kernel tells of changes".to_owned(), remedy: None },
        Err(error) => Events {
            // Everything is found and watched all the same, a little later.
            state: State::Warning,
            text: safe(&format!("the kernel gives none, so directories are looked at every second: {error}")),
            remedy: Some(
                "raise the sysctls fs.inotify.max_user_instances and fs.inotify.max_user_watches, or end what uses \
                 them up",
            ),
        },
    }
}

fn place(searched: &Searched) -> Place {
    let problem = if searched.is_searched {
        &*searched.problem
    } else {
        "looking into it does not come back: a mount that hangs?"
    };
    Place {
        place: safe(&searched.place.to_string_lossy()),
        what: searched.what.to_string(),
        exists: searched.exists,
        found: searched.found,
        ignored: searched.ignored,
        problem: safe(problem),
    }
}

/// Says where two sockets are one instance: of those, one counts.
pub(super) fn compare(sockets: &mut [(WantedSocket, Findings)]) {
    let mut first = BTreeMap::<(String, Role), String>::new();
    for (wanted, findings) in sockets {
        let Some(answers) = &findings.answers else { continue };
        // Where the place says what a driver is there for, that counts, whatever else it answers.
        let counted = answers.roles.iter().filter(|role| wanted.leaning().is_none_or(|leaning| leaning == **role));
        let mut same = None;
        for role in counted {
            let other = first.entry((answers.name.clone(), *role)).or_insert_with(|| findings.socket.clone());
            if *other != findings.socket {
                same = Some((*role, other.clone()));
            }
        }
        let name = answers.name.clone();
        if let Some((role, other)) = same {
            let text = format!("`{other}` is a {} of {name}, too: of two with one name, one counts", role.as_str());
            let remedy =
                "end the driver that was replaced, or give each a name of its own; during an update this passes";
            findings.not_ok(Layer::Roles, &text, remedy);
        }
    }
}
