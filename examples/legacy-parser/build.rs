fn main() {
    println!("cargo::rerun-if-changed=parse.c");
    cc::Build::new().file("parse.c").compile("legacy_parse");
}
