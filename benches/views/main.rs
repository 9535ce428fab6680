//! A gateway's API with one large plugin and many who see it differently.
//!
//! `views --folder=DIR [--hosts=N] [--views=N]` makes a plugin on N hosts, an allocation on each, spread over as many
//! namespaces as there are views, and for each view a policy and a token that may read that namespace's jobs. It picks a port
//! on the loopback, prints its address and then, per view, `TOKEN NAMESPACE`, and serves until it is ended.

#![allow(clippy::print_stdout, reason = "a tool talks to its caller")]

#[allow(dead_code, unreachable_pub, missing_docs, reason = "the tests' own, of which this uses a part")]
#[path = "../../tests/support/fixture.rs"]
mod fixture;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;

use csi_gateway::acl::token::{self, Kind, Token};
use csi_gateway::acl::{Access, Settings};
use csi_gateway::api::{self, server};
use csi_gateway::domain::allocation::Allocation;
use csi_gateway::domain::record::{Owner, Record};
use csi_gateway::domain::time::Timestamp;
use fixture::{Fixture, allocation, node, put};

/// Bytes of an allocation's stub, about as many as Nomad sends.
const STUB: usize = 1_200;

struct Arguments {
    folder: PathBuf,
    hosts: usize,
    views: usize,
}

fn arguments() -> Result<Option<Arguments>, Box<dyn Error>> {
    let (mut folder, mut hosts, mut views) = (None, 1_000, 50);
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("--folder", path)) => folder = Some(PathBuf::from(path)),
            Some(("--hosts", text)) => hosts = text.parse()?,
            Some(("--views", text)) => views = text.parse()?,
            // `cargo bench` runs every bench target with this; there is nothing to measure alone.
            None if argument == "--bench" => return Ok(None),
            _ => return Err(format!("no argument `{argument}`; the head of this file lists them").into()),
        }
    }
    let folder = folder.ok_or("needed is --folder")?;
    Ok(Some(Arguments { folder, hosts, views }))
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(arguments) = arguments()? else { return Ok(()) };
    // As many workers as the gateway has.
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(serve(arguments))
}

async fn serve(Arguments { folder, hosts, views }: Arguments) -> Result<(), Box<dyn Error>> {
    let (policies, tokens) = (folder.join("policies"), folder.join("tokens.json"));
    std::fs::create_dir_all(&policies)?;
    let mut told = String::new();
    for view in 0..views {
        let rules = format!("plugin {{ policy = \"read\" }}\nnamespace \"team-{view}\" {{ policy = \"read\" }}\n");
        std::fs::write(policies.join(format!("team-{view}.hcl")), rules)?;
        let names = vec![format!("team-{view}")];
        let (token, secret) = Token::create(Kind::Client, String::new(), names, Timestamp::now(), None)?;
        token::add(&tokens, token)?;
        told.push_str(&format!("{} team-{view}\n", secret.reveal()));
    }
    let settings = Settings { policy_directory: Some(policies), tokens_file: Some(tokens), ..Settings::default() };
    let fixture = Fixture::guarded(api::Settings::default(), Some(Access::load(settings)?));
    let name = |number: usize| format!("{number:08x}-1111-2222-3333-444455556666");
    let instance =
        |number: usize| Record { owner: Owner::allocation(&name(number)), ..node("ebs", &format!("host-{number:08}")) };
    fixture.apply_at(101, (0..hosts).map(instance).map(put));
    fixture.allocations.replace((0..hosts).map(|number| {
        let one = allocation(&name(number), &format!("team-{}", number % views.max(1)), number as u64);
        let padding = format!(",\"TaskStates\":\"{}\"}}", "x".repeat(STUB));
        let stub = [&one.stub[..one.stub.len() - 1], padding.as_bytes()].concat();
        Allocation { stub: stub.into(), ..one }
    }));
    let listener = server::Listener::bind("127.0.0.1:0").await?;
    print!("http://{}\n{told}end\n", listener.address());
    std::io::stdout().flush()?;
    server::serve(listener, fixture.api.clone(), fixture.shutdown.clone()).await;
    Ok(())
}
