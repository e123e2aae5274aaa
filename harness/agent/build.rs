//! Tells the linker what a static program without the standard library lacks.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // glibc's static library refers to the unwinder, which the standard library would have brought.
    if var("CARGO_FEATURE_PROGRAM").is_ok() && var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu") {
        for argument in ["-Wl,-Bstatic", "-lgcc_eh", "-lgcc", "-lc"] {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
    }
}
