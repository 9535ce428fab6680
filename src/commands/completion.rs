//! `completion SHELL`: a small script for the shell, which asks this program what may follow.
//!
//! So commands, flags and words come from the one table, and plugin ids from the gateway of the moment. An id that a
//! shell would take for more than a word is not offered: a driver chooses its name, and the shell would run it.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::utf8_percent_encode;
use serde::Deserialize;

use super::http::{self, ESCAPED};
use super::{Outcome, say};
use crate::config::arguments::{self, Typed};
use crate::config::load::Problems;
use crate::config::settings::{self, Command};
use crate::config::{Asking, Completion, Shell, Token};
use crate::domain::trust::{Identity, Trust};

/// How long a person may be kept waiting for plugin ids.
const LIMIT: Duration = Duration::from_millis(700);
/// Plugin ids offered at most.
const MOST: usize = 500;

/// Runs the command.
pub async fn run(config: &Completion) -> Outcome {
    match &config.line {
        None => say(script(config.shell)),
        Some(line) => {
            let candidates = candidates(&config.asking, line).await;
            let cut = already_there(config.shell, line);
            let shown: Vec<&str> = candidates.iter().filter_map(|candidate| candidate.get(cut..)).collect();
            if !shown.is_empty() {
                say(&shown.join("\n"));
            }
        }
    }
    Outcome::Done
}

fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => {
            r#"# source <(csi-gateway completion bash)
_csi_gateway() {
    mapfile -t COMPREPLY < <("$1" completion bash --line="${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi
}
complete -o default -F _csi_gateway csi-gateway
"#
        }
        Shell::Zsh => {
            r#"#compdef csi-gateway
# source <(csi-gateway completion zsh)
_csi_gateway() {
    local -a found
    found=(${(f)"$("${words[1]}" completion zsh --line="$LBUFFER" 2>/dev/null)"})
    if (( ! ${#found} )); then _files; return; fi
    compadd -S '' -- ${(M)found:#*=}
    compadd -- ${found:#*=}
}
compdef _csi_gateway csi-gateway
"#
        }
        Shell::Fish => {
            r"# csi-gateway completion fish | source
complete -c csi-gateway -a '(csi-gateway completion fish --line=(commandline -cp) 2>/dev/null)'
"
        }
    }
}

/// How much of each candidate stands on the line already: bash takes what follows `=` and `:` for a word of its own.
fn already_there(shell: Shell, line: &str) -> usize {
    let word = words(line).1;
    match shell {
        Shell::Bash => word.rfind(['=', ':']).map_or(0, |place| place + 1),
        Shell::Zsh | Shell::Fish => 0,
    }
}

/// The words behind the program's name, and the one that is not finished.
fn words(line: &str) -> (Vec<String>, &str) {
    let last = line
        .rfind(char::is_whitespace)
        .map_or(0, |place| place + line[place..].chars().next().map_or(1, char::len_utf8));
    let (before, word) = line.split_at(last);
    let before: Vec<String> = before.split_whitespace().map(str::to_owned).collect();
    let program = before.iter().rposition(|word| word.rsplit('/').next() == Some("csi-gateway"));
    (before.into_iter().skip(program.map_or(0, |place| place + 1)).collect(), word)
}

async fn candidates(asking: &Asking, line: &str) -> Vec<String> {
    let (before, word) = words(line);
    let Some((first, rest)) = before.split_first() else {
        return begun(word, Command::ALL.into_iter().map(|command| command.name().to_owned()));
    };
    let Some(command) = Command::ALL.into_iter().find(|command| command.name() == first) else {
        return match first.as_str() {
            "help" => begun(word, Command::ALL.into_iter().map(|command| command.name().to_owned())),
            _ => Vec::new(),
        };
    };
    if word.starts_with('-') {
        return flags(command, word);
    }
    let typed = arguments::scan(command, rest, &mut Problems::default());
    if !typed.operands.is_empty() {
        return Vec::new();
    }
    match command.operand().map(|(name, _)| name) {
        Some("PLUGIN") => begun(word, plugins(&asked(asking, &typed), word).await.into_iter()),
        Some("ACTION") => begun(word, ["check", "show"].map(str::to_owned).into_iter()),
        Some("SHELL") => begun(word, Shell::ALL.map(|(name, _)| name.to_owned()).into_iter()),
        _ => Vec::new(),
    }
}

fn begun(word: &str, all: impl Iterator<Item = String>) -> Vec<String> {
    all.filter(|candidate| candidate.starts_with(word)).collect()
}

fn flags(command: Command, word: &str) -> Vec<String> {
    let dashes = if word.starts_with("--") || word == "-" { "--" } else { "-" };
    if let Some((flag, _)) = word.split_once('=') {
        let values: &[&str] = match flag.trim_start_matches('-') {
            "plugin-type" => &["auto", "controller", "monolith", "node"],
            "api-read-shape" => &["documented", "nomad"],
            "tls-client-auth" => &["none", "optional", "required"],
            "logging-format" => &["json", "text"],
            "nodes" | "controllers" => &["all"],
            _ => &[],
        };
        return begun(word, values.iter().map(|value| format!("{flag}={value}")));
    }
    let flag = |setting: &settings::Setting| {
        let end = if setting.value.is_some() { "=" } else { "" };
        format!("{dashes}{}{end}", setting.name)
    };
    begun(word, settings::of(command).map(flag))
}

/// Whom to ask: whoever the line names already, else whoever is configured.
fn asked(asking: &Asking, typed: &Typed) -> Asking {
    let last = |name: &str| typed.flags.get(name).and_then(|values| values.last());
    let of_file = |path: &String| Token::parse(&std::fs::read_to_string(path).ok()?);
    Asking {
        address: last("address").unwrap_or(&asking.address).clone(),
        token: last("token-file").and_then(of_file).or_else(|| asking.token.clone()),
        trust: asked_trust(asking, typed),
    }
}

fn asked_trust(asking: &Asking, typed: &Typed) -> Trust {
    let last = |name: &str| typed.flags.get(name).and_then(|values| values.last());
    let path = |name: &str| last(name).map(PathBuf::from);
    let known = &asking.trust;
    let identity = match (path("client-cert"), path("client-key")) {
        (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
        _ => known.identity.clone(),
    };
    Trust {
        authorities: path("ca-cert").or_else(|| known.authorities.clone()),
        authorities_directory: path("ca-path").or_else(|| known.authorities_directory.clone()),
        identity,
        server_name: last("tls-server-name").cloned().or_else(|| known.server_name.clone()),
        is_unverified: known.is_unverified || last("tls-skip-verify").is_some_and(|value| value == "true"),
    }
}

#[derive(Deserialize)]
struct Stub {
    #[serde(rename = "ID")]
    id: String,
}

async fn plugins(asking: &Asking, word: &str) -> Vec<String> {
    let path = format!("/v1/plugins?type=csi&prefix={}", utf8_percent_encode(word, ESCAPED));
    let Ok(Ok(answer)) = tokio::time::timeout(LIMIT, http::ask(asking, &path)).await else { return Vec::new() };
    let found: Vec<Stub> = http::json(&asking.address, &answer).unwrap_or_default();
    found.into_iter().map(|stub| stub.id).filter(|id| is_word(id)).take(MOST).collect()
}

/// Whether any shell takes a text for a word and nothing else.
fn is_word(text: &str) -> bool {
    !text.starts_with('-')
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '+' | '@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commands_flags_and_words_come_from_the_table() {
        let nobody = Asking::at("http://127.0.0.1:1");
        let all = async |line: &str| candidates(&nobody, line).await.join(" ");
        assert_eq!(all("csi-gateway w").await, "wait");
        assert_eq!(all("sudo /usr/bin/csi-gateway co").await, "config completion");
        assert_eq!(all("csi-gateway config ").await, "check show");
        assert_eq!(all("csi-gateway completion z").await, "zsh");
        assert_eq!(all("csi-gateway wait --reg").await, "--registered");
        assert_eq!(all("csi-gateway wait -n").await, "-nodes=");
        assert_eq!(all("csi-gateway serve --plugin-type=no").await, "--plugin-type=node");
        assert_eq!(all("csi-gateway wait x ").await, "");
        assert_eq!(all("csi-gateway nonsense ").await, "");
        assert_eq!(all("").await.split(' ').count(), Command::ALL.len());
    }

    #[test]
    fn bash_gets_only_what_follows_its_own_breaks() {
        assert_eq!(already_there(Shell::Bash, "csi-gateway serve --plugin-type=no"), "--plugin-type=".len());
        assert_eq!(already_there(Shell::Bash, "csi-gateway wait a:b"), 2);
        assert_eq!(already_there(Shell::Fish, "csi-gateway wait a:b"), 0);
    }

    #[test]
    fn an_id_that_a_shell_would_run_is_not_offered() {
        for id in ["$(reboot)", "`x`", "a b", "a;b", "a|b", "-rf", "a'b", "a*", "a~b!"] {
            assert!(!is_word(id), "{id}");
        }
        for id in ["ebs.csi.aws.com", "nfs:1", "драйвер", "a_b-c+d@e"] {
            assert!(is_word(id), "{id}");
        }
    }
}
