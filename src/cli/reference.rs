//! The list of commands for the manual, made from what the command line knows of itself.

use clap::{Arg, Command, CommandFactory};

use super::Arguments;
use crate::manual::escape;

/// Options of every command, which the manual describes once.
const EVERYWHERE: &[&str] = &["config", "json", "help", "version"];

/// Every command with its arguments, as Markdown.
pub(super) fn commands() -> String {
    let mut all = Arguments::command();
    all.build();
    let mut markdown = String::new();
    for command in all.get_subcommands() {
        append(&mut markdown, command, 2);
    }
    markdown
}

fn append(markdown: &mut String, command: &Command, level: usize) {
    if command.get_name() == "help" {
        return;
    }
    let (marks, name) = ("#".repeat(level), path_of(command));
    let about = command.get_about().map(ToString::to_string);
    let about = escape(&about.unwrap_or_default());
    markdown.extend(["\n", &marks, " ", &name, "\n\n", &about, ".\n\n"]);
    if !command.has_subcommands() {
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        markdown.extend(["```text\n", usage, "\n```\n\n"]);
    }
    let arguments = command.get_arguments().filter(|it| is_own(it));
    markdown.extend(arguments.map(line_of));
    for subcommand in command.get_subcommands() {
        append(markdown, subcommand, level + 1);
    }
}

/// The words that call a command, without the name of the executable.
fn path_of(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    name.trim_start_matches("license-server ").to_owned()
}

fn is_own(argument: &Arg) -> bool {
    !EVERYWHERE.contains(&argument.get_id().as_str()) && !argument.is_hide_set()
}

fn line_of(argument: &Arg) -> String {
    let mut line = format!("- `{argument}`");
    if let Some(help) = argument.get_help() {
        line = format!("{line}: {}", escape(&help.to_string()));
    }
    let joined = |values: Vec<String>| values.join("`, `");
    let defaults = argument.get_default_values().iter();
    let defaults = defaults.map(|value| value.to_string_lossy().into_owned());
    let default = joined(defaults.filter(|value| !value.is_empty()).collect());
    if !default.is_empty() && argument.get_action().takes_values() {
        line = format!("{line} \\[default: `{default}`\\]");
    }
    let possible = argument.get_possible_values();
    let possible = possible.iter().map(|value| value.get_name().to_owned());
    let possible = joined(possible.collect());
    if !possible.is_empty() && argument.get_action().takes_values() {
        line = format!("{line} \\[possible: `{possible}`\\]");
    }
    line + "\n"
}
