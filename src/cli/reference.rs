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
pub(super) fn path_of(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    name.trim_start_matches("license-server ").to_owned()
}

pub(super) fn is_own(argument: &Arg) -> bool {
    !EVERYWHERE.contains(&argument.get_id().as_str()) && !argument.is_hide_set()
}

fn line_of(argument: &Arg) -> String {
    match help_of(argument) {
        help if help.is_empty() => format!("- `{argument}`\n"),
        help => format!("- `{argument}`: {}\n", escape(&help)),
    }
}

/// What the help says of an argument, with its default and its possible values.
pub(super) fn help_of(argument: &Arg) -> String {
    let help = argument.get_help().map(ToString::to_string);
    let mut help = help.unwrap_or_default();
    if !argument.get_action().takes_values() {
        return help;
    }
    let defaults = argument.get_default_values().iter();
    let defaults: Vec<String> = defaults
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .filter(|value| value != "``")
        .collect();
    let possible = argument.get_possible_values();
    let possible: Vec<String> = possible
        .iter()
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    for (name, values) in [("default", defaults), ("possible", possible)] {
        if !values.is_empty() {
            help = format!("{help} [{name}: {}]", values.join(", "));
        }
    }
    help
}
