//! The room `rms_norm`: checked, then timed, as a share of what this machine can do.

fn main() {
    benches::run(&["rms_norm.forward", "rms_norm.backward"]);
}
