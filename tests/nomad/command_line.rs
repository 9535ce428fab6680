//! `nomad plugin status` and what else of Nomad's command line looks at plugins, against the fixture of `nomad-http.md`
//! section 23 (case 90).

use super::parts::Part;
use super::support::client::Served;
use super::support::fixture::Fixture;
use super::support::process::{command, run};

#[tokio::test]
async fn probe() {
    let Some(nomad) = Part::Nomad.find() else { return };
    let served = Served::of(Fixture::conformance().with_allocations()).await;
    for line in std::fs::read_to_string("/tmp/nomad/lines").expect("lines").lines() {
        let mut one = command(&nomad);
        one.args(line.split_whitespace()).env("NOMAD_ADDR", format!("http://{}", served.address));
        println!("=== {line}\n{:?}", run(one).await);
    }
}
