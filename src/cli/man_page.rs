//! The man page, made from what the command line knows of itself.

use clap::{Arg, Command, CommandFactory};

use super::Arguments;
use super::reference::{help_of, is_own, path_of};

/// The man page in roff.
pub(super) fn man_page() -> String {
    let mut all = Arguments::command();
    all.build();
    let version = env!("CARGO_PKG_VERSION");
    let about = escaped(&all.get_about().map(ToString::to_string).unwrap_or_default());
    let mut roff = format!(
        ".TH LICENSE\\-SERVER 1 \"\" \"license\\-server {version}\"\n.SH NAME\nlicense\\-server \\- {about}\n\
         .SH SYNOPSIS\n.B license\\-server\n[\\fIOPTIONS\\fR] [\\fICOMMAND\\fR]\n.SH OPTIONS\n"
    );
    roff.extend(all.get_arguments().map(entry));
    roff.push_str(".SH COMMANDS\n");
    for command in all.get_subcommands() {
        append(&mut roff, command);
    }
    roff.push_str(
        ".SH EXIT STATUS\n0 success, 1 failure, 2 wrong usage or settings.\n\
         .SH FILES\n.I ./license\\-server.toml\nor, for an executable in /usr/bin or /usr/local/bin,\n.I /etc/license\\-server.toml\n\
         holds the settings; \\fBlicense\\-server settings\\fR shows them.\n",
    );
    roff
}

fn append(roff: &mut String, command: &Command) {
    if command.get_name() == "help" {
        return;
    }
    if command.has_subcommands() {
        for subcommand in command.get_subcommands() {
            append(roff, subcommand);
        }
        return;
    }
    let about = command.get_about().map(ToString::to_string);
    let about = escaped(&about.unwrap_or_default());
    roff.extend([".SS ", &escaped(&path_of(command)), "\n", &about, ".\n"]);
    let own = command.get_arguments().filter(|argument| is_own(argument));
    roff.extend(own.map(entry));
}

fn entry(argument: &Arg) -> String {
    let (name, help) = (escaped(&argument.to_string()), escaped(&help_of(argument)));
    format!(".TP\n\\fB{name}\\fR\n{help}\n")
}

/// Plain text as roff: a hyphen is one that can be copied, and no line is a request.
fn escaped(text: &str) -> String {
    let text = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('`', "");
    match text.strip_prefix(['.', '\'']) {
        Some(_) => format!("\\&{text}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_request_and_no_escape() {
        for (text, expected) in [
            (".x", "\\&.x"),
            ("'x", "\\&'x"),
            ("a-b \\ `c`", "a\\-b \\e c"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn every_command_has_an_entry() {
        let page = man_page();
        for command in [
            "serve",
            "license issue",
            "config set",
            "customer erase",
            "settings",
        ] {
            assert!(page.contains(&format!("\n.SS {command}\n")), "{command}");
        }
        assert!(page.contains("\\-\\-config <FILE>"));
    }
}
