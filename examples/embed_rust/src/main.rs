//! The embedding example in Rust, with a cache: map the layer's prepared weights, or prepare and
//! save them; apply it to some activations and say which kernel ran.
//!
//!     embed_rust MODEL LAYER CACHE-FILE

mod ffi;
mod kernelry;

use kernelry::{Checkpoint, Layer, Registry, Result};

const ROWS: usize = 4;
const SHOWN: usize = 4;

fn run(path: &str, name: &str, cache: &str) -> Result<()> {
    let registry = Registry::open()?;
    let model = Checkpoint::open(path)?;
    let index = model.find_layer(name)?;

    // The checkpoint says how weights are stored; what x and y are is the caller's choice.
    let (mut linear, content) = model.content(index)?;
    linear.x_type = ffi::KRY_TYPE_F32;
    linear.y_type = ffi::KRY_TYPE_F32;
    let mut layer = Layer::create(&registry, &registry.find_device("cpu")?, &linear)?;

    let mapped = match layer.map(cache, &content)? {
        Ok(()) => true,
        Err(why) => {
            println!("no cache: {why}");
            layer.prepare(&model, index)?;
            layer.save(cache, &content)?;
            false
        }
    };

    let x: Vec<f32> = (0..ROWS * linear.in_features as usize)
        .map(|i| (i * 7919 % 1000) as f32 / 1000.0 - 0.5)
        .collect();
    let y = layer.apply(&x)?;

    let (kernel, plugin) = layer.kernel()?;
    println!(
        "{name} {}x{} runs on kernel {kernel} of plugin {plugin}, weights {}",
        linear.in_features,
        linear.out_features,
        if mapped { "mapped" } else { "prepared" }
    );
    let shown: Vec<String> = y
        .iter()
        .take(SHOWN)
        .map(|value| value.to_string())
        .collect();
    println!("y = {} ...", shown.join(" "));
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let code = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--sizes"] => {
            for (name, bytes) in ffi::sizes() {
                println!("{name} {bytes}");
            }
            0
        }
        [model, layer, cache] => match run(model, layer, cache) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("embed_rust: status {}: {error}", error.status);
                1
            }
        },
        _ => {
            eprintln!("usage: embed_rust MODEL LAYER CACHE-FILE");
            2
        }
    };
    std::process::exit(code);
}
