//! The room `attention`: checked, then timed, as a share of what this machine can do.

fn main() {
    benches::run(&["attention.forward", "attention.backward"]);
}
