//! The formulas, row by row.

use super::{Backward, Forward, GRADIENT_POSITIONS};

/// As [`super::forward`].
pub fn forward(args: &Forward<'_>, y: &mut [f32]) {
    for (position, &token) in args.tokens.iter().enumerate() {
        let row = &args.table[token as usize * args.dim..][..args.dim];
        y[position * args.dim..][..args.dim].copy_from_slice(row);
    }
}

/// As [`super::backward`].
pub fn backward(args: &Backward<'_>, dtable: &mut [f32]) {
    for token in 0..args.vocab {
        let positions: Vec<usize> =
            (0..args.tokens.len()).filter(|&position| args.tokens[position] as usize == token).collect();
        for chunk in positions.chunks(GRADIENT_POSITIONS) {
            for i in 0..args.dim {
                let mut sum = 0.0;
                for &position in chunk {
                    sum += args.dy[position * args.dim + i];
                }
                dtable[token * args.dim + i] += sum;
            }
        }
    }
}
