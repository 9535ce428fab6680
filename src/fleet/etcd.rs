//! The only user of etcd's protocol: sessions, reads, transactions, leases, watches.
//!
//! The client is generated from our own description of it (`etcd.proto`), over the gRPC library that drivers are
//! asked with, so it costs no further dependency. A [`Session`] is one login over
//! one connection; whoever sees it fail makes a new one, which may be with another member.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::Settings;
use super::dial::Dialer;
use super::error::{EtcdError, Fault};
use super::keys::end_of;
use crate::transport::pb::etcd as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::watch_client::WatchClient;

/// Limit of one call. An etcd that needs longer is as good as away; and what it did all the same is read afterwards.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes that are read of a password's file.
const LONGEST_PASSWORD: u64 = 64 << 10;
/// Keys of one page of a read.
const PAGE: i64 = 1000;
/// Longest answer that is taken. A page of records is about one MiB; one that is longer is asked for in smaller pages.
const LONGEST: usize = 16 << 20;
/// Longest value that is looked at: what is written here is shorter, so whatever is longer is somebody else's.
const LONGEST_VALUE: usize = 1 << 20;

/// An etcd. Cheap to clone; clones share what they know of its members.
#[derive(Debug, Clone)]
pub struct Etcd {
    dialer: Dialer,
    user: Option<(String, std::path::PathBuf)>,
    /// One connection for all sessions; `None`: each has its own.
    shared: Option<Channel>,
}

impl Etcd {
    /// The one that settings name. Nothing is dialled yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let dialer = Dialer::new(settings.servers.clone(), settings.trust.clone());
        Self { dialer, user: settings.user.clone(), shared: None }
    }

    /// The same over one connection for all sessions of all clones: for many agents in one process.
    #[must_use]
    pub fn sharing(mut self) -> Self {
        self.shared = Some(self.channel());
        self
    }

    fn channel(&self) -> Channel {
        // The name goes into a header that etcd does not look at.
        Endpoint::from_static("http://etcd")
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(self.dialer.clone())
    }

    /// Another member is dialled first the next time: this one answers, and is of no use.
    pub fn turn(&self) {
        self.dialer.turn();
    }

    /// Connects, and logs in where there is a user.
    ///
    /// # Errors
    /// What keeps it from that.
    pub async fn open(&self) -> Result<Session, EtcdError> {
        let channel = self.shared.clone().unwrap_or_else(|| self.channel());
        let mut session = Session { channel, token: None };
        if let Some((name, file)) = &self.user {
            let password = password(file).map_err(EtcdError::Password)?;
            let message = pb::AuthenticateRequest { name: name.clone(), password };
            let mut client = AuthClient::new(session.channel.clone());
            match limited("log in", async { client.authenticate(session.request(message)).await }).await {
                Ok(answer) => session.token = MetadataValue::try_from(answer.token).ok().map(Arc::new),
                // Then nobody needs to log in.
                Err(error) if error.says("authentication is not enabled") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(session)
    }
}

/// One login over one connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Session {
    channel: Channel,
    token: Option<Arc<MetadataValue<Ascii>>>,
}

/// A key as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) create_revision: i64,
    pub(super) mod_revision: i64,
    pub(super) lease: i64,
}

impl From<pb::KeyValue> for Read {
    fn from(pair: pb::KeyValue) -> Self {
        let pb::KeyValue { key, create_revision, mod_revision, value, lease, .. } = pair;
        let value = if value.len() > LONGEST_VALUE { Vec::new() } else { value };
        Self { key, value, create_revision, mod_revision, lease }
    }
}

/// One page of a read.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) pairs: Vec<Read>,
    pub(super) revision: i64,
    pub(super) cluster: u64,
    has_more: bool,
}

/// etcd's word about how far it is, from a majority of its members and not from one that may be cut off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    /// When it was asked.
    pub(super) asked: Instant,
    /// The newest revision.
    pub(super) revision: i64,
    /// The revision of the key that was asked about; 0: there is none.
    pub(super) moved: i64,
    pub(super) cluster: u64,
}

/// A condition of a transaction.
#[derive(Debug, Clone)]
pub(super) enum If {
    /// The key is bound to this lease.
    BoundTo(String, i64),
    /// The key was last written at this revision; 0: it is not there.
    Unmoved(String, i64),
}

/// A step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Do {
    Put(String, Vec<u8>),
    /// Goes when the lease does.
    PutBound(String, Vec<u8>, i64),
    /// Put if the key is new; else its revision moves, and its value stays.
    Touch(String, Vec<u8>),
    Delete(String),
    /// Everything that begins with it.
    DeleteAll(String),
}

impl Do {
    /// About as many bytes as it has in a request.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Put(key, value) | Self::PutBound(key, value, _) => key.len() + value.len() + 24,
            Self::Touch(key, value) => 3 * key.len() + value.len() + 64,
            Self::Delete(key) | Self::DeleteAll(key) => 2 * key.len() + 16,
        }
    }
}

/// What a watch says.
#[derive(Debug)]
pub(super) enum Told {
    /// It begins.
    Begun { cluster: u64, revision: i64 },
    /// Whole revisions, in order; `None` as value: deleted.
    Events { revision: i64, events: Vec<(Read, bool)> },
    /// Everything up to this revision has been told.
    Progress { revision: i64 },
}

impl Session {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(LIMIT);
        self.mark(&mut request);
        request
    }

    /// For calls without an end.
    fn streaming<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.mark(&mut request);
        request
    }

    fn mark<T>(&self, request: &mut Request<T>) {
        let metadata = request.metadata_mut();
        // A member that was cut off from the others says so instead of answering what was.
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            metadata.insert("token", (**token).clone());
        }
    }

    fn keys(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(LONGEST)
    }

    async fn range(&self, message: pb::RangeRequest) -> Result<Page, EtcdError> {
        let call = async { self.keys().range(self.request(message)).await };
        // The connection itself may take longer than the call.
        let answer = limited("read", call).await?;
        let header = answer.header.unwrap_or_default();
        Ok(Page {
            pairs: answer.kvs.into_iter().map(Read::from).collect(),
            revision: header.revision,
            cluster: header.cluster_id,
            has_more: answer.more,
        })
    }

    /// One key.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Read>, EtcdError> {
        let page = self.range(pb::RangeRequest { key: key.into(), ..Default::default() }).await?;
        Ok(page.pairs.into_iter().next())
    }

    /// Everything under a prefix at one revision (0: the newest), page by page.
    pub(super) async fn list(
        &self,
        prefix: &str,
        revision: i64,
        is_keys_only: bool,
        mut take: impl FnMut(Page),
    ) -> Result<i64, EtcdError> {
        let range_end = end_of(prefix);
        let mut from = prefix.as_bytes().to_vec();
        let (mut at, mut limit) = (revision, PAGE);
        loop {
            let message = pb::RangeRequest {
                key: from.clone(),
                range_end: range_end.clone(),
                limit,
                revision: at,
                keys_only: is_keys_only,
                ..Default::default()
            };
            let page = match self.range(message).await {
                // Values that are not ours: as many at once as fit.
                Err(error) if error.is_too_long() && limit > 1 => {
                    limit = (limit / 8).max(1);
                    continue;
                }
                page => page?,
            };
            if at == 0 {
                at = page.revision;
            }
            let next = page.pairs.last().filter(|_| page.has_more).map(|last| {
                let mut key = last.key.clone();
                key.push(0);
                key
            });
            take(page);
            match next {
                Some(key) => from = key,
                None => return Ok(at),
            }
        }
    }

    /// The newest revision, and that of one key.
    pub(super) async fn word(&self, key: &str) -> Result<Word, EtcdError> {
        let asked = Instant::now();
        let page = self.range(pb::RangeRequest { key: key.into(), keys_only: true, ..Default::default() }).await?;
        let moved = page.pairs.first().map_or(0, |read| read.mod_revision);
        Ok(Word { asked, revision: page.revision, moved, cluster: page.cluster })
    }

    /// All steps, if all conditions hold: whether they do, and the revision after it.
    pub(super) async fn transact(&self, conditions: Vec<If>, steps: Vec<Do>) -> Result<(bool, i64), EtcdError> {
        let message = pb::TxnRequest {
            compare: conditions.into_iter().map(compare).collect(),
            success: steps.into_iter().map(operation).collect(),
            failure: Vec::new(),
        };
        let call = async { self.keys().txn(self.request(message)).await };
        let answer = limited("write", call).await?;
        Ok((answer.succeeded, answer.header.unwrap_or_default().revision))
    }

    /// A new lease, and how long it lasts.
    pub(super) async fn grant(&self, ttl: Duration) -> Result<(i64, Duration), EtcdError> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let message = pb::LeaseGrantRequest { ttl: seconds, id: 0 };
        let call = async { LeaseClient::new(self.channel.clone()).lease_grant(self.request(message)).await };
        let answer = limited("get a lease", call).await?;
        let granted = Duration::from_secs(u64::try_from(answer.ttl).unwrap_or(ttl.as_secs()).max(1));
        Ok((answer.id, granted))
    }

    /// Keeps a lease until that fails; `told` is called with each answer. It never returns otherwise.
    pub(super) async fn keep(&self, lease: i64, ttl: Duration, told: impl Fn()) -> EtcdError {
        let (asking, asked) = mpsc::channel(1);
        let ask = || pb::LeaseKeepAliveRequest { id: lease };
        // The first one goes at once: the stream's headers come only with its answer.
        if asking.try_send(ask()).is_err() {
            return EtcdError::state(Fault::Slow, "the lease's stream takes nothing");
        }
        let mut client = LeaseClient::new(self.channel.clone());
        let limit = (ttl / 3).max(Duration::from_secs(1));
        let call = async { client.lease_keep_alive(self.streaming(ReceiverStream::new(asked))).await };
        let mut answers: Streaming<pb::LeaseKeepAliveResponse> = match limited("keep the lease", call).await {
            Ok(answers) => answers,
            Err(error) => return error,
        };
        loop {
            match tokio::time::timeout(limit, answers.message()).await {
                Ok(Ok(Some(answer))) if answer.ttl > 0 => told(),
                Ok(Ok(Some(_))) => return EtcdError::state(Fault::LeaseLost, "the lease has run out"),
                Ok(Ok(None)) => return EtcdError::state(Fault::Away, "the lease's stream has ended"),
                Ok(Err(status)) => return EtcdError::call("keep the lease", &status),
                Err(_) => return EtcdError::state(Fault::Slow, "no answer about the lease"),
            }
            tokio::time::sleep(ttl / 3).await;
            if asking.send(ask()).await.is_err() {
                return EtcdError::state(Fault::Away, "the lease's stream has ended");
            }
        }
    }

    /// Follows everything under a prefix from a revision on.
    pub(super) async fn watch(&self, prefix: &str, from: i64) -> Result<Watch, EtcdError> {
        let (asking, asked) = mpsc::channel(4);
        let create = pb::WatchCreateRequest {
            key: prefix.into(),
            range_end: end_of(prefix),
            start_revision: from,
            fragment: true,
            ..Default::default()
        };
        let create = pb::watch_request::RequestUnion::CreateRequest(create);
        if asking.try_send(pb::WatchRequest { request_union: Some(create) }).is_err() {
            return Err(EtcdError::state(Fault::Slow, "the watch takes nothing"));
        }
        let mut client = WatchClient::new(self.channel.clone()).max_decoding_message_size(LONGEST);
        let call = async { client.watch(self.streaming(ReceiverStream::new(asked))).await };
        let answers = limited("watch", call).await?;
        Ok(Watch { asking, answers, pending: Vec::new() })
    }
}

/// A watch.
#[derive(Debug)]
pub(super) struct Watch {
    asking: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
    /// Fragments of an answer that is not complete.
    pending: Vec<(Read, bool)>,
}

impl Watch {
    /// Asks how far it is. What is still queued is question enough.
    pub(super) fn ask(&self) {
        let union = pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        let _ = self.asking.try_send(pb::WatchRequest { request_union: Some(union) });
    }

    /// What it says next. May be dropped half way: nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Told, EtcdError> {
        loop {
            let answer = match self.answers.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return Err(EtcdError::state(Fault::Away, "the watch has ended")),
                Err(status) => return Err(EtcdError::call("watch", &status)),
            };
            let header = answer.header.unwrap_or_default();
            if answer.compact_revision > 0 {
                let what = format!("the watch begins before revision {}", answer.compact_revision);
                return Err(EtcdError::state(Fault::Compacted, what));
            }
            if answer.canceled {
                // Its code is in the text alone.
                let code = match &*answer.cancel_reason {
                    reason if reason.contains("permission denied") => Code::PermissionDenied,
                    reason if reason.contains("auth") => Code::Unauthenticated,
                    _ => Code::Unavailable,
                };
                let status = Status::new(code, format!("etcd ended the watch: {}", answer.cancel_reason));
                return Err(EtcdError::call("watch", &status));
            }
            let events = answer.events.into_iter().filter_map(|event| {
                let is_delete = event.r#type() == pb::event::EventType::Delete;
                Some((Read::from(event.kv?), is_delete))
            });
            self.pending.extend(events);
            if answer.fragment {
                continue;
            }
            if answer.created {
                return Ok(Told::Begun { cluster: header.cluster_id, revision: header.revision });
            }
            if self.pending.is_empty() {
                return Ok(Told::Progress { revision: header.revision });
            }
            let events = std::mem::take(&mut self.pending);
            let revision = events.iter().map(|(pair, _)| pair.mod_revision).max().unwrap_or_default();
            return Ok(Told::Events { revision, events });
        }
    }
}

fn compare(condition: If) -> pb::Compare {
    use pb::compare::{CompareResult, CompareTarget, TargetUnion};
    let result = CompareResult::Equal.into();
    match condition {
        If::BoundTo(key, lease) => pb::Compare {
            result,
            target: CompareTarget::Lease.into(),
            key: key.into_bytes(),
            target_union: Some(TargetUnion::Lease(lease)),
        },
        If::Unmoved(key, revision) => pb::Compare {
            result,
            target: CompareTarget::Mod.into(),
            key: key.into_bytes(),
            target_union: Some(TargetUnion::ModRevision(revision)),
        },
    }
}

fn operation(step: Do) -> pb::RequestOp {
    use pb::request_op::Request;
    let put = |key: String, value, lease| {
        Request::RequestPut(pb::PutRequest { key: key.into_bytes(), value, lease, ignore_value: false })
    };
    let request = match step {
        Do::Put(key, value) => put(key, value, 0),
        Do::PutBound(key, value, lease) => put(key, value, lease),
        Do::Touch(key, value) => {
            let again = pb::PutRequest { key: key.clone().into_bytes(), ignore_value: true, ..Default::default() };
            Request::RequestTxn(pb::TxnRequest {
                compare: vec![compare(If::Unmoved(key.clone(), 0))],
                success: vec![operation(Do::Put(key, value))],
                failure: vec![pb::RequestOp { request: Some(Request::RequestPut(again)) }],
            })
        }
        Do::Delete(key) => {
            Request::RequestDeleteRange(pb::DeleteRangeRequest { key: key.into_bytes(), range_end: Vec::new() })
        }
        Do::DeleteAll(prefix) => {
            let range_end = end_of(&prefix);
            Request::RequestDeleteRange(pb::DeleteRangeRequest { key: prefix.into_bytes(), range_end })
        }
    };
    pb::RequestOp { request: Some(request) }
}

/// What a file holds, without the end of its line; the beginning of it, if it is far too long for a password.
fn password(file: &std::path::Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(LONGEST_PASSWORD).read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A call with the limit around all of it, dialling included.
async fn limited<T>(
    operation: &'static str,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, EtcdError> {
    match tokio::time::timeout(LIMIT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(EtcdError::call(operation, &status)),
        Err(_) => Err(EtcdError::call(operation, &Status::deadline_exceeded("no answer within 5 s"))),
    }
}
