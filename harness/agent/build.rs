//! Tells the linker what a static program without the standard library lacks.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if var("CARGO_FEATURE_PROGRAM").is_err() {
        return;
    }
    // The standard library would have brought the C library and the unwinder. Nothing unwinds, but the prebuilt parts of
    // the program refer to it.
    let libraries: &[&str] = match var("CARGO_CFG_TARGET_ENV").as_deref() {
        Ok("gnu") => &["-Wl,--start-group", "-lgcc_eh", "-lgcc", "-lc", "-Wl,--end-group"],
        _ => &["-lunwind", "-lc"],
    };
    for argument in ["-Wl,-Bstatic"].iter().chain(libraries) {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
