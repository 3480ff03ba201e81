//! Every op of the catalogue, or those whose names an argument is part of: checked, then timed, as a share of what this
//! machine can do.

fn main() {
    benches::run();
}
