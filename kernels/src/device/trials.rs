//! The catalogue's ops as a CUDA device runs them: what the judges, the conformance set and the benchmarks call.
//!
//! An op is launched in several ways (rungs, numbers of blocks, memory that begins on 16 bytes and memory that does
//! not). The bits must not depend on any of it.

use super::{Buffer, CudaDevice, DeviceError, View, ViewMut};
use crate::catalogue::{Buffers, Case, Data, Op, equal, judge};
use crate::{adamw, matmul, rms_norm};

/// One op on a CUDA device.
pub struct Trial {
    /// The op's name in the catalogue.
    pub op: &'static str,
    /// The ways in which it can be launched. The first leaves the choice to the launcher.
    pub ways: &'static [&'static str],
    /// Shapes beyond the catalogue's, about the edges of this device's tiles.
    pub more_cases: fn() -> Vec<Case>,
    run: fn(&CudaDevice, usize, &Case, &OnDevice, &mut OnDevice) -> Result<(), DeviceError>,
}

/// All ops that have kernels.
pub static TRIALS: &[Trial] = &[
    Trial {
        op: "rms_norm.forward",
        ways: RMS_NORM_WAYS,
        more_cases: rms_norm_cases,
        run: |device, way, case, inputs, outputs| {
            let (rows, dim) = (case.dim("rows"), case.dim("dim"));
            let (x, w) = (inputs.view("x"), inputs.view("w"));
            let args = rms_norm::cuda::Forward { rows, dim, eps: rms_norm::cases::EPS, x: &x, w: &w };
            let [mut y, mut r] = outputs.views_mut(["y", "r"]);
            match rms_norm_way(way) {
                None => rms_norm::cuda::forward(device, &args, &mut y, &mut r),
                Some((rung, warps)) => rms_norm::cuda::forward_on(device, rung, warps, &args, &mut y, &mut r),
            }
        },
    },
    Trial {
        op: "rms_norm.backward",
        ways: RMS_NORM_WAYS,
        more_cases: rms_norm_cases,
        run: |device, way, case, inputs, outputs| {
            let (rows, dim) = (case.dim("rows"), case.dim("dim"));
            let [x, w, r, dy] = ["x", "w", "r", "dy"].map(|name| inputs.view(name));
            let args = rms_norm::cuda::Backward { rows, dim, x: &x, w: &w, r: &r, dy: &dy };
            let [mut dx, mut dw] = outputs.views_mut(["dx", "dw"]);
            match rms_norm_way(way) {
                None => rms_norm::cuda::backward(device, &args, &mut dx, &mut dw),
                Some((rung, warps)) => {
                    rms_norm::cuda::backward_on(device, rung, warps, &args, &mut dx, &mut dw)
                }
            }
        },
    },
    Trial {
        op: "matmul.nn",
        ways: MATMUL_WAYS,
        more_cases: matmul_cases,
        run: |device, way, case, inputs, outputs| {
            product(device, way, case, inputs, outputs, matmul::cuda::Layout::Nn, matmul::cuda::nn)
        },
    },
    Trial {
        op: "matmul.nt",
        ways: MATMUL_WAYS,
        more_cases: matmul_cases,
        run: |device, way, case, inputs, outputs| {
            product(device, way, case, inputs, outputs, matmul::cuda::Layout::Nt, matmul::cuda::nt)
        },
    },
    Trial {
        op: "matmul.tn",
        ways: MATMUL_WAYS,
        more_cases: matmul_cases,
        run: |device, way, case, inputs, outputs| {
            product(device, way, case, inputs, outputs, matmul::cuda::Layout::Tn, matmul::cuda::tn)
        },
    },
    Trial {
        op: "adamw.step",
        ways: &["chosen", "1 block", "7 blocks"],
        more_cases: Vec::new,
        run: |device, way, case, inputs, outputs| {
            let constants = adamw::cases::StepOp::constants(case);
            let g = inputs.view("g");
            let args = adamw::cuda::Step { constants, g: &g };
            let [mut p, mut m, mut v] = outputs.views_mut(["p", "m", "v"]);
            match way {
                0 => adamw::cuda::step(device, &args, &mut p, &mut m, &mut v),
                1 => adamw::cuda::step_on(device, 1, &args, &mut p, &mut m, &mut v),
                _ => adamw::cuda::step_on(device, 7, &args, &mut p, &mut m, &mut v),
            }
        },
    },
];

/// The trial of the op called `name`, if it has kernels.
pub fn find(name: &str) -> Option<&'static Trial> {
    TRIALS.iter().find(|trial| trial.op == name)
}

impl Trial {
    /// What the device makes of `inputs`, launched in way `way` of [`Trial::ways`], all memory beginning `shift`
    /// elements after an address that is a multiple of 256.
    ///
    /// # Errors
    /// The device's, or the name of a buffer beside which a kernel wrote.
    pub fn run(
        &self,
        device: &CudaDevice,
        way: usize,
        shift: usize,
        case: &Case,
        inputs: &Buffers,
        outputs: &Buffers,
    ) -> Result<Buffers, String> {
        let said = |error: DeviceError| error.to_string();
        let inputs = OnDevice::upload(device, inputs, shift).map_err(said)?;
        let mut on_device = OnDevice::upload(device, outputs, shift).map_err(said)?;
        (self.run)(device, way, case, &inputs, &mut on_device).map_err(said)?;
        on_device.download(device, outputs)
    }
}

/// Every way, aligned and not, against the plain reference, over all cases of `op`. Returns the number of comparisons.
///
/// # Errors
/// A sentence that names case, way, element, both values.
pub fn device_equals_reference(device: &CudaDevice, trial: &Trial, op: &dyn Op) -> Result<usize, String> {
    let mut compared = 0;
    for case in op.cases().into_iter().chain((trial.more_cases)()) {
        let (inputs, expected) = judge::expected(op, &case);
        let start = op.outputs(&case);
        for (way, name) in trial.ways.iter().enumerate() {
            for shift in [0, 1] {
                let place =
                    || format!("{} `{}` {:?}, {name}, shift {shift}", op.name(), case.label, case.dims);
                let found = trial
                    .run(device, way, shift, &case, &inputs, &start)
                    .map_err(|error| format!("{}: {error}", place()))?;
                equal(&expected, &found).map_err(|mismatch| format!("{}: {mismatch}", place()))?;
                compared += 1;
            }
        }
    }
    Ok(compared)
}

const RMS_NORM_WAYS: &[&str] =
    &["chosen", "held short, 1 warp", "held long, 8 warps", "any, 1 warp", "any, 8 warps"];

fn rms_norm_way(way: usize) -> Option<(rms_norm::cuda::Rung, u32)> {
    use rms_norm::cuda::Rung::{Any, HeldLong, HeldShort};
    [None, Some((HeldShort, 1)), Some((HeldLong, 8)), Some((Any, 1)), Some((Any, 8))][way]
}

/// The longest rows of each rung, and the next longer ones.
fn rms_norm_cases() -> Vec<Case> {
    let of = |label, rows, dim| Case::new(label, &[("rows", rows), ("dim", dim)]);
    vec![
        of("vectors", 9, 132),
        of("longest short", 2, 1024),
        of("shortest long", 2, 1028),
        of("longest long backward", 1, 2048),
        of("beyond long backward", 1, 2052),
        of("longest long forward", 1, 4096),
        of("beyond long forward", 1, 4100),
        Case::edge("edge vectors", &[("rows", 66), ("dim", 136)]),
    ]
}

const MATMUL_WAYS: &[&str] = &["chosen", "tiles of 128", "tiles of 64", "any shape"];

/// Whole tiles, tails in every direction, more than one band of tiles, empty sums.
fn matmul_cases() -> Vec<Case> {
    let of = |label, m, n, k| Case::new(label, &[("rows", m), ("n", n), ("k", k)]);
    vec![
        of("vectors, no k", 4, 8, 0),
        of("whole tile of 64", 64, 64, 64),
        of("whole tile of 128", 128, 128, 8),
        of("tails in vectors", 132, 68, 20),
        of("tails in elements", 65, 129, 17),
        of("several tiles", 260, 260, 12),
        of("two bands", 1100, 140, 4),
        Case::edge("edge vectors", &[("rows", 20), ("n", 36), ("k", 64)]),
        // Chains that underflow to -0: padding of k must leave the sign alone.
        Case::edge("underflow", &[("rows", 8), ("n", 12), ("k", 1)]),
        Case::edge("underflow, vectors", &[("rows", 260), ("n", 260), ("k", 4)]),
    ]
}

type Product = fn(&CudaDevice, &matmul::cuda::Matmul<'_>, &mut ViewMut<'_, f32>) -> Result<(), DeviceError>;

fn product(
    device: &CudaDevice,
    way: usize,
    case: &Case,
    inputs: &OnDevice,
    outputs: &mut OnDevice,
    layout: matmul::cuda::Layout,
    chosen: Product,
) -> Result<(), DeviceError> {
    use matmul::cuda::Rung::{Any, Tile64, Tile128};
    let (m, n, k) = (case.dim("rows"), case.dim("n"), case.dim("k"));
    let (a, b) = (inputs.view("a"), inputs.view("b"));
    let args = matmul::cuda::Matmul { m, n, k, a: &a, b: &b };
    let [mut c] = outputs.views_mut(["c"]);
    match way {
        0 => chosen(device, &args, &mut c),
        way => matmul::cuda::product_on(device, [Tile128, Tile64, Any][way - 1], layout, &args, &mut c),
    }
}

/// Named buffers in a device's memory, each between two walls.
struct OnDevice(Vec<Held>);

struct Held {
    name: &'static str,
    memory: Buffer<f32>,
    begin: usize,
    len: usize,
}

/// A NaN that no kernel produces.
const SENTINEL: f32 = f32::from_bits(0x7fc5_a5a5);
/// Elements of a wall; a multiple of 16 bytes.
const WALL: usize = 64;

impl OnDevice {
    fn upload(device: &CudaDevice, buffers: &Buffers, shift: usize) -> Result<Self, DeviceError> {
        let held = buffers.0.iter().map(|buffer| {
            let content = buffers.f32(buffer.name);
            let begin = WALL + shift;
            let mut host = vec![SENTINEL; begin + content.len() + WALL];
            host[begin..][..content.len()].copy_from_slice(content);
            Ok(Held { name: buffer.name, memory: device.upload(&host)?, begin, len: content.len() })
        });
        held.collect::<Result<_, _>>().map(Self)
    }

    /// The contents, named and shaped as in `like`, after a look at the walls.
    fn download(&self, device: &CudaDevice, like: &Buffers) -> Result<Buffers, String> {
        let mut found = like.clone();
        for (held, buffer) in self.0.iter().zip(&mut found.0) {
            let host = device.download(&held.memory.view()).map_err(|error| error.to_string())?;
            let content = held.begin..held.begin + held.len;
            let stray = (0..host.len())
                .find(|place| !content.contains(place) && host[*place].to_bits() != SENTINEL.to_bits());
            if let Some(place) = stray {
                let element = place as i64 - held.begin as i64;
                return Err(format!(
                    "element {element} of `{}`, which has {}, was written",
                    held.name, held.len
                ));
            }
            buffer.data = Data::F32(host[content].to_vec());
        }
        Ok(found)
    }

    #[track_caller]
    fn view(&self, name: &str) -> View<'_, f32> {
        match self.0.iter().find(|held| held.name == name) {
            Some(held) => held.memory.slice(held.begin..held.begin + held.len),
            None => panic!("no buffer `{name}` on the device"),
        }
    }

    /// Views of all buffers, which are called `names` in this order.
    #[track_caller]
    fn views_mut<const N: usize>(&mut self, names: [&str; N]) -> [ViewMut<'_, f32>; N] {
        let found: Vec<&str> = self.0.iter().map(|held| held.name).collect();
        assert_eq!(found, names, "the outputs on the device are others");
        let mut held = self.0.iter_mut();
        names.map(|name| match held.next() {
            Some(held) => held.memory.slice_mut(held.begin..held.begin + held.len),
            None => panic!("no buffer `{name}` on the device"),
        })
    }
}
