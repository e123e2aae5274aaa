//! A lab by hand: `cargo run -p udn-lab --example lab -- up|down|status|exec PLACE CMD…|foreground`.

use std::ffi::OsString;
use std::process::ExitCode;

use udn_lab::{Error, Lab, Options, Progress, default_folder};

fn main() -> ExitCode {
    if let Some(code) = udn_lab::internal(std::env::args_os(), || ()) {
        return code;
    }
    match run(std::env::args_os().skip(1).collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<OsString>) -> Result<ExitCode, Error> {
    let cache = default_folder();
    let name = "lab";
    let start = |background| {
        let options = Options { name: Some(name.into()), background, ..Options::default() };
        Lab::start(&options, &|progress| match progress {
            Progress::Packages(event) => eprintln!("{event:?}"),
            Progress::Step { step, at } => eprintln!("[{:>5} ms] {step}", at.as_millis()),
            Progress::Ready { at } => eprintln!("[{:>5} ms] ready", at.as_millis()),
        })
    };
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["up"] => println!("export KUBECONFIG={}", start(true)?.kubeconfig().display()),
        ["foreground"] => {
            let lab = start(false)?;
            println!("export KUBECONFIG={}", lab.kubeconfig().display());
            let mut line = String::new();
            let _ = std::io::stdin().read_line(&mut line);
            lab.stop()?;
        }
        ["down"] => udn_lab::down(&cache, name)?.iter().for_each(|kept| eprintln!("stays at the API server: {kept}")),
        ["status"] => println!("{:#?}", udn_lab::find(&cache, name)?.status()?),
        ["exec", place, ..] => {
            let status = udn_lab::command(&cache, name, place, &args[2..])?.status();
            let code = status.ok().and_then(|status| status.code()).unwrap_or(1);
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        _ => eprintln!("up | foreground | down | status | exec PLACE CMD…"),
    }
    Ok(ExitCode::SUCCESS)
}
