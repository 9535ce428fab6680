//! The policies, tokens and keys in force: read from files or asked for, kept until better ones are there.
//!
//! A set is made whole, beside the one in force, and then takes its place; readers hold an `Arc` of what they were
//! resolved to and notice nothing. A file with an error leaves everything as it was, and says so until it is well again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use tokio::signal::unix::Signal;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::attachment::Attachment;
use super::error::AclError;
use super::files::{PolicyFile, Stamp, keys, policy_files, read_keys, read_policy, stamp};
use super::identity::{Fault, Identity, Keys};
use super::jwks::{self, KeySource};
use super::policy::Policy;
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
/// Identities whose signatures are not computed again.
const RECENT: usize = 1_024;

/// Where policies, tokens and keys are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// A directory of `NAME.hcl` and `NAME.json`.
    pub policy_directory: Option<PathBuf>,
    /// The file that `acl token create` writes.
    pub tokens_file: Option<PathBuf>,
    /// Keys that identities are signed with; `None`: nobody has one.
    pub keys: Option<KeySource>,
    /// Whom identities have to be for: one of these.
    pub audiences: Vec<String>,
}

/// A policy in force.
#[derive(Debug)]
struct InForce {
    /// As it was written.
    text: String,
    policy: Policy,
    /// Whose it is without being named by a token.
    attachment: Option<Attachment>,
}

/// Who somebody is.
#[derive(Debug, PartialEq)]
pub enum Who {
    /// Whoever shows no token.
    Anonymous,
    /// The bearer of a token.
    Token(Token),
    /// A workload of Nomad's, and the policies attached to it.
    Workload(Identity, Vec<Box<str>>),
}

/// Somebody who asks, and what they may do.
#[derive(Debug)]
pub struct Asker {
    /// Who it is.
    pub who: Who,
    /// What they may do.
    pub rights: Arc<Rights>,
    expires: Option<Timestamp>,
}

impl Asker {
    /// What may be said of who this is, in logs.
    #[must_use]
    pub fn accessor(&self) -> String {
        match &self.who {
            Who::Anonymous => ANONYMOUS.to_owned(),
            Who::Token(token) => token.accessor_id.clone(),
            Who::Workload(identity, _) => identity.to_string(),
        }
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
        let is_own = match &self.who {
            Who::Anonymous => false,
            Who::Token(token) => token.policies.iter().any(|policy| policy == name),
            Who::Workload(_, policies) => policies.iter().any(|policy| **policy == *name),
        };
        self.rights.is_management() || name == ANONYMOUS || is_own
    }
}

/// Why somebody is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// No token has this secret.
    Unknown,
    /// It was a token, and has ended.
    Expired,
    /// It is no token of ours, and no identity that is believed.
    Identity(Fault),
}

impl Denial {
    /// As it is logged.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "no token has this secret",
            Self::Expired => "the token has expired",
            Self::Identity(fault) => fault.as_str(),
        }
    }
}

/// What the files say.
#[derive(Debug, Default)]
struct Files {
    policies: BTreeMap<Box<str>, InForce>,
    tokens: HashMap<Hash, Arc<Asker>>,
    anonymous: Option<Arc<Asker>>,
}

/// What is in force.
#[derive(Debug, Default)]
struct Set {
    files: Arc<Files>,
    keys: Arc<Keys>,
    /// Empty in each new set: another one may know them differently.
    recent: Mutex<Recent>,
}

/// Identities that were believed, by the hash of their token. What nobody has signed never comes in here.
#[derive(Debug, Default)]
struct Recent {
    askers: HashMap<Hash, Arc<Asker>>,
    order: VecDeque<Hash>,
}

impl Recent {
    fn put(&mut self, hash: Hash, asker: Arc<Asker>) {
        if self.askers.insert(hash, asker).is_none() {
            self.order.push_back(hash);
        }
        if self.order.len() > RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.askers.remove(&oldest);
        }
    }
}

impl Set {
    /// Who shows a token that is none of ours.
    fn identified(&self, shown: &[u8], audiences: &[String], now: Timestamp) -> Result<Arc<Asker>, Fault> {
        let mut hash = Hash::default();
        hash.copy_from_slice(digest::digest(&digest::SHA256, shown).as_ref());
        let known = self.recent.lock().unwrap_or_else(PoisonError::into_inner).askers.get(&hash).map(Arc::clone);
        let asker = match known {
            Some(known) => known,
            None => {
                let asker = Arc::new(self.workload(self.keys.verify(shown, audiences, now)?));
                self.recent.lock().unwrap_or_else(PoisonError::into_inner).put(hash, Arc::clone(&asker));
                asker
            }
        };
        if asker.has_expired(now) { Err(Fault::Expired) } else { Ok(asker) }
    }

    /// A workload with the rights of the policies that are attached to it, and with no others.
    fn workload(&self, identity: Identity) -> Asker {
        let covers = |policy: &InForce| policy.attachment.as_ref().is_some_and(|one| one.covers(&identity));
        let attached = || self.files.policies.iter().filter(|(_, policy)| covers(policy));
        let rights = Arc::new(Rights::of(attached().map(|(_, policy)| &policy.policy)));
        let policies = attached().map(|(name, _)| name.clone()).collect();
        let expires = identity.expires;
        Asker { who: Who::Workload(identity, policies), rights, expires }
    }
}

/// What `/v1/gateway` says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// How many policies are in force.
    pub policies: usize,
    /// How many tokens there are, expired ones included.
    pub tokens: usize,
    /// How many keys identities may be signed with.
    pub keys: usize,
    /// What is wrong with the files, or with the address of keys; `None`: what they say is in force.
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
    /// With the files, and with the address of keys.
    trouble: Mutex<[Option<String>; 2]>,
    /// Somebody showed an identity of a key that is not known.
    wanted: Notify,
}

/// Places in `trouble`.
const OF_FILES: usize = 0;
const OF_ADDRESS: usize = 1;

impl Access {
    /// Reads policies and tokens. A file of tokens that is not there yet is as good as an empty one.
    ///
    /// # Errors
    /// A file has an error. There is nothing yet that could stay in force.
    pub fn load(settings: Settings) -> Result<Self, AclError> {
        let first = stamp(&settings);
        let (files, keys, has_tokens) = read(&settings)?;
        if settings.tokens_file.is_some() && !has_tokens {
            warn!("there is no token yet, so nothing but what is open to all can be read; see `acl token create`");
        }
        let set = Set { files: Arc::new(files), keys: Arc::new(keys.unwrap_or_default()), ..Set::default() };
        let set = watch::Sender::new(Arc::new(set));
        Ok(Self(Arc::new(Inner { settings, first, set, trouble: Mutex::default(), wanted: Notify::new() })))
    }

    /// Who shows this secret, if anybody does.
    ///
    /// # Errors
    /// Nobody: then the asker has no rights, not even those of the anonymous one.
    pub fn resolve(&self, shown: Option<&[u8]>, now: Timestamp) -> Result<Arc<Asker>, Denial> {
        let set = Arc::clone(&self.0.set.borrow());
        let Some(shown) = shown else { return Ok(set.files.anonymous.as_ref().map_or_else(nobody, Arc::clone)) };
        // Whatever is no UUID is an identity of Nomad's, or nothing.
        let Some(secret) = Secret::parse(shown) else {
            return set.identified(shown, &self.0.settings.audiences, now).map_err(|fault| {
                if fault == Fault::UnknownKey {
                    self.0.wanted.notify_one();
                }
                Denial::Identity(fault)
            });
        };
        let asker = set.files.tokens.get(&secret.hash()).ok_or(Denial::Unknown)?;
        if asker.has_expired(now) { Err(Denial::Expired) } else { Ok(Arc::clone(asker)) }
    }

    /// Whether somebody who was resolved before is still the same and may do the same.
    #[must_use]
    pub fn is_in_force(&self, asker: &Asker, now: Timestamp) -> bool {
        let set = Arc::clone(&self.0.set.borrow());
        let same = match &asker.who {
            Who::Anonymous => set.files.anonymous.as_ref().map(Arc::clone),
            Who::Token(token) => token.hash().and_then(|hash| set.files.tokens.get(&hash)).map(Arc::clone),
            Who::Workload(identity, _) => set.keys.have(identity).then(|| Arc::new(set.workload(identity.clone()))),
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
        self.0.set.borrow().files.policies.get(name).map(|policy| policy.text.clone())
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let set = Arc::clone(&self.0.set.borrow());
        let trouble = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble: Vec<String> = trouble.iter().flatten().cloned().collect();
        Standing {
            policies: set.files.policies.len(),
            tokens: set.files.tokens.len(),
            keys: set.keys.count(),
            trouble: (!trouble.is_empty()).then(|| trouble.join("; ")),
        }
    }

    /// Reads everything anew. Whatever has an error leaves all of it as it was.
    pub fn reload(&self) {
        let read = read(&self.0.settings).and_then(|(files, keys, has_tokens)| match &self.0.settings.tokens_file {
            // Whoever wants to revoke all of them leaves the file without any.
            Some(file) if !has_tokens && !self.0.set.borrow().files.tokens.is_empty() => {
                Err(AclError::Read { file: file.clone(), source: std::io::ErrorKind::NotFound.into() })
            }
            _ => Ok((files, keys)),
        });
        match read {
            Ok((files, keys)) => {
                info!(policies = files.policies.len(), tokens = files.tokens.len(), "policies and tokens are in force");
                let (files, keys) = (Arc::new(files), keys.map(Arc::new));
                self.0.set.send_modify(|set| {
                    let keys = keys.unwrap_or_else(|| Arc::clone(&set.keys));
                    *set = Arc::new(Set { files, keys, ..Set::default() });
                });
                self.is_well(OF_FILES);
            }
            Err(problem) => {
                self.is_ill(OF_FILES, &problem, "policies and tokens stay as they were: a file has an error")
            }
        }
    }

    fn is_well(&self, part: usize) {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner)[part] = None;
    }

    /// Says it once, until it is another trouble.
    fn is_ill(&self, part: usize, problem: &AclError, means: &str) {
        let text = Chain(problem).to_string();
        let before = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner)[part].replace(text.clone());
        if before.as_ref() != Some(&text) {
            error!(error = text, "{means}");
        }
    }

    /// Asks the address of keys, if there is one, again and again; at once when an identity's key is not known.
    pub async fn follow_keys(self) {
        let Some(KeySource::Address(address)) = &self.0.settings.keys else { return };
        loop {
            let answer = jwks::fetch(address).await;
            let answer = answer.map_err(|source| AclError::Fetch { address: address.clone(), source });
            let pause = match answer.and_then(|text| keys(&text, address)) {
                Ok(keys) => {
                    self.put(keys);
                    self.is_well(OF_ADDRESS);
                    jwks::EVERY
                }
                Err(problem) => {
                    self.is_ill(OF_ADDRESS, &problem, "the keys of identities stay as they were");
                    jwks::AGAIN
                }
            };
            let asked = Instant::now();
            tokio::select! {
                () = self.0.wanted.notified() => tokio::time::sleep_until(asked + jwks::LEAST).await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Keys from an address.
    fn put(&self, keys: Keys) {
        let is_other = *self.0.set.borrow().keys != keys;
        if is_other {
            info!(keys = keys.count(), "keys of identities are in force");
            let keys = Arc::new(keys);
            self.0.set.send_modify(|set| {
                *set = Arc::new(Set { files: Arc::clone(&set.files), keys, ..Set::default() });
            });
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
    Arc::new(Asker { who: Who::Anonymous, rights: Arc::new(Rights::default()), expires: None })
}

/// Reads everything; also whether there is a file of tokens.
fn read(settings: &Settings) -> Result<(Files, Option<Keys>, bool), AclError> {
    let mut set = Files::default();
    let mut attachments = BTreeMap::new();
    for file in settings.policy_directory.as_deref().map(policy_files).transpose()?.unwrap_or_default() {
        let is_second = match read_policy(&file)? {
            (name, PolicyFile::Rules(text, policy)) => {
                set.policies.insert(name.into(), InForce { text, policy, attachment: None }).is_some()
            }
            (name, PolicyFile::Attachment(attachment)) => attachments.insert(name, attachment).is_some(),
        };
        if is_second {
            return Err(AclError::Twice { file });
        }
    }
    for (name, attachment) in attachments {
        let Some(policy) = set.policies.get_mut(&*name) else { return Err(AclError::Unattached { name }) };
        policy.attachment = Some(attachment);
    }
    let keys = match &settings.keys {
        Some(KeySource::File(file)) => Some(read_keys(file)?),
        Some(KeySource::Address(_)) | None => None,
    };
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
        set.anonymous = Some(Arc::new(Asker { who: Who::Anonymous, rights, expires: None }));
    }
    for token in tokens.unwrap_or_default() {
        // `read` has refused every token without one.
        let Some(hash) = token.hash() else { continue };
        let (rights, expires) = (of(token.kind, &token.policies), token.expires());
        set.tokens.insert(hash, Arc::new(Asker { who: Who::Token(token), rights, expires }));
    }
    Ok((set, keys, has_tokens))
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
            Settings {
                policy_directory: Some(self.policies()),
                tokens_file: Some(self.tokens()),
                ..Settings::default()
            }
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
        assert_eq!(
            access.resolve(Some(b"not-a-uuid"), NOW).expect_err("no secret"),
            Denial::Identity(Fault::Malformed)
        );
        let anonymous = access.resolve(None, NOW).expect("anybody");
        assert!(!anonymous.rights.may_list_plugins());
        assert_eq!(anonymous.accessor(), ANONYMOUS);
        assert_eq!(access.standing(), Standing { policies: 2, tokens: 4, keys: 0, trouble: None });
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
        let nowhere = Settings { policy_directory: Some(files.policies().join("nowhere")), ..Settings::default() };
        assert!(matches!(Access::load(nowhere), Err(AclError::List { .. })));
    }

    #[test]
    fn identities_that_are_remembered_are_bounded() {
        let mut recent = Recent::default();
        for number in 0..2 * RECENT {
            let mut hash = Hash::default();
            hash[..8].copy_from_slice(&number.to_be_bytes());
            for _ in 0..2 {
                recent.put(hash, nobody());
            }
        }
        assert_eq!((recent.askers.len(), recent.order.len()), (RECENT, RECENT));
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
