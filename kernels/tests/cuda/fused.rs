//! Kernels that end in another op's arithmetic, against the two ops on the CPU, one after the other.

use kernels::device::{Base, Buffer, CudaDevice, View};
use kernels::philox::{self, Stream};
use kernels::{adamw, matmul, reduce, residual, rms_norm, swiglu};

use crate::support::device;

fn numbers(tensor: u32, count: usize) -> Vec<f32> {
    let mut x = vec![0.0; count];
    philox::normal(&Stream { seed: 11, tensor, step: 0, purpose: 0 }, 0, 1.0, &mut x);
    x
}

/// `x` on the device, beginning `shift` elements after an address that is a multiple of 256.
struct Shifted {
    memory: Buffer<f32>,
    shift: usize,
    len: usize,
}

impl Shifted {
    fn new(device: &CudaDevice, x: &[f32], shift: usize) -> Self {
        let memory = device.upload(&[&vec![0.0; shift], x].concat()).unwrap();
        Self { memory, shift, len: x.len() }
    }

    fn view(&self) -> View<'_, f32> {
        self.memory.slice(self.shift..self.shift + self.len)
    }

    fn view_mut(&mut self) -> kernels::device::ViewMut<'_, f32> {
        self.memory.slice_mut(self.shift..self.shift + self.len)
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[track_caller]
fn same(device: &CudaDevice, found: &Shifted, expected: &[f32], what: &str) {
    let found = device.download(&found.view()).unwrap();
    let differing = found.iter().zip(expected).filter(|(f, e)| f.to_bits() != e.to_bits()).count();
    assert!(bits(&found) == bits(expected), "{what}: {differing} of {} elements differ", expected.len());
}

#[test]
fn a_product_and_its_residual() {
    use matmul::cuda::{Layout, Rung};
    let Some(device) = device() else { return };
    for (m, n, k) in [(5, 7, 3), (64, 64, 16), (132, 260, 20), (8, 4, 0)] {
        let [a, b, base] = [(1, m * k), (2, k * n), (3, m * n)].map(|(id, len)| numbers(id, len));
        for layout in [Layout::Nn, Layout::Nt] {
            let (mut product, mut expected) = (vec![0.0; m * n], vec![0.0; m * n]);
            let args = matmul::Matmul { m, n, k, a: &a, b: &b };
            match layout {
                Layout::Nn => matmul::nn(&args, &mut product),
                _ => matmul::nt(&args, &mut product),
            }
            residual::add(&base, &product, &mut expected);
            for shift in [0, 1] {
                let [a, b, added] = [&a, &b, &base].map(|x| Shifted::new(&device, x, shift));
                let (a, b, view) = (a.view(), b.view(), added.view());
                let args = matmul::cuda::Matmul { m, n, k, a: &a, b: &b };
                let place = format!("{layout:?} {m} x {n} x {k}, shift {shift}");

                let mut c = Shifted::new(&device, &vec![f32::NAN; m * n], shift);
                let onto = Base::View(&view);
                match layout {
                    Layout::Nn => matmul::cuda::nn_onto(&device, &args, &onto, &mut c.view_mut()).unwrap(),
                    _ => matmul::cuda::nt_onto(&device, &args, &onto, &mut c.view_mut()).unwrap(),
                }
                same(&device, &c, &expected, &place);
                for rung in [Rung::Tile128, Rung::Tile64, Rung::Any] {
                    let mut c = Shifted::new(&device, &base, shift);
                    let (onto, mut view) = (Base::Output, c.view_mut());
                    matmul::cuda::product_on(&device, rung, layout, &args, &onto, &mut view).unwrap();
                    same(&device, &c, &expected, &format!("{place}, {rung:?}, in place"));
                }
            }
        }
    }
}

#[test]
fn the_gate_and_its_products() {
    use matmul::cuda::Rung;
    let Some(device) = device() else { return };
    for (m, n, k) in [(3, 5, 7), (64, 32, 8), (130, 68, 20), (260, 200, 12)] {
        let [x, gate, up] = [(1, m * k), (2, n * k), (3, n * k)].map(|(id, len)| numbers(id, len));
        let [mut g, mut u, mut h] = [(); 3].map(|()| vec![0.0; m * n]);
        matmul::nt(&matmul::Matmul { m, n, k, a: &x, b: &gate }, &mut g);
        matmul::nt(&matmul::Matmul { m, n, k, a: &x, b: &up }, &mut u);
        swiglu::forward(&swiglu::Forward { g: &g, u: &u }, &mut h);
        for shift in [0, 1] {
            let [x, gate, up] = [&x, &gate, &up].map(|x| Shifted::new(&device, x, shift));
            let (x, gate, up) = (x.view(), gate.view(), up.view());
            let args = matmul::cuda::Gated { m, n, k, x: &x, gate: &gate, up: &up };
            for rung in [None, Some(Rung::Tile128), Some(Rung::Tile64), Some(Rung::Any)] {
                let place = format!("{m} x {n} x {k}, {rung:?}, shift {shift}");
                let [mut g_found, mut u_found, mut h_found] =
                    [(); 3].map(|()| Shifted::new(&device, &vec![f32::NAN; m * n], shift));
                {
                    let (mut g, mut u) = (g_found.view_mut(), u_found.view_mut());
                    let (products, mut h) = (Some((&mut g, &mut u)), h_found.view_mut());
                    match rung {
                        None => matmul::cuda::gated(&device, &args, products, &mut h).unwrap(),
                        Some(rung) => {
                            matmul::cuda::gated_on(&device, rung, &args, products, &mut h).unwrap();
                        }
                    }
                }
                same(&device, &g_found, &g, &format!("g, {place}"));
                same(&device, &u_found, &u, &format!("u, {place}"));
                same(&device, &h_found, &h, &format!("h, {place}"));
            }
            let mut alone = Shifted::new(&device, &vec![f32::NAN; m * n], shift);
            matmul::cuda::gated(&device, &args, None, &mut alone.view_mut()).unwrap();
            same(&device, &alone, &h, &format!("h alone, {m} x {n} x {k}, shift {shift}"));
        }
    }
}

/// Row lengths of every rung of the norm.
const ROWS_AND_DIMS: [(usize, usize); 5] = [(3, 37), (9, 132), (2, 1028), (2, 4100), (1, 20_001)];

#[test]
fn the_residual_streams_step_and_its_norm() {
    let Some(device) = device() else { return };
    for (rows, dim) in ROWS_AND_DIMS {
        let [x, addend] = [1, 2].map(|id| numbers(id, rows * dim));
        let w = numbers(3, dim);
        let [mut sum, mut y] = [(); 2].map(|()| vec![0.0; rows * dim]);
        let mut r = vec![0.0; rows];
        residual::add(&x, &addend, &mut sum);
        rms_norm::forward(&rms_norm::Forward { rows, dim, eps: 1e-5, x: &sum, w: &w }, &mut y, &mut r);
        for shift in [0, 1] {
            let [x, addend, w] = [&x, &addend, &w].map(|x| Shifted::new(&device, x, shift));
            let (x, addend, w) = (x.view(), addend.view(), w.view());
            let args = rms_norm::cuda::Forward { rows, dim, eps: 1e-5, x: &x, w: &w };
            let [mut sum_found, mut y_found] =
                [(); 2].map(|()| Shifted::new(&device, &vec![f32::NAN; rows * dim], shift));
            let mut r_found = Shifted::new(&device, &vec![f32::NAN; rows], shift);
            rms_norm::cuda::forward_of_sum(
                &device,
                &args,
                &addend,
                &mut sum_found.view_mut(),
                &mut y_found.view_mut(),
                &mut r_found.view_mut(),
            )
            .unwrap();
            let place = format!("{rows} x {dim}, shift {shift}");
            same(&device, &sum_found, &sum, &format!("sum, {place}"));
            same(&device, &y_found, &y, &format!("y, {place}"));
            same(&device, &r_found, &r, &format!("r, {place}"));
        }
    }
}

#[test]
fn the_norms_gradient_and_the_residual_streams() {
    let Some(device) = device() else { return };
    for (rows, dim) in ROWS_AND_DIMS {
        let [x, dy, base] = [1, 2, 3].map(|id| numbers(id, rows * dim));
        let (w, r, dw) = (numbers(4, dim), numbers(5, rows), numbers(6, dim));
        let (mut dx, mut expected, mut dw_expected) =
            (vec![0.0; rows * dim], vec![0.0; rows * dim], dw.clone());
        let args = rms_norm::Backward { rows, dim, x: &x, w: &w, r: &r, dy: &dy };
        rms_norm::backward(&args, &mut dx, &mut dw_expected);
        residual::add(&base, &dx, &mut expected);
        for (shift, in_place) in [(0, false), (0, true), (1, false), (1, true)] {
            let [x, dy, added, w, r] = [&x, &dy, &base, &w, &r].map(|x| Shifted::new(&device, x, shift));
            let (x, dy, added, w, r) = (x.view(), dy.view(), added.view(), w.view(), r.view());
            let args = rms_norm::cuda::Backward { rows, dim, x: &x, w: &w, r: &r, dy: &dy };
            let mut dx = Shifted::new(&device, &base, shift);
            let mut dw = Shifted::new(&device, &dw, shift);
            let mut workspace = device.scratch(rms_norm::cuda::workspace_len(rows, dim)).unwrap();
            let onto = if in_place { Base::Output } else { Base::View(&added) };
            rms_norm::cuda::backward_onto(
                &device,
                &args,
                &onto,
                &mut dx.view_mut(),
                &mut dw.view_mut(),
                &mut workspace.view_mut(),
            )
            .unwrap();
            let place = format!("{rows} x {dim}, shift {shift}, in place: {in_place}");
            same(&device, &dx, &expected, &format!("dx, {place}"));
            same(&device, &dw, &dw_expected, &format!("dw, {place}"));
        }
    }
}

/// Norm, clip scale and step without a visit to the host.
#[test]
fn a_step_under_a_clip_scale_of_the_devices_own() {
    let Some(device) = device() else { return };
    let count = 10_001;
    let [g, mut p, mut m] = [1, 2, 3].map(|id| numbers(id, count));
    let mut v: Vec<f32> = numbers(4, count).iter().map(|v| v * v).collect();
    let hyper = adamw::Hyper { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let bias = adamw::BiasCorrection::after(&hyper, 3);
    let scale = reduce::clip_scale(reduce::global_norm([reduce::sum_squares(&g)]), 1.0).unwrap();
    assert!(scale < 0.1, "the clip does not bite: {scale}");

    let [g_there, mut p_there, mut m_there, mut v_there] =
        [&g, &p, &m, &v].map(|x| Shifted::new(&device, x, 0));
    let g_view = g_there.view();
    let mut sum = device.scratch(1).unwrap();
    let mut workspace = device.scratch(reduce::cuda::workspace_len(count)).unwrap();
    let (mut s, mut w) = (sum.view_mut(), workspace.view_mut());
    reduce::cuda::sum_squares(&device, &g_view, &mut s, &mut w).unwrap();
    let (mut norm, mut clip) = (device.scratch(1).unwrap(), device.scratch(1).unwrap());
    let (mut n, mut c) = (norm.view_mut(), clip.view_mut());
    reduce::cuda::clip_scale(&device, &sum.view(), 1.0, &mut n, &mut c).unwrap();
    let clip = clip.view();
    // The constant beside a clip scale of the device's own does not count.
    let constants = adamw::Constants::new(&hyper, &bias, f32::NAN);
    let args = adamw::cuda::Step { constants, g: &g_view, clip: Some(&clip) };
    {
        let (mut p, mut m, mut v) = (p_there.view_mut(), m_there.view_mut(), v_there.view_mut());
        adamw::cuda::step(&device, &args, &mut p, &mut m, &mut v).unwrap();
    }

    let args = adamw::Step { constants: adamw::Constants::new(&hyper, &bias, scale), g: &g };
    adamw::step(&args, &mut p, &mut m, &mut v);
    for (found, expected, what) in [(&p_there, &p, "p"), (&m_there, &m, "m"), (&v_there, &v, "v")] {
        same(&device, found, expected, what);
    }
}
