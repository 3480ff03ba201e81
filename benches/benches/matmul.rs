//! The room `matmul`: checked, then timed, as a share of what this machine can do.

fn main() {
    benches::run(&["matmul.nn", "matmul.nt", "matmul.tn"]);
}
