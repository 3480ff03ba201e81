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
                    for lane in 0..lanes {
                        let row = &self.data[(first_lane + lane) * self.k + first_k + k..][..part];
                        for (j, x) in row.iter().enumerate() {
                            panel[(k + j) * width + lane] = *x;
                        }
                    }
                }
            }
        }
    }
}

const TRANSPOSE_DEPTH: usize = 16;
