//! What is peculiar to the room.

use super::{Backward, Forward, backward, forward};
use crate::common::gradient::numbers;

#[test]
fn only_rows_of_tokens_gain() {
    let (vocab, dim, tokens) = (5, 3, [4, 1, 4]);
    let dy = numbers(1, 9);
    let mut dtable = vec![1.0; vocab * dim];
    backward(&Backward { vocab, dim, tokens: &tokens, dy: &dy }, &mut dtable);
    for token in [0, 2, 3] {
        assert_eq!(dtable[token * dim..][..dim], [1.0; 3]);
    }
    for i in 0..dim {
        assert_eq!(dtable[dim + i], 1.0 + dy[dim + i]);
        assert_eq!(dtable[4 * dim + i], 1.0 + (dy[i] + dy[2 * dim + i]));
    }
}

#[test]
#[should_panic(expected = "token 5 at position 1 is outside a vocabulary of 5")]
fn a_token_outside_the_vocabulary_says_where() {
    forward(&Forward { vocab: 5, dim: 1, tokens: &[0, 5], table: &[0.0; 5] }, &mut [0.0; 2]);
}
