//! From arguments to a command and its configuration; the help texts.

use clap::builder::styling::Styles;

use crate::config::arguments::{self, Typed};
use crate::config::load::{self, Problems, Variables};
use crate::config::settings::{self, Command};
use crate::config::{Acl, Completion, Demo, Doctor, Forget, Healthcheck, History, Probe, Serve, Sidecar, Status, Wait};
use crate::domain::text::escaped;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Text to print, and no more.
    Text(String),
    /// `serve`.
    Serve(Box<Serve>),
    /// Flags and no command.
    Sidecar(Sidecar),
    /// `probe`.
    Probe(Probe),
    /// `status`.
    Status(Status),
    /// `wait`.
    Wait(Wait),
    /// `doctor`.
    Doctor(Doctor),
    /// `history`.
    History(History),
    /// `forget`.
    Forget(Forget),
    /// `healthcheck`.
    Healthcheck(Healthcheck),
    /// `acl`.
    Acl(Acl),
    /// `demo`.
    Demo(Demo),
    /// `completion`.
    Completion(Completion),
}

/// The version, as `version` prints it.
#[must_use]
pub fn version() -> String {
    format!("csi-gateway {}", env!("CARGO_PKG_VERSION"))
}

/// Reads arguments (without the program's name) and variables.
///
/// # Errors
/// Everything that is wrong with them, in one report.
pub fn parse(arguments: &[String], variable: Variables<'_>) -> Result<Invocation, Problems> {
    let Some((first, rest)) = arguments.split_first() else { return Ok(Invocation::Text(help(None))) };
    let word = first.trim_start_matches('-');
    if matches!(word, "help" | "h") {
        let topic = rest.first().and_then(|name| Command::ALL.into_iter().find(|command| command.name() == name));
        return Ok(Invocation::Text(help(topic)));
    }
    if first.starts_with('-') && matches!(word, "version" | "V") {
        return Ok(Invocation::Text(version()));
    }
    // As livenessprobe is started: a manifest changes only its image.
    let (first, rest) = if first.starts_with('-') { (Command::Sidecar.name(), arguments) } else { (&**first, rest) };
    let Some(command) = Command::ALL.into_iter().find(|command| command.name() == first) else {
        return Err(Problems(vec![unknown(first)]));
    };
    let mut problems = Problems::default();
    let typed: Typed = arguments::scan(command, rest, &mut problems);
    if typed.wants_help {
        return Ok(Invocation::Text(help(Some(command))));
    }
    Ok(match command {
        Command::Serve => Invocation::Serve(Box::new(load::serve(command, &typed, variable, problems)?)),
        Command::Sidecar => Invocation::Sidecar(load::sidecar(&typed, variable, problems)?),
        Command::Probe => Invocation::Probe(load::probe(&typed, variable, problems)?),
        Command::Status => Invocation::Status(load::status(&typed, variable, problems)?),
        Command::Wait => Invocation::Wait(load::wait(&typed, variable, problems)?),
        Command::Doctor => Invocation::Doctor(load::doctor(&typed, variable, problems)?),
        Command::History => Invocation::History(load::history(&typed, variable, problems)?),
        Command::Forget => Invocation::Forget(load::forget(&typed, variable, problems)?),
        Command::Healthcheck => Invocation::Healthcheck(load::healthcheck(&typed, variable, problems)?),
        Command::Acl => Invocation::Acl(load::acl(&typed, variable, problems)?),
        Command::Demo => Invocation::Demo(load::demo(&typed, variable, problems)?),
        Command::Config => Invocation::Text(config(&typed, variable, problems)?),
        Command::Completion => Invocation::Completion(load::completion(&typed, variable, problems)?),
        Command::Version if problems.0.is_empty() => Invocation::Text(version()),
        Command::Version => return Err(problems),
    })
}

/// What `config check` and `config show` print.
fn config(typed: &Typed, variable: Variables<'_>, mut problems: Problems) -> Result<String, Problems> {
    let is_show = match typed.operands.first().map(String::as_str) {
        Some("check") => false,
        Some("show") => true,
        Some(other) => {
            problems.0.push(format!("argument ACTION: `{}` is none of check, show", escaped(other)));
            false
        }
        None => {
            problems.0.push("what about the configuration? `csi-gateway config check` or `config show`".to_owned());
            false
        }
    };
    if is_show {
        return load::show(typed, variable, problems);
    }
    load::serve(Command::Config, typed, variable, problems)?;
    let what = load::file_of(typed, variable)
        .map_or_else(|| "flags and variables".to_owned(), |file| escaped(&file).into_owned());
    Ok(format!("nothing is wrong with {what}"))
}

fn unknown(word: &str) -> String {
    let word = &*escaped(word);
    let names = || Command::ALL.into_iter().map(Command::name);
    let commands = names().collect::<Vec<_>>().join(", ");
    match arguments::nearest(word, names()) {
        Some(near) => format!("unknown command `{word}`; did you mean `{near}`? The commands are {commands}"),
        None => format!("unknown command `{word}`; the commands are {commands}"),
    }
}

/// The help text of the program, or of one command.
fn help(command: Option<Command>) -> String {
    let mut program = clap::Command::new("csi-gateway")
        .about("Finds the CSI drivers of a host, watches their health, and serves them in the shapes of Nomad's Plugins API")
        .styles(Styles::plain())
        .disable_version_flag(true)
        .subcommand_required(true)
        .subcommands(Command::ALL.map(described));
    program.build();
    let named = command.and_then(|command| program.find_subcommand_mut(command.name()).cloned());
    let mut shown = named.unwrap_or(program);
    shown.render_help().to_string()
}

fn described(command: Command) -> clap::Command {
    let mut described = clap::Command::new(command.name()).about(command.about()).disable_version_flag(true);
    for setting in settings::of(command) {
        let mut help = setting.help.to_owned();
        if let Some(default) = setting.default {
            help = format!("{help} [default: {default}]");
        }
        let mut flag =
            clap::Arg::new(setting.name).long(setting.name).help(format!("{help} [env: {}]", setting.variable()));
        flag = match setting.value {
            Some(what) => flag.value_name(what).num_args(1),
            None => flag.num_args(0),
        };
        described = described.arg(flag);
    }
    if let Some((name, help)) = command.operand() {
        described = described.arg(clap::Arg::new(name).help(help));
    }
    described
}
