//! The policies and tokens in force: read from files, kept until better ones are read.
//!
//! A set is made whole, beside the one in force, and then takes its place; readers hold an `Arc` of what they were
//! resolved to and notice nothing. A file with an error leaves everything as it was, and says so until it is well again.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::error::AclError;
use super::policy::{LONGEST, Policy};
use super::rights::Rights;
use super::token::{self, Hash, Kind, Secret, Token};
use crate::domain::time::Timestamp;
use crate::telemetry::Chain;

/// How often somebody looks whether a file is another one.
const LOOK: Duration = Duration::from_secs(1);
/// How long a file stays as it is before it is taken for written.
const SETTLE: Duration = Duration::from_millis(100);
/// How often that is looked at before whatever is there is read.
const SETTLING: usize = 20;
/// The policy of those who show no token.
pub const ANONYMOUS: &str = "anonymous";

/// Where policies and tokens are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// A directory of `NAME.hcl` and `NAME.json`.
    pub policy_directory: Option<PathBuf>,
    /// The file that `acl token create` writes.
    pub tokens_file: Option<PathBuf>,
}

/// A policy in force.
#[derive(Debug)]
pub struct InForce {
    /// As it was written.
    pub text: String,
    policy: Policy,
}

/// Somebody who asks, and what they may do.
#[derive(Debug)]
pub struct Asker {
    /// What is known of the token; of the anonymous one, that it is none.
    pub token: Option<Token>,
    /// What it may do.
    pub rights: Arc<Rights>,
    expires: Option<Timestamp>,
}

impl Asker {
    /// What may be said of who this is, in logs.
    #[must_use]
    pub fn accessor(&self) -> &str {
        self.token.as_ref().map_or(ANONYMOUS, |token| &token.accessor_id)
    }

    /// Whether the token has ended.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }

    /// How long it has left; `None`: it never ends.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        self.expires.map(|end| Duration::from_nanos(u64::try_from(end.0.saturating_sub(now.0)).unwrap_or_default()))
    }

    /// Whether it may see a policy.
    #[must_use]
    pub fn has_policy(&self, name: &str) -> bool {
        let own = |token: &Token| token.policies.iter().any(|policy| policy == name);
        self.rights.is_management() || name == ANONYMOUS || self.token.as_ref().is_some_and(own)
    }
}

/// Why somebody is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// No token has this secret.
    Unknown,
    /// It cannot be a token's secret.
    NoSecret,
    /// It was a token, and has ended.
    Expired,
}

impl Denial {
    /// As it is logged.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "no token has this secret",
            Self::NoSecret => "what was sent is no token",
            Self::Expired => "the token has expired",
        }
    }
}

#[derive(Debug, Default)]
struct Set {
    policies: BTreeMap<Box<str>, InForce>,
    tokens: HashMap<Hash, Arc<Asker>>,
    anonymous: Option<Arc<Asker>>,
}

/// What `/v1/gateway` says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// How many policies are in force.
    pub policies: usize,
    /// How many tokens there are, expired ones included.
    pub tokens: usize,
    /// What is wrong with the files since; `None`: what they say is in force.
    pub trouble: Option<String>,
}

/// Policies and tokens in force. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    /// The files before they were read first: whatever changed since is read again.
    first: Vec<Stamp>,
    set: watch::Sender<Arc<Set>>,
    trouble: Mutex<Option<String>>,
}

impl Access {
    /// Reads policies and tokens. A file of tokens that is not there yet is as good as an empty one.
    ///
    /// # Errors
    /// A file has an error. There is nothing yet that could stay in force.
    pub fn load(settings: Settings) -> Result<Self, AclError> {
        let first = stamp(&settings);
        let (set, has_tokens) = read(&settings)?;
        if settings.tokens_file.is_some() && !has_tokens {
            warn!("there is no token yet, so nothing but what is open to all can be read; see `acl token create`");
        }
        Ok(Self(Arc::new(Inner { settings, first, set: watch::Sender::new(Arc::new(set)), trouble: Mutex::new(None) })))
    }

    /// Who shows this secret, if anybody does.
    ///
    /// # Errors
    /// Nobody: then the asker has no rights, not even those of the anonymous one.
    pub fn resolve(&self, shown: Option<&[u8]>, now: Timestamp) -> Result<Arc<Asker>, Denial> {
        let set = Arc::clone(&self.0.set.borrow());
        let Some(shown) = shown else { return Ok(set.anonymous.as_ref().map_or_else(nobody, Arc::clone)) };
        // Whatever is no UUID is Nomad's workload identity or nothing. Claims could become an `Asker` here.
        let secret = Secret::parse(shown).ok_or(Denial::NoSecret)?;
        let asker = set.tokens.get(&secret.hash()).ok_or(Denial::Unknown)?;
        if asker.has_expired(now) { Err(Denial::Expired) } else { Ok(Arc::clone(asker)) }
    }

    /// Whether somebody who was resolved before is still the same and may do the same.
    #[must_use]
    pub fn is_in_force(&self, asker: &Asker, now: Timestamp) -> bool {
        let set = Arc::clone(&self.0.set.borrow());
        let same = match &asker.token {
            None => set.anonymous.as_deref(),
            Some(token) => token.hash().and_then(|hash| set.tokens.get(&hash)).map(|found| &**found),
        };
        !asker.has_expired(now) && same.is_some_and(|same| same.rights == asker.rights)
    }

    /// Sets that come into force from now on.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(self.0.set.subscribe())
    }

    /// The text of a policy in force.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<String> {
        self.0.set.borrow().policies.get(name).map(|policy| policy.text.clone())
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let set = Arc::clone(&self.0.set.borrow());
        let trouble = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Standing { policies: set.policies.len(), tokens: set.tokens.len(), trouble }
    }

    /// Reads everything anew. Whatever has an error leaves all of it as it was.
    pub fn reload(&self) {
        let read = read(&self.0.settings).and_then(|(set, has_tokens)| match &self.0.settings.tokens_file {
            // Whoever wants to revoke all of them leaves the file without any.
            Some(file) if !has_tokens && !self.0.set.borrow().tokens.is_empty() => {
                Err(AclError::Read { file: file.clone(), source: std::io::ErrorKind::NotFound.into() })
            }
            _ => Ok(set),
        });
        let mut trouble = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(set) => {
                info!(policies = set.policies.len(), tokens = set.tokens.len(), "policies and tokens are in force");
                self.0.set.send_replace(Arc::new(set));
                *trouble = None;
            }
            Err(problem) => {
                let text = Chain(&problem).to_string();
                if trouble.as_ref() != Some(&text) {
                    error!(error = text, "policies and tokens stay as they were: a file has an error");
                }
                *trouble = Some(text);
            }
        }
    }

    /// Reads anew when a file has become another one, and at each signal, if there is one.
    pub async fn follow(self, mut told: Option<Signal>) {
        let mut seen = self.0.first.clone();
        loop {
            let is_told = tokio::select! {
                () = signalled(&mut told) => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let mut now = self.stamp().await;
            if now != seen && !is_told {
                now = self.settled(now).await;
            }
            if is_told || now != seen {
                let access = self.clone();
                // It reads files, which may hang; whatever goes wrong there is said there.
                let _ = tokio::task::spawn_blocking(move || access.reload()).await;
            }
            seen = now;
        }
    }

    /// The files once nobody writes them any more: one that is being written is empty for a moment, and an empty policy
    /// is valid.
    async fn settled(&self, mut last: Vec<Stamp>) -> Vec<Stamp> {
        for _ in 0..SETTLING {
            tokio::time::sleep(SETTLE).await;
            let now = self.stamp().await;
            if now == last {
                break;
            }
            last = now;
        }
        last
    }

    async fn stamp(&self) -> Vec<Stamp> {
        let settings = self.0.settings.clone();
        tokio::task::spawn_blocking(move || stamp(&settings)).await.unwrap_or_default()
    }
}

async fn signalled(told: &mut Option<Signal>) {
    let is_signal = match told {
        Some(told) => told.recv().await.is_some(),
        None => false,
    };
    if !is_signal {
        // Nobody will ever say anything.
        std::future::pending::<()>().await;
    }
}

/// Tells when another set came into force.
#[derive(Debug)]
pub struct Changes(watch::Receiver<Arc<Set>>);

impl Changes {
    /// Resolves at the next one.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Whoever could bring one has gone.
            std::future::pending::<()>().await;
        }
    }
}

/// Who shows no token, where no policy says what such may do.
fn nobody() -> Arc<Asker> {
    Arc::new(Asker { token: None, rights: Arc::new(Rights::default()), expires: None })
}

/// A file as it is told from others: path, device, inode, size, times of change.
type Stamp = (PathBuf, u64, u64, u64, [i64; 4]);

fn stamp(settings: &Settings) -> Vec<Stamp> {
    let mut paths: Vec<PathBuf> = settings.tokens_file.iter().cloned().collect();
    if let Some(directory) = &settings.policy_directory {
        // Whatever cannot be listed is found again as an error when it is read.
        paths.extend(policy_files(directory).unwrap_or_default());
        paths.push(directory.clone());
    }
    let stamp = |path: PathBuf| {
        let found = std::fs::metadata(&path).ok()?;
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        Some((path, found.dev(), found.ino(), found.size(), times))
    };
    paths.into_iter().filter_map(stamp).collect()
}

/// The files in a directory that could be policies, in order of their names.
fn policy_files(directory: &Path) -> Result<Vec<PathBuf>, AclError> {
    let failed = |source| AclError::List { directory: directory.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // Editors and Kubernetes keep hidden files beside them.
        let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_policy = path.extension().is_some_and(|ending| ending == "hcl" || ending == "json");
        if !is_hidden && is_policy {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a policy's file: its name, its text, what it says.
///
/// # Errors
/// It cannot be read, its name is no policy's, or it is not valid.
pub fn read_policy(file: &Path) -> Result<(String, String, Policy), AclError> {
    use std::io::Read;
    let failed = |source| AclError::Read { file: file.to_owned(), source };
    let is_name = |name: &&str| {
        (1..=128).contains(&name.len()) && name.chars().all(|part| part.is_ascii_alphanumeric() || part == '-')
    };
    let name = file.file_stem().and_then(|name| name.to_str()).filter(is_name);
    let name = name.ok_or_else(|| AclError::Name { file: file.to_owned() })?.to_owned();
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(LONGEST as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > LONGEST {
        return Err(AclError::TooLarge { file: file.to_owned(), limit: LONGEST });
    }
    let policy = Policy::parse(&text).map_err(|source| AclError::Policy { file: file.to_owned(), source })?;
    Ok((name, text, policy))
}

/// Reads everything; also whether there is a file of tokens.
fn read(settings: &Settings) -> Result<(Set, bool), AclError> {
    let mut set = Set::default();
    if let Some(directory) = &settings.policy_directory {
        for file in policy_files(directory)? {
            let (name, text, policy) = read_policy(&file)?;
            if set.policies.insert(name.into(), InForce { text, policy }).is_some() {
                return Err(AclError::Twice { file });
            }
        }
    }
    let tokens = match &settings.tokens_file {
        Some(file) => token::read(file)?,
        None => None,
    };
    let has_tokens = tokens.is_some();
    // Thousands of tokens have a few sets of policies between them.
    let mut shared = HashMap::<Vec<String>, Arc<Rights>>::new();
    let policies = &set.policies;
    let mut of = |kind: Kind, names: &[String]| match kind {
        Kind::Management => Arc::new(Rights::management()),
        Kind::Client => Arc::clone(shared.entry(names.to_vec()).or_insert_with(|| {
            let known = names.iter().filter_map(|name| policies.get(&**name));
            Arc::new(Rights::of(known.map(|known| &known.policy)))
        })),
    };
    if policies.contains_key(ANONYMOUS) {
        let rights = of(Kind::Client, &[ANONYMOUS.to_owned()]);
        set.anonymous = Some(Arc::new(Asker { token: None, rights, expires: None }));
    }
    for token in tokens.unwrap_or_default() {
        // `read` has refused every token without one.
        let Some(hash) = token.hash() else { continue };
        let (rights, expires) = (of(token.kind, &token.policies), token.expires());
        set.tokens.insert(hash, Arc::new(Asker { token: Some(token), rights, expires }));
    }
    Ok((set, has_tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    struct Files {
        directory: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            let files = Self { directory: tempfile::tempdir().expect("a directory") };
            std::fs::create_dir(files.policies()).expect("made");
            files
        }

        fn policies(&self) -> PathBuf {
            self.directory.path().join("policies")
        }

        fn tokens(&self) -> PathBuf {
            self.directory.path().join("tokens.json")
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.policies().join(name), text).expect("written");
        }

        fn token(&self, kind: Kind, policies: &[&str], expires: Option<Timestamp>) -> (Token, Secret) {
            let policies = policies.iter().map(|&name| name.to_owned()).collect();
            let (token, secret) =
                Token::create(kind, String::new(), policies, Timestamp(0), expires).expect("random numbers");
            token::add(&self.tokens(), token.clone()).expect("written");
            (token, secret)
        }

        fn settings(&self) -> Settings {
            Settings { policy_directory: Some(self.policies()), tokens_file: Some(self.tokens()) }
        }
    }

    fn resolved(access: &Access, secret: &Secret) -> Result<Arc<Asker>, Denial> {
        access.resolve(Some(secret.reveal().as_bytes()), NOW)
    }

    #[test]
    fn tokens_get_the_rights_of_their_policies() {
        let files = Files::new();
        files.write("readers.hcl", "plugin { policy = \"read\" }");
        files.write("lists.json", "{\"plugin\":{\"policy\":\"list\"}}");
        files.write(".hidden.hcl", "no policy");
        files.write("notes.txt", "no policy");
        let (_, reader) = files.token(Kind::Client, &["readers", "missing"], None);
        let (_, lister) = files.token(Kind::Client, &["lists"], Some(Timestamp(1_001)));
        let (_, expired) = files.token(Kind::Client, &["readers"], Some(NOW));
        let (_, manager) = files.token(Kind::Management, &[], None);
        let access = Access::load(files.settings()).expect("loaded");
        assert!(resolved(&access, &reader).expect("known").rights.may_read_plugins());
        let lists = resolved(&access, &lister).expect("known");
        assert!(lists.rights.may_list_plugins() && !lists.rights.may_read_plugins());
        assert!(lists.has_policy("lists") && lists.has_policy(ANONYMOUS) && !lists.has_policy("readers"));
        assert_eq!(resolved(&access, &expired).expect_err("over"), Denial::Expired);
        assert!(resolved(&access, &manager).expect("known").rights.is_management());
        let unknown = Secret::random().expect("random numbers");
        assert_eq!(resolved(&access, &unknown).expect_err("unknown"), Denial::Unknown);
        assert_eq!(access.resolve(Some(b"not-a-uuid"), NOW).expect_err("no secret"), Denial::NoSecret);
        let anonymous = access.resolve(None, NOW).expect("anybody");
        assert!(!anonymous.rights.may_list_plugins());
        assert_eq!(anonymous.accessor(), ANONYMOUS);
        assert_eq!(access.standing(), Standing { policies: 2, tokens: 4, trouble: None });
    }

    #[test]
    fn a_file_with_an_error_leaves_the_last_good_set_in_force() {
        let files = Files::new();
        files.write("readers.hcl", "plugin { policy = \"read\" }");
        let (token, reader) = files.token(Kind::Client, &["readers"], None);
        let access = Access::load(files.settings()).expect("loaded");
        let before = resolved(&access, &reader).expect("known");
        files.write("readers.hcl", "plugin { policy = \"reader\" }");
        access.reload();
        let trouble = access.standing().trouble.expect("said");
        assert!(trouble.contains("readers.hcl") && trouble.contains("Invalid plugin policy"), "{trouble}");
        assert!(resolved(&access, &reader).expect("known").rights.may_read_plugins());
        assert!(access.is_in_force(&before, NOW));

        files.write("readers.hcl", "plugin { policy = \"list\" }");
        access.reload();
        assert_eq!(access.standing().trouble, None);
        assert!(!resolved(&access, &reader).expect("known").rights.may_read_plugins());
        assert!(!access.is_in_force(&before, NOW));

        std::fs::remove_file(files.tokens()).expect("removed");
        access.reload();
        assert!(access.standing().trouble.expect("said").contains("tokens.json"));
        assert!(resolved(&access, &reader).is_ok());
        std::fs::write(files.tokens(), "{\"tokens\":[]}").expect("written");
        access.reload();
        assert_eq!(resolved(&access, &reader).expect_err("revoked"), Denial::Unknown);
        assert_eq!(access.standing().tokens, 0, "{}", token.accessor_id);
    }

    #[test]
    fn what_cannot_be_read_at_the_start_is_an_error() {
        let files = Files::new();
        assert!(Access::load(files.settings()).is_ok(), "no token yet");
        files.write("a.hcl", "");
        files.write("a.json", "");
        assert!(matches!(Access::load(files.settings()), Err(AclError::Twice { .. })));
        std::fs::remove_file(files.policies().join("a.json")).expect("removed");
        files.write("a_b.hcl", "");
        assert!(matches!(Access::load(files.settings()), Err(AclError::Name { .. })));
        let nowhere = Settings { policy_directory: Some(files.policies().join("nowhere")), tokens_file: None };
        assert!(matches!(Access::load(nowhere), Err(AclError::List { .. })));
    }

    #[tokio::test]
    async fn a_changed_file_is_read_without_being_told() {
        let files = Files::new();
        let access = Access::load(files.settings()).expect("loaded");
        let told = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).expect("a signal");
        let follows = tokio::spawn(access.clone().follow(Some(told)));
        files.write("anonymous.hcl", "plugin { policy = \"read\" }");
        for round in 0.. {
            if access.resolve(None, NOW).expect("anybody").rights.may_read_plugins() {
                break;
            }
            assert!(round < 3_000, "{:?}", access.standing());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        follows.abort();
    }
}
