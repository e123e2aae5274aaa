//! `completions` and `man`: both are made from the declaration of the command line.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::args::{Cli, Completions};
use crate::failure::{Failure, printed};

/// Prints a shell's completions.
///
/// # Errors
/// Standard output cannot be written to.
pub(crate) fn completions(args: &Completions) -> Result<(), Failure> {
    let mut cli = Cli::command();
    let name = cli.get_name().to_owned();
    // The generator takes a failed write for a panic: it writes to memory.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut cli, name, &mut text);
    printed(io::stdout().write_all(&text))
}

/// Prints the manual page: of the program, then of each command, in one.
///
/// # Errors
/// Standard output cannot be written to.
pub(crate) fn page() -> Result<(), Failure> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let mut text = Vec::new();
    let rendered = program(&cli, &mut text);
    printed(rendered.and_then(|()| io::stdout().write_all(&text)))
}

fn program(cli: &Command, text: &mut Vec<u8>) -> io::Result<()> {
    let man = Man::new(cli.clone());
    man.render_title(text)?;
    man.render_name_section(text)?;
    man.render_synopsis_section(text)?;
    man.render_description_section(text)?;
    man.render_options_section(text)?;
    commands(cli, text)?;
    man.render_extra_section(text)
}

/// All commands below one: a section each, with the usual sections as parts of it.
fn commands(above: &Command, text: &mut Vec<u8>) -> io::Result<()> {
    for command in above.get_subcommands() {
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        writeln!(text, ".SH {:?}", name.to_uppercase())?;
        let man = Man::new(command.clone());
        let mut parts = Vec::new();
        man.render_description_section(&mut parts)?;
        man.render_synopsis_section(&mut parts)?;
        if command.get_arguments().next().is_some() {
            man.render_options_section(&mut parts)?;
        }
        if command.get_after_help().is_some() {
            man.render_extra_section(&mut parts)?;
        }
        text.extend(String::from_utf8_lossy(&parts).replace("\n.SH ", "\n.SS ").into_bytes());
        commands(command, text)?;
    }
    Ok(())
}
