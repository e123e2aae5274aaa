//! Builds the programs that travel into pods: static, small, for the machine that the workspace is built for.
//!
//! Cargo cannot make a dependency with another profile and other flags than its dependent's, hence a cargo within cargo.
//! It has its own target directory, because the outer one is locked.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Package, binary, feature that the binary needs, folder.
const PROGRAMS: [(&str, &str, Option<&str>, &str); 3] = [
    ("udn-agent", "agent", Some("program"), "harness/agent"),
    ("udn-agnhost", "agnhost", None, "harness/lab/agnhost"),
    ("udn-dns", "dns", None, "harness/lab/dns"),
];

/// Without an interpreter and at a fixed address: nothing but a kernel is needed to start it. No index for unwinding, which
/// nobody does: a panic ends the program.
const FLAGS: [&str; 3] =
    ["-Ctarget-feature=+crt-static", "-Crelocation-model=static", "-Clink-arg=-Wl,--no-eh-frame-hdr"];

/// Variables of the outer cargo that the inner one is to see too; all others would change what it builds.
const KEPT: [&str; 6] =
    ["CARGO_HOME", "CARGO_HTTP_", "CARGO_MAKEFLAGS", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let target = target()?;
    let build = Path::new(&variable("OUT_DIR")?).join("pod");
    println!("cargo::rerun-if-changed=build.rs");
    for file in ["Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    for (package, binary, feature, folder) in PROGRAMS {
        // One at a time: together, their features would mix.
        let program = compile(&root, &build, &target, package, binary, feature)?;
        println!("cargo::rustc-env=UDN_PROGRAM_{}={}", binary.to_uppercase(), program.display());
        for part in ["Cargo.toml", "build.rs", "src"] {
            let path = root.join(folder).join(part);
            if path.exists() {
                println!("cargo::rerun-if-changed={}", path.display());
            }
        }
    }
    Ok(())
}

fn compile(
    root: &Path,
    build: &Path,
    target: &str,
    package: &str,
    binary: &str,
    feature: Option<&str>,
) -> Result<PathBuf, Box<dyn Error>> {
    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in env::vars_os() {
        if is_outer(&name) {
            cargo.env_remove(name);
        }
    }
    cargo
        .current_dir(root)
        // Explicitly for a target, even if it is this machine's: else the flags would reach build scripts and macros.
        .args(["build", "--locked", "--profile", "pod", "--target", target, "--package", package, "--bin", binary])
        .args(feature.iter().flat_map(|feature| ["--features", feature]))
        .arg("--target-dir")
        .arg(build)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    let output = cargo.output().map_err(|error| format!("cannot start cargo to build {package}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(
            format!("cannot build {package} for {target}; a C compiler and libc6-dev are needed:\n{said}").into()
        );
    }
    Ok(build.join(target).join("pod").join(binary))
}

/// Was this variable set by the outer cargo for this build script, or does it change what a cargo builds?
fn is_outer(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    let wrapper = name == "RUSTC_WRAPPER" || name == "RUSTC_WORKSPACE_WRAPPER";
    let flags = name == "RUSTFLAGS" || name == "RUSTC_LINKER";
    let own = ["TARGET", "HOST", "PROFILE", "OUT_DIR", "OPT_LEVEL", "DEBUG", "NUM_JOBS", "__CARGO"];
    let cargos = name.starts_with("CARGO_") && !KEPT.iter().any(|kept| name.starts_with(kept));
    cargos || wrapper || flags || own.iter().any(|own| name.starts_with(own))
}

/// The musl target of the same machine where the toolchain has it (smaller), else the target itself.
fn target() -> Result<String, Box<dyn Error>> {
    let target = variable("TARGET")?.to_string_lossy().into_owned();
    let musl = target.replace("-gnu", "-musl");
    let libraries = Command::new(variable("RUSTC")?).args(["--print", "target-libdir", "--target", &musl]).output()?;
    let folder = String::from_utf8_lossy(&libraries.stdout).trim().to_owned();
    let has_core = std::fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libcore-")))
    });
    Ok(if libraries.status.success() && has_core { musl } else { target })
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}; run this build script by cargo"))
}
