fn main() {
    for crd in api::crds() {
        println!("---\n{}", serde_saphyr::to_string(&api::manifest(&crd)).unwrap());
    }
}
