//! The composition root: builds all parts, starts them, stops them in order.

pub mod sidecar;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::acl::{self, Access, AclError, KeySource};
use crate::api::connections::Connections;
use crate::api::server::{BindError, Listener};
use crate::api::{self, Api, ReadShape};
use crate::client::{Client, HttpError};
use crate::config::load::Variables;
use crate::config::settings::HTTP_ENDPOINT;
use crate::config::{MemberRole, Serve, Sources, host};
use crate::csi::Limits;
use crate::discovery::directory::Directories;
use crate::discovery::{self, Discovery, Kind, fixed, places};
use crate::domain::expected::{Declaration, DeclaredCounts};
use crate::domain::fleet::FleetStanding;
use crate::domain::id::{HostId, InstanceKey, PluginId};
use crate::domain::socket::{SocketFile, WantedSocket};
use crate::domain::trust::{ClientAuth, Trust};
use crate::fingerprint;
use crate::fingerprint::supervisor::{self, Sinks, Supervisor};
use crate::fleet;
use crate::fleet::etcd::Etcd;
use crate::fleet::follower::{self, Follower};
use crate::fleet::shipper::Shipper;
use crate::metrics::Counters;
use crate::owner::naming::Naming;
use crate::owner::{Known, nomad};
use crate::registry::agents::Agents;
use crate::registry::allocations::Allocations;
use crate::registry::commands::Commands;
use crate::registry::history::History;
use crate::registry::publisher::Publisher;
use crate::registry::reader::Reader;
use crate::registry::reporter::Report;
use crate::registry::retirement::After;
use crate::registry::sockets::Sockets;
use crate::store::{self, Store, StoreError};
use crate::systemd::{self, Handed};
use crate::telemetry::Chain;
use crate::tls::server::Tls;
use crate::tls::{self, TlsError};

/// Why the gateway cannot start, or did not end well.
#[derive(Debug, Error)]
pub enum AppError {
    /// No address to serve on.
    #[error("cannot serve")]
    Bind(#[from] BindError),
    /// A socket that was bound for us is of no use.
    #[error("cannot serve at a socket that was handed over")]
    Handed(#[source] io::Error),
    /// Certificates or keys that cannot be used.
    #[error("cannot speak TLS")]
    Tls(#[from] TlsError),
    /// Policies or tokens that cannot be used.
    #[error("cannot tell who may what")]
    Acl(#[from] AclError),
    /// No place to keep state.
    #[error("cannot keep state")]
    Store(#[from] StoreError),
    /// An address of Nomad that is none.
    #[error("cannot ask Nomad")]
    Nomad(#[from] HttpError),
    /// Nobody could stop it in order.
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
    /// A part of the gateway ended before it was told to.
    #[error("a part of the gateway failed")]
    Part(#[source] tokio::task::JoinError),
}

/// Where state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// In memory.
    Memory,
    /// In this directory, or not at all.
    In(PathBuf),
    /// In the first of these that can be written, else in memory.
    FirstOf(Vec<PathBuf>),
}

/// A part in a fleet.
#[derive(Debug, Clone)]
pub struct Member {
    /// Which part.
    pub role: MemberRole,
    /// How the fleet's etcd is reached.
    pub settings: fleet::Settings,
    /// How many instances of which plugins there should be in the whole fleet; an aggregator's.
    pub declared: BTreeMap<PluginId, Declaration>,
}

/// What a gateway is built from.
#[derive(Debug)]
pub struct Plan {
    /// This host.
    pub host: HostId,
    /// Where state is kept.
    pub keep: Keep,
    /// Transitions kept of each instance.
    pub history: usize,
    /// How long an instance is kept whose socket is gone or dead.
    pub retire: After,
    /// Sockets to watch; `None`: records come from elsewhere, through [`Gateway::feed`].
    pub sockets: Option<BTreeSet<WantedSocket>>,
    /// Where further sockets are looked for; nowhere, unless sockets are watched.
    pub discovery: discovery::Settings,
    /// Who is asked about the allocations of a Nomad client; `None`: nobody.
    pub nomad: Option<NomadPlan>,
    /// When to look at them.
    pub fingerprint: fingerprint::Settings,
    /// How many instances of which plugins there should be on this host.
    pub declared: BTreeMap<PluginId, DeclaredCounts>,
    /// Its part in a fleet; `None`: a host of its own.
    pub member: Option<Member>,
    /// Where to serve.
    pub endpoints: Vec<String>,
    /// Whose unix sockets among them are.
    pub socket: SocketFile,
    /// Files of TLS, which is spoken over TCP then.
    pub tls: Option<tls::server::Settings>,
    /// Connections of one client address; zero: as many as it likes.
    pub max_connections_per_client: u32,
    /// Sockets that are bound already, to serve at, too.
    pub handed: Vec<Handed>,
    /// Whose tokens and policies count; `None`: nobody is asked for any.
    pub access: Option<acl::Settings>,
    /// Whether SIGHUP has files read anew; otherwise it ends the process, as it should what belongs to a terminal.
    pub rereads_on_hangup: bool,
    /// What the API is told.
    pub api: api::Settings,
}

/// Whom to ask about allocations.
#[derive(Debug, Clone)]
pub struct NomadPlan {
    /// A server's or client's address.
    pub address: String,
    /// What opens its API.
    pub token: nomad::Token,
    /// How it is known.
    pub trust: Trust,
    /// State directories of clients, of which the first that has one says the node's id.
    pub state_directories: Vec<PathBuf>,
}

impl Plan {
    /// A plan with the defaults of everything that is not named here.
    #[must_use]
    pub fn new(host: HostId, keep: Keep, sockets: Option<BTreeSet<WantedSocket>>, endpoints: Vec<String>) -> Self {
        Self {
            host,
            keep,
            history: store::Settings::default().history,
            retire: After::default(),
            sockets,
            discovery: discovery::Settings::default(),
            nomad: None,
            fingerprint: fingerprint::Settings::default(),
            declared: BTreeMap::new(),
            member: None,
            endpoints,
            socket: SocketFile::default(),
            tls: None,
            max_connections_per_client: 0,
            handed: Vec::new(),
            access: None,
            rereads_on_hangup: false,
            // Empty: the names that belong to the addresses, once they are bound.
            api: api::Settings { allowed_hosts: Vec::new(), ..api::Settings::default() },
        }
    }

    /// The plan of `serve`.
    #[must_use]
    pub fn serve(config: &Serve, variable: Variables<'_>) -> Self {
        let sources = &config.sources;
        let declared = config.plugins.iter().filter_map(|plugin| Some((plugin, plugin.socket.as_ref()?)));
        let is_sidecar = sources.addresses.len() + declared.clone().count() == 1 && !sources.has_directories();
        let searched = searched(sources);
        let keep = match &config.state_directory {
            Some(directory) => Keep::In(directory.clone()),
            // A sidecar: its driver's life is its own, and there is nothing to remember that one look does not tell.
            None if is_sidecar && variable("STATE_DIRECTORY").is_none() => Keep::Memory,
            None => Keep::FirstOf(host::state_directories(variable)),
        };
        let mut sockets = fixed::sockets(&sources.addresses, config.plugin.as_ref(), config.role);
        sockets.extend(declared.zip(0..).map(|((plugin, path), place)| WantedSocket {
            plugin: Some(plugin.id.clone()),
            role: plugin.role,
            rank: u32::try_from(sources.addresses.len()).unwrap_or(u32::MAX).saturating_add(place),
            ..WantedSocket::configured(path.clone())
        }));
        let nomads = searched.places.iter().filter(|place| place.kind == Kind::Nomad);
        let nomads: Vec<PathBuf> = nomads.map(|place| place.path.clone()).collect();
        let host = host::id(config.host.as_ref(), variable, || discovery::host_id(nomads.iter().map(PathBuf::as_path)));
        let counts = config.plugins.iter().map(|plugin| (plugin.id.clone(), plugin.expected.on(&host)));
        let declared = counts.filter(|(_, counts)| !counts.is_empty()).collect();
        let mut plan = Self::new(host, keep, Some(sockets), config.endpoints.clone());
        plan.declared = declared;
        plan.member = config.member.as_ref().map(|member| Member {
            role: member.role,
            settings: fleet::Settings {
                servers: member.servers.clone(),
                prefix: member.prefix.clone(),
                trust: member.trust.clone(),
                user: member.user.clone(),
                host_ttl: member.host_ttl,
            },
            declared: config.plugins.iter().map(|plugin| (plugin.id.clone(), plugin.expected.clone())).collect(),
        });
        plan.api.role = match config.member.as_ref().map(|member| member.role) {
            None => plan.api.role,
            Some(MemberRole::Agent) => "agent",
            Some(MemberRole::Aggregator) => "aggregator",
        };
        if plan.api.role == "aggregator" {
            // It looks at nothing and keeps nothing.
            plan.sockets = None;
            plan.keep = Keep::Memory;
        }
        plan.discovery = searched;
        plan.nomad = config.nomad.as_ref().map(|nomad| NomadPlan {
            address: nomad.address.clone(),
            token: match (&nomad.token_file, &nomad.token) {
                (Some(file), _) => nomad::Token::File(file.clone()),
                (None, Some(token)) => nomad::Token::Secret(token.secret().into()),
                (None, None) => nomad::Token::None,
            },
            trust: nomad.trust.clone(),
            state_directories: nomads,
        });
        plan.history = config.history;
        plan.retire = After { gone: config.retire_gone, lost: config.retire_lost };
        plan.socket.clone_from(&config.socket);
        plan.tls = config.tls.as_ref().map(|tls| tls::server::Settings {
            certificate: tls.certificate.clone(),
            key: tls.key.clone(),
            authorities: tls.authorities.clone(),
            client_auth: tls.client_auth,
        });
        plan.max_connections_per_client = config.max_connections_per_client;
        plan.fingerprint.poll_interval = config.poll_interval;
        plan.fingerprint.limits = Limits::new(config.probe_timeout, config.timeout);
        plan.access = config.access.as_ref().map(|access| acl::Settings {
            policy_directory: access.policy_directory.clone(),
            tokens_file: access.tokens_file.clone(),
            keys: access.keys.as_deref().map(KeySource::of),
            audiences: access.audiences.clone(),
        });
        plan.rereads_on_hangup = true;
        plan.api.is_metrics_open = config.access.as_ref().is_some_and(|access| access.is_metrics_open);
        plan.api.region.clone_from(&config.region);
        plan.api.allowed_hosts.clone_from(&config.allowed_hosts);
        plan.api.read_shape = if config.is_documented_shape { ReadShape::Documented } else { ReadShape::Nomad };
        plan
    }
}

impl Plan {
    /// Serves at sockets that were handed over. They stand for the usual address, if there are any.
    #[must_use]
    pub fn with_handed(mut self, handed: Vec<Handed>) -> Self {
        if !handed.is_empty() {
            self.endpoints.retain(|endpoint| endpoint != HTTP_ENDPOINT);
        }
        self.handed = handed;
        self
    }
}

/// Where discovery looks, of what configuration says.
#[must_use]
pub fn searched(sources: &Sources) -> discovery::Settings {
    let (kubelet, nomad) = (sources.kubelet_directory.as_ref(), sources.nomad_directory.as_ref());
    let mut places = places::named(kubelet, nomad, &sources.plugins_directories);
    if sources.searches_well_known_places {
        places.extend(places::well_known(sources.host_root.as_deref()));
    }
    discovery::Settings { places, host_root: sources.host_root.clone() }
}

/// Who writes the catalog.
enum Registry {
    /// From reports of this process.
    Own(Box<Publisher>),
    /// From etcd.
    Fleet(Box<Followed>),
}

/// A fleet, and what is told of it beside its catalog.
struct Followed {
    follower: Follower,
    standing: watch::Receiver<FleetStanding>,
    allocations: Allocations,
    agents: Agents,
}

/// All parts, built and not yet running.
pub struct Gateway {
    plan: Plan,
    /// Stored instances of this host under another id.
    former: Vec<InstanceKey>,
    listeners: Vec<Listener>,
    registry: Registry,
    reader: Reader,
    history: History,
    commands: Commands,
    sockets: Sockets,
    reports: mpsc::Sender<Report>,
    counters: Counters,
    /// `None`: nobody is asked for a token.
    access: Option<Access>,
    /// What has files read anew, whatever else there is to read.
    hangup: Option<Signal>,
    /// With what tells it to read its files anew; `None`: plain HTTP is spoken.
    tls: Option<(Tls, Signal)>,
}

impl Gateway {
    /// Opens the store and binds every address.
    ///
    /// # Errors
    /// A state directory, an address or a policy that cannot be used.
    pub async fn build(mut plan: Plan) -> Result<Self, AppError> {
        raise_descriptor_limit();
        // Before anything that takes time: whoever reloads a service that starts does not mean to end it.
        let signalled = || signal(SignalKind::hangup()).map_err(AppError::Signals);
        let hangup = plan.rereads_on_hangup.then(signalled).transpose()?;
        let tls = match plan.tls.take() {
            Some(settings) => Some((Tls::load(settings)?, signalled()?)),
            None => None,
        };
        let spoken = tls.as_ref().map(|(tls, _)| tls);
        // Addresses first: whoever cannot serve must not touch the state of the one that does.
        let connections = Connections::at_most(plan.max_connections_per_client);
        let mut listeners = Vec::new();
        for handed in plan.handed.drain(..) {
            let listener = Listener::handed(handed).map_err(AppError::Handed)?;
            listeners.push(listener.limited_by(&connections).speaking(spoken));
        }
        for endpoint in &plan.endpoints {
            let listener = Listener::bind_as(endpoint, &plan.socket).await?;
            listeners.push(listener.limited_by(&connections).speaking(spoken));
        }
        let access = plan.access.clone().map(Access::load).transpose()?;
        if let Some(member) = plan.member.take_if(|member| member.role == MemberRole::Aggregator) {
            let etcd = Etcd::new(&member.settings);
            let (follower, handles) = Follower::new(etcd, &member.settings, plan.retire.lost, member.declared);
            info!(version = env!("CARGO_PKG_VERSION"), "csi-gateway starts as an aggregator");
            let follower::Handles { reader, history, allocations, agents, commands, standing } = handles;
            return Ok(Self {
                access,
                hangup,
                tls,
                plan,
                former: Vec::new(),
                listeners,
                registry: Registry::Fleet(Box::new(Followed { follower, standing, allocations, agents })),
                reader,
                history,
                commands,
                sockets: Sockets::default(),
                // Nobody reports to an aggregator.
                reports: mpsc::channel(1).0,
                counters: Counters::default(),
            });
        }
        let settings = store::Settings { history: plan.history, ..store::Settings::default() };
        let (store, loaded) = open(&plan.keep, &settings)?;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            host.id = %plan.host,
            instances = loaded.records.len(),
            index = loaded.start.0,
            "csi-gateway starts"
        );
        // What this store holds is one host's. Under a former id of that nobody would ever look at it again.
        let former = loaded.records.iter().map(|record| &record.key);
        let former = former.filter(|key| plan.sockets.is_some() && key.host != plan.host).cloned().collect();
        let counters = Counters { operations: store.operations(), ..Counters::default() };
        let sockets = Sockets::of(plan.host.clone());
        let (publisher, handles) = Publisher::new(loaded, store);
        let publisher = publisher.retiring(plan.retire).declaring(&plan.declared);
        Ok(Self {
            access,
            hangup,
            tls,
            plan,
            former,
            listeners,
            registry: Registry::Own(Box::new(publisher)),
            reader: handles.reader,
            history: handles.history,
            commands: handles.commands,
            sockets,
            reports: handles.reports,
            counters,
        })
    }

    /// Where it serves: `HOST:PORT` or `unix:///PATH`.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.listeners.iter().map(Listener::address)
    }

    /// The same as `curl` takes them.
    pub fn urls(&self) -> impl Iterator<Item = String> {
        self.listeners.iter().map(Listener::url)
    }

    /// The catalog.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Where records made elsewhere go.
    #[must_use]
    pub fn feed(&self) -> mpsc::Sender<Report> {
        self.reports.clone()
    }

    /// Runs until `stop`; then ends in order: who asks is answered, who watches ends, what was seen is kept.
    ///
    /// # Errors
    /// What did not end well.
    pub async fn run(self, stop: CancellationToken) -> Result<(), AppError> {
        let Self {
            mut plan,
            former,
            listeners,
            registry,
            reader,
            history,
            commands,
            sockets,
            reports,
            counters,
            access,
            hangup,
            tls,
        } = self;
        let tcp = listeners.iter().map(Listener::address).find(|address| !address.starts_with("unix:"));
        plan.api.address = tcp.unwrap_or_default().to_owned();
        if plan.api.allowed_hosts.is_empty() {
            // Both what was asked for (a name) and what was bound (its address).
            let asked = plan.endpoints.iter().map(String::as_str);
            plan.api.allowed_hosts = api::names_of(asked.chain(listeners.iter().map(Listener::address)));
        }
        warn_of_open_doors(&listeners, access.is_some(), tls.as_ref().map(|(tls, _)| tls));
        let ends = stop.clone();
        let last = CancellationToken::new();
        let (mut standing, mut allocations, mut agents) = (None, None, None);
        let registry = match registry {
            Registry::Own(publisher) => tokio::spawn(Box::pin(publisher.run(last.clone().cancelled_owned()))),
            Registry::Fleet(followed) => {
                let (followed, last) = (*followed, last.clone());
                standing = Some(followed.standing);
                (allocations, agents) = (Some(followed.allocations), Some(followed.agents));
                let following = async move {
                    followed.follower.run(last).await;
                    Ok(())
                };
                tokio::spawn(Box::pin(following))
            }
        };

        for key in former {
            info!(plugin.id = %key.plugin, host.id = %key.host, "retired: this host has another id now");
            // Its receiver is the publisher that was started just now.
            let _ = reports.send(Report::Retire(key)).await;
        }

        let nomad = match plan.nomad.take() {
            None => None,
            Some(nomad) => {
                let allocations = allocations.insert(Allocations::default());
                Some((nomad.follower(allocations.clone())?, allocations.clone()))
            }
        };
        let mut parts = Parts::default();
        if let Some(Member { settings, .. }) = plan.member.take() {
            if settings.user.is_some() && settings.servers.iter().any(|server| !server.is_tls) {
                warn!("etcd's password goes over the network as it is: give --etcd-servers=https://…");
            }
            let etcd = Etcd::new(&settings);
            let (host, history) = (plan.host.clone(), Some(history.clone()));
            let (shipper, told) = Shipper::new(etcd, &settings, host, reader.clone(), history, plan.history);
            let mut shipper = shipper.with_sockets(sockets.clone());
            if let Some(allocations) = &allocations {
                shipper = shipper.with_allocations(allocations.clone());
            }
            parts.spawn(shipper.run(stop.clone()));
            standing = Some(told);
        }
        let state = api::State::new(reader.clone(), Arc::new(history), sockets.clone(), plan.api, stop.clone());
        let mut state = state.with_commands(commands).with_counters(counters.clone());
        if let Some(standing) = standing {
            state = state.with_fleet(standing);
        }
        if let Some(allocations) = allocations {
            state = state.with_allocations(allocations);
        }
        if let Some(agents) = agents {
            state = state.with_agents(agents);
        }
        if let Some(access) = &access {
            state = state.with_access(access.clone());
        }
        parts.spawn_until(&stop, reread(access, hangup, tls.is_none()));
        if let Some((tls, hangup)) = tls {
            parts.spawn_until(&stop, tls.clone().follow(hangup));
            state = state.with_tls(tls);
        }
        let api = Api::new(state);
        for listener in listeners {
            info!(address = listener.url(), "serving");
            parts.spawn(api::server::serve(listener, api.clone(), stop.clone()));
        }
        let is_scanned = reader.clone();
        parts.spawn(systemd::tell(async move { is_scanned.scanned().await }, stop.clone()));
        if let Some(wanted) = plan.sockets {
            for socket in &wanted {
                info!(socket = %socket.path.display(), role = socket.role.as_str(), "watching");
            }
            let (mut wanted_in, wanted_out) = watch::channel(Arc::new(wanted.clone()));
            let (mut listed_in, listed) = watch::channel(plan.discovery.places.is_empty());
            if let Some(((follower, known), allocations)) = nomad {
                // What is found gets its names between discovery and the supervisor.
                let (found_in, found) = watch::channel(Arc::new(wanted.clone()));
                let (searched_in, searched) = watch::channel(*listed.borrow());
                let (held_back, catalog) = (sockets.clone(), reader.clone());
                let naming = Naming {
                    known,
                    found,
                    searched,
                    wanted: std::mem::replace(&mut wanted_in, found_in),
                    listed: std::mem::replace(&mut listed_in, searched_in),
                    held_back: Box::new(move |sockets, unnamed| {
                        held_back.put_held_back(sockets);
                        allocations.put_unnamed(unnamed);
                    }),
                    records: Box::new(move |allocation| {
                        let catalog = catalog.current();
                        let of = catalog.records().filter(|record| *record.owner.alloc_id == *allocation);
                        of.cloned().collect()
                    }),
                };
                parts.spawn_until(&stop, naming.run());
                parts.spawn_until(&stop, follower.run());
            }
            let (events_in, events) = watch::channel(Arc::default());
            let (noticed_in, noticed) = watch::channel(0);
            let (touches_in, touches) = mpsc::channel(64);
            let (seen, watching) = (sockets.clone(), sockets.clone());
            let catalog = reader.clone();
            let supervisor = Supervisor::new(
                plan.host,
                plan.fingerprint,
                supervisor::Sources { wanted: wanted_out.clone(), listed, touches },
                Sinks { reports: reports.clone(), sockets, reader },
            )
            .counted_by(counters.calls);
            parts.spawn(supervisor.run(stop.clone()));
            let told = Box::new(move |state| watching.put_events(state));
            let directories = Directories::new(wanted_out, touches_in, events, noticed_in, told);
            parts.spawn(directories.run(stop.clone()));
            let sinks = discovery::Sinks {
                wanted: wanted_in,
                listed: listed_in,
                events: events_in,
                seen: Box::new(move |searched, ignored| seen.put_search(searched, ignored)),
                is_instance: Box::new(move |path| {
                    catalog.current().records().any(|record| *record.socket == *path.to_string_lossy())
                }),
            };
            let is_fixed = plan.discovery.places.is_empty();
            let discovery = Discovery::new(wanted, plan.discovery, sinks, noticed).counted_by(counters.scans);
            parts.spawn(async move {
                if is_fixed {
                    // Nothing is searched; its channels stay open.
                    stop.cancelled().await;
                    drop(discovery);
                } else {
                    discovery.run(stop).await;
                }
            });
        }
        drop(reports);

        let ended = parts.ended(&ends).await;
        ends.cancelled().await;
        last.cancel();
        let kept = registry.await.map_err(AppError::Part)?;
        info!("csi-gateway ends");
        ended?;
        Ok(kept?)
    }
}

/// What runs side by side. On the heap, and of one type: `spawn` moves what it is given several times, a stack keeps every
/// page that was touched once, and each type of a task has code of its own.
#[derive(Default)]
struct Parts(JoinSet<()>);

impl Parts {
    fn spawn(&mut self, part: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(Box::pin(part) as Pin<Box<dyn Future<Output = ()> + Send>>);
    }

    /// Spawns what never ends by itself.
    fn spawn_until(&mut self, stop: &CancellationToken, part: impl Future<Output = ()> + Send + 'static) {
        let stop = stop.clone();
        self.spawn(async move {
            let _ = stop.run_until_cancelled_owned(part).await;
        });
    }

    /// Returns when all have ended. One that failed takes the others with it: half a gateway would look like a whole one.
    async fn ended(mut self, stop: &CancellationToken) -> Result<(), AppError> {
        let mut failed = None;
        while let Some(ended) = self.0.join_next().await {
            if let Err(error) = ended {
                stop.cancel();
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), |error| Err(AppError::Part(error)))
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// Reads anew what can be read anew: at each signal, and whenever a file has changed.
/// `is_alone`: nobody else does so.
async fn reread(access: Option<Access>, hangup: Option<Signal>, is_alone: bool) {
    match (access, hangup) {
        (Some(access), hangup) => {
            tokio::join!(access.clone().follow(hangup), access.follow_keys());
        }
        (None, Some(mut hangup)) if is_alone => {
            while hangup.recv().await.is_some() {
                info!("SIGHUP: there is no file that is read anew; flags, variables and --config need a restart");
            }
        }
        (None, _) => {}
    }
}

impl NomadPlan {
    fn follower(self, allocations: Allocations) -> Result<(nomad::Follower, watch::Receiver<Arc<Known>>), AppError> {
        let client = Client::new(&self.address, self.trust)?;
        let (known_in, known) = watch::channel(Arc::default());
        let standing = allocations.clone();
        let directories = self.state_directories;
        // Read each time: a client that is installed later, or anew, has an id of its own.
        let node = move || {
            let id = discovery::host_id(directories.iter().map(PathBuf::as_path))?;
            Some(id.as_str().into())
        };
        let sinks = nomad::Sinks {
            known: known_in,
            allocations: Box::new(move |all| allocations.replace(all)),
            standing: Box::new(move |asked| standing.put_orchestrator(asked)),
        };
        Ok((nomad::Follower::new(client, self.token, Box::new(node), sinks), known))
    }
}

/// Says once where everybody may come in, and how that is closed.
fn warn_of_open_doors(listeners: &[Listener], has_access: bool, tls: Option<&Tls>) {
    let knows_clients = tls.is_some_and(|tls| tls.standing().client_auth == ClientAuth::Required);
    if has_access || knows_clients {
        return;
    }
    let open: Vec<String> = listeners.iter().filter(|listener| listener.is_exposed()).map(Listener::url).collect();
    if !open.is_empty() {
        warn!(
            addresses = open.join(", "),
            "whoever can connect from elsewhere may read everything: --acl-enabled has everybody show a token, \
             --tls-client-ca-file a certificate, and --http-endpoint=127.0.0.1:4649 (or unix:///PATH) keeps others out"
        );
    }
}

fn open(keep: &Keep, settings: &store::Settings) -> Result<(Store, store::Loaded), StoreError> {
    let directories = match keep {
        Keep::Memory => return Store::memory(settings.clone()),
        Keep::In(directory) => return Store::open(directory, settings.clone()),
        Keep::FirstOf(directories) => directories,
    };
    for directory in directories {
        match Store::open(directory, settings.clone()) {
            Ok(opened) => {
                info!(directory = %directory.display(), "state is kept");
                return Ok(opened);
            }
            // A place that is not ours to write is no place; one that holds state we cannot read is a reason to stop.
            Err(error @ StoreError::Directory { .. }) => {
                info!(directory = %directory.display(), reason = %Chain(&error), "no place for state");
            }
            Err(error) => return Err(error),
        }
    }
    warn!("no directory can be written, so state is kept in memory and lost at the end; give one with --state-dir");
    Store::memory(settings.clone())
}

/// Each driver and each reader holds a descriptor, and the usual limit is 1,024.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            warn!(error = %io::Error::from(error), "the limit of open files stays as it is");
        }
    }
}
