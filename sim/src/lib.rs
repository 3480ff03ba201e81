//! Every pure core in virtual time from one seed, under named checkers
