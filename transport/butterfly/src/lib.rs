//! A sans-IO all-reduce: partition, pairs, rounds, absentees; no arithmetic
