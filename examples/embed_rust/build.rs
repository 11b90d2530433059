//! Asks pkg-config where the installed Kernelry is, and lets the program find it there.

use std::process::Command;

fn pkg_config(arguments: &[&str]) -> String {
    let output = Command::new("pkg-config")
        .args(arguments)
        .arg("kernelry-checkpoint")
        .output()
        .unwrap_or_else(|error| panic!("pkg-config cannot be run: {error}"));
    if !output.status.success() {
        panic!(
            "{}is PKG_CONFIG_PATH=<install tree>/lib/pkgconfig set?",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).expect("pkg-config writes UTF-8")
}

fn main() {
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    for flag in pkg_config(&["--libs"]).split_whitespace() {
        if let Some(folder) = flag.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={folder}");
        } else if let Some(library) = flag.strip_prefix("-l") {
            println!("cargo:rustc-link-lib=dylib={library}");
        }
    }
    let libraries = pkg_config(&["--variable=libdir"]);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libraries.trim());
}
