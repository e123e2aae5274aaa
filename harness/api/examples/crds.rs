//! Prints the CustomResourceDefinitions as JSON, one a line.

fn main() -> Result<(), serde_json::Error> {
    for crd in udn_api::crds() {
        println!("{}", serde_json::to_string(&crd)?);
    }
    Ok(())
}
