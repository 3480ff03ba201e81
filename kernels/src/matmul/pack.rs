//! Packing: panels of a matrix laid out in the order in which the register tile reads them.
//!
//! A panel holds `width` rows of A (or columns of B) as `[k][width]`; a partial panel is padded with zeros, whose
//! products land in tile elements that are thrown away.

/// How the elements of an operand lie, seen as (lane, k): lane is a row of A or a column of B.
#[derive(Clone, Copy)]
pub(super) enum Layout {
    /// Element (lane, k) at `lane * stride + k`: a lane is contiguous in k.
    LaneMajor,
    /// Element (lane, k) at `k * stride + lane`: lanes are contiguous.
    KMajor,
}

/// One operand.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) data: &'a [f32],
    pub(super) layout: Layout,
    /// Lanes in all.
    pub(super) lanes: usize,
    /// k in all.
    pub(super) k: usize,
}

impl Operand<'_> {
    /// Packs lanes `first_lane..` (at most `width`) and k `first_k..first_k + depth` into `panel` (depth x width).
    #[inline(always)]
    pub(super) fn pack_panel(
        &self,
        first_lane: usize,
        width: usize,
        first_k: usize,
        depth: usize,
        panel: &mut [f32],
    ) {
        let lanes = width.min(self.lanes - first_lane);
        let panel = &mut panel[..depth * width];
        match self.layout {
            Layout::KMajor if lanes == width => match width {
                // Widths known when this is compiled: a few vector moves, where a call of memmove costs more than it moves.
                14 => self.copy_lanes::<14>(first_lane, first_k, panel),
                32 => self.copy_lanes::<32>(first_lane, first_k, panel),
                16 => self.copy_lanes::<16>(first_lane, first_k, panel),
                _ => self.copy_lanes_of(width, first_lane, first_k, panel),
            },
            Layout::KMajor => {
                for (k, out) in panel.chunks_exact_mut(width).enumerate() {
                    let row = &self.data[(first_k + k) * self.lanes + first_lane..][..lanes];
                    out[..lanes].copy_from_slice(row);
                    out[lanes..].fill(0.0);
                }
            }
            Layout::LaneMajor => {
                if lanes < width {
                    panel.fill(0.0);
                }
                // Few k at a time, so that the part of the panel being written stays in the first-level cache.
                for k in (0..depth).step_by(TRANSPOSE_DEPTH) {
                    let part = TRANSPOSE_DEPTH.min(depth - k);
                    // Four lanes by four k, through registers; what is left over one by one.
                    let squares = if part == TRANSPOSE_DEPTH { lanes / 4 * 4 } else { 0 };
                    for lane in (0..squares).step_by(4) {
                        let at = (first_lane + lane) * self.k + first_k + k;
                        let rows: [&[f32; TRANSPOSE_DEPTH]; 4] =
                            std::array::from_fn(|r| first_of(&self.data[at + r * self.k..]));
                        for j in 0..TRANSPOSE_DEPTH {
                            let column = rows.map(|row| row[j]);
                            panel[(k + j) * width + lane..][..4].copy_from_slice(&column);
                        }
                    }
                    for lane in squares..lanes {
                        let row = &self.data[(first_lane + lane) * self.k + first_k + k..][..part];
                        for (j, x) in row.iter().enumerate() {
                            panel[(k + j) * width + lane] = *x;
                        }
                    }
                }
            }
        }
    }

    /// Whole panels of WIDTH lanes that are contiguous.
    #[inline(always)]
    fn copy_lanes<const WIDTH: usize>(&self, first_lane: usize, first_k: usize, panel: &mut [f32]) {
        let (rows, _) = panel.as_chunks_mut::<WIDTH>();
        for (k, out) in rows.iter_mut().enumerate() {
            *out = *first_of(&self.data[(first_k + k) * self.lanes + first_lane..]);
        }
    }

    #[inline(always)]
    fn copy_lanes_of(&self, width: usize, first_lane: usize, first_k: usize, panel: &mut [f32]) {
        for (k, out) in panel.chunks_exact_mut(width).enumerate() {
            let row = &self.data[(first_k + k) * self.lanes + first_lane..][..width];
            for (out, x) in out.iter_mut().zip(row) {
                *out = *x;
            }
        }
    }
}

/// The first N values of a slice that has them.
#[inline(always)]
fn first_of<const N: usize>(values: &[f32]) -> &[f32; N] {
    match values.first_chunk() {
        Some(chunk) => chunk,
        None => panic!("a panel reaches beyond its operand: {N} values wanted, {} left", values.len()),
    }
}

const TRANSPOSE_DEPTH: usize = 16;
