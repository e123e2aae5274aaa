//! Finds or fetches what virtual machines need: `cargo run -p udn-lab-sys --example machines`.

use udn_lab_sys::packages::{default_folder, machines};

fn main() {
    match machines::ensure(&default_folder(), &|progress| eprintln!("{progress:?}")) {
        Ok(machines) => println!("{machines:#?}\n{:?}", machines.command()),
        Err(error) => eprintln!("{error}"),
    }
}
