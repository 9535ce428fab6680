//! `nomad plugin status` and what else of Nomad's command line looks at plugins, against the fixture of `nomad-http.md`
//! section 23 (case 90). `differential` lays its output beside a running Nomad's.

use super::parts::Part;
use super::support::client::Served;
use super::support::fixture::Fixture;
use super::support::process::{command, run};

const HEAD: &str = "ID        Provider                  Controllers Healthy/Expected  Nodes Healthy/Expected\n";
const EBS: &str = "ebs-prod  ebs-prod.csi.example.com  1/2                           3/3\n";
const EBS_2: &str = "ebs-prod  ebs-prod.csi.example.com  0/0                           1/1\n";
const NFS: &str = "nfs       nfs.csi.example.com       0/0                           2/2\n";
const BLOCK: &str = "ID                   = ebs-prod\nProvider             = ebs-prod.csi.example.com\nVersion              = 1.2.3\n\
                     Controllers Healthy  = 1\nControllers Expected = 2\nNodes Healthy        = 3\nNodes Expected       = 3\n";

/// The words, the exit code, and the beginnings of standard output and standard error.
type Case<'a> = (&'a str, i32, String, &'a str);

#[tokio::test]
async fn case_90_nomads_command_line_reads_plugins_from_us_unchanged() {
    let Some(nomad) = Part::Nomad.find() else { return };
    let served = Served::of(Fixture::conformance().with_allocations()).await;
    let table = format!("Container Storage Interface\n{HEAD}{EBS}{EBS_2}{NFS}");
    let several = format!("Prefix matched multiple plugins\n\n{HEAD}{EBS}{EBS_2}");
    let allocations = "\nAllocations\nID  Node ID  Task Group  Version  Desired  Status  Created  Modified\n";
    let nothing = String::new;
    let cases: Vec<Case<'_>> = vec![
        ("plugin status", 0, table.clone(), ""),
        ("plugin status -type csi", 0, table, ""),
        ("plugin status -type=host", 1, nothing(), "Unsupported plugin type: host\n"),
        // One id is the whole argument, though another begins with it.
        ("plugin status ebs-prod", 0, format!("{BLOCK}{allocations}a2  "), ""),
        ("plugin status -namespace=apps ebs-prod", 0, format!("{BLOCK}{allocations}a3  "), ""),
        ("plugin status -short ebs-prod", 0, BLOCK.to_owned(), ""),
        ("plugin status ebs", 1, nothing(), &several),
        ("plugin status n", 0, "ID                   = nfs\n".to_owned(), ""),
        ("plugin status zzz", 1, nothing(), "Error listing plugins: no plugins with prefix or ID \"zzz\" found\n"),
        ("plugin status -verbose", 0, "Container Storage Interface\nID          Provider".to_owned(), ""),
        ("plugin status -verbose ebs-prod", 0, format!("{BLOCK}\nController Capabilities\n"), ""),
        (
            "plugin status -json nfs",
            0,
            "{\n    \"Allocations\": null,\n    \"ControllerRequired\": false,".to_owned(),
            "",
        ),
        ("plugin status -json", 0, "[\n    {\n        \"ControllerRequired\": true,".to_owned(), ""),
        ("plugin status -t {{range.}}{{.ID}},{{end}}", 0, "ebs-prod,ebs-prod-2,nfs,\n".to_owned(), ""),
        (
            "plugin status -region=mars",
            1,
            "Container Storage Interface\n".to_owned(),
            "Error querying CSI plugins: Unexpected response code: 500 (No path to region)\n",
        ),
        ("status ebs-prod", 0, BLOCK.to_owned(), ""),
        ("status ebs", 1, nothing(), "Multiple matches found for id \"ebs\"\n\nPlugins:\nebs-prod, ebs-prod-2\n"),
        ("status zzz", 1, nothing(), "Unable to resolve ID: \"zzz\"\n"),
        ("operator api /v1/plugins?type=csi", 0, "[{\"ControllerRequired\":true,".to_owned(), ""),
        ("namespace list", 0, "Name     Description\ndefault  ".to_owned(), ""),
        // What belongs to an orchestrator we do not make up.
        ("node status", 1, nothing(), "Error querying node status: Unexpected response code: 404\n"),
        ("job status", 1, nothing(), "Error querying jobs: Unexpected response code: 404\n"),
    ];
    for (words, code, out, err) in cases {
        let mut one = command(&nomad);
        one.args(words.split(' ')).env("NOMAD_ADDR", format!("http://{}", served.address));
        let (found, stdout, stderr) = run(one).await;
        assert_eq!(found, Some(code), "{words}: {stdout}{stderr}");
        assert!(stdout.starts_with(&out) && (!out.is_empty() || stdout.is_empty()), "{words}: {stdout}");
        assert!(stderr.starts_with(err) && (!err.is_empty() || stderr.is_empty()), "{words}: {stderr}");
    }
}

#[tokio::test]
async fn without_plugins_there_is_a_word_for_it() {
    let Some(nomad) = Part::Nomad.find() else { return };
    let served = Served::of(Fixture::empty(csi_gateway::api::Settings::default())).await;
    let mut status = command(&nomad);
    status.args(["plugin", "status"]).env("NOMAD_ADDR", format!("http://{}", served.address));
    let (code, _, stderr) = run(status).await;
    assert_eq!((code, stderr.contains("No CSI plugins")), (Some(0), true), "{stderr}");
}
