//! The room `adamw`: checked, then timed, as a share of what this machine can do.

fn main() {
    benches::run(&["adamw.step"]);
}
