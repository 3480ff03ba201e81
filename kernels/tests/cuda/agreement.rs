//! CUDA against CPU, to the bit: every shape, every rung that can take it, every launch shape, aligned memory and not.

use kernels::device::CudaDevice;
use kernels::{adamw, matmul, rms_norm};

use crate::support::{Walled, device, expect_same_bits, numbers};

/// Elements that memory begins after a multiple of 16 bytes: none, and one that forbids float4.
const SHIFTS: [usize; 2] = [0, 1];

#[test]
fn rms_norm_forward() {
    let Some(device) = device() else { return };
    for (rows, dim) in [
        (1, 1),
        (3, 5),
        (9, 64),
        (2, 127),
        (17, 128),
        (5, 132),
        (3, 1024),
        (2, 1028),
        (1, 4096),
        (2, 4100),
        (1, 16384),
        (1, 40_001),
    ] {
        let (x, w) = (numbers(1, rows * dim), numbers(2, dim));
        let (mut y, mut r) = (vec![0.0; rows * dim], vec![0.0; rows]);
        rms_norm::forward(&rms_norm::Forward { rows, dim, eps: 1e-5, x: &x, w: &w }, &mut y, &mut r);
        for shift in SHIFTS {
            for rung in
                [rms_norm::cuda::Rung::HeldShort, rms_norm::cuda::Rung::HeldLong, rms_norm::cuda::Rung::Any]
            {
                for warps in [1, 8] {
                    let what =
                        format!("rms_norm::forward {rows} x {dim} {rung:?} shift {shift} warps {warps}");
                    let (x, w) = (Walled::new(&device, &x, shift), Walled::new(&device, &w, shift));
                    let mut out_y = Walled::empty(&device, rows * dim, shift);
                    let mut out_r = Walled::empty(&device, rows, shift);
                    rms_norm::cuda::forward_on(
                        &device,
                        rung,
                        warps,
                        &rms_norm::cuda::Forward { rows, dim, eps: 1e-5, x: &x.view(), w: &w.view() },
                        &mut out_y.view_mut(),
                        &mut out_r.view_mut(),
                    )
                    .unwrap();
                    expect_same_bits(&format!("{what}: y"), dim, &y, &out_y.take(&device, &what));
                    expect_same_bits(&format!("{what}: r"), 1, &r, &out_r.take(&device, &what));
                }
            }
        }
    }
}

#[test]
fn rms_norm_backward() {
    let Some(device) = device() else { return };
    for (rows, dim) in [
        (1, 1),
        (3, 5),
        (64, 64),
        (65, 127),
        (130, 128),
        (5, 132),
        (3, 1024),
        (2, 1028),
        (1, 2048),
        (1, 2052),
        (1, 40_001),
    ] {
        let (x, w, dy) = (numbers(1, rows * dim), numbers(2, dim), numbers(3, rows * dim));
        let r: Vec<f32> = numbers(4, rows).iter().map(|value| value.abs()).collect();
        let before = numbers(5, dim);
        let (mut dx, mut dw) = (vec![0.0; rows * dim], before.clone());
        rms_norm::backward(&rms_norm::Backward { rows, dim, x: &x, w: &w, r: &r, dy: &dy }, &mut dx, &mut dw);
        for shift in SHIFTS {
            for rung in
                [rms_norm::cuda::Rung::HeldShort, rms_norm::cuda::Rung::HeldLong, rms_norm::cuda::Rung::Any]
            {
                for warps in [1, 8] {
                    let what =
                        format!("rms_norm::backward {rows} x {dim} {rung:?} shift {shift} warps {warps}");
                    let on = |values: &[f32]| Walled::new(&device, values, shift);
                    let (x, w, r, dy) = (on(&x), on(&w), on(&r), on(&dy));
                    let mut out_dx = Walled::empty(&device, rows * dim, shift);
                    let mut out_dw = on(&before);
                    let (x, w, r, dy) = (x.view(), w.view(), r.view(), dy.view());
                    rms_norm::cuda::backward_on(
                        &device,
                        rung,
                        warps,
                        &rms_norm::cuda::Backward { rows, dim, x: &x, w: &w, r: &r, dy: &dy },
                        &mut out_dx.view_mut(),
                        &mut out_dw.view_mut(),
                    )
                    .unwrap();
                    expect_same_bits(&format!("{what}: dx"), dim, &dx, &out_dx.take(&device, &what));
                    expect_same_bits(&format!("{what}: dw"), dim, &dw, &out_dw.take(&device, &what));
                }
            }
        }
    }
}

/// m, n, k: single elements, odd shapes, whole tiles, tails in every direction, an empty sum.
const PRODUCTS: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (5, 7, 3),
    (3, 2, 0),
    (4, 4, 0),
    (64, 64, 64),
    (65, 33, 17),
    (132, 68, 20),
    (128, 128, 8),
    (260, 132, 12),
    (36, 200, 100),
    (1, 300, 31),
    (1100, 140, 4),
];

#[test]
fn matmul_nn() {
    products(matmul::cuda::Layout::Nn, &PRODUCTS, matmul::nn);
}

#[test]
fn matmul_nt() {
    products(matmul::cuda::Layout::Nt, &PRODUCTS, matmul::nt);
}

#[test]
fn matmul_tn() {
    products(matmul::cuda::Layout::Tn, &PRODUCTS, matmul::tn);
    products(
        matmul::cuda::Layout::Tn,
        &[(8, 12, 2048), (7, 5, 2049), (16, 20, 4100), (4, 8, 6000)],
        matmul::tn,
    );
}

fn products(
    layout: matmul::cuda::Layout,
    shapes: &[(usize, usize, usize)],
    on_cpu: fn(&matmul::Matmul<'_>, &mut [f32]),
) {
    let Some(device) = device() else { return };
    for &(m, n, k) in shapes {
        let (a, b, before) = (numbers(1, m * k), numbers(2, k * n), numbers(3, m * n));
        let mut c = before.clone();
        on_cpu(&matmul::Matmul { m, n, k, a: &a, b: &b }, &mut c);
        for shift in SHIFTS {
            for rung in [matmul::cuda::Rung::Tile128, matmul::cuda::Rung::Tile64, matmul::cuda::Rung::Any] {
                let what = format!("matmul {layout:?} {m} x {n} x {k} {rung:?} shift {shift}");
                let (a, b) = (Walled::new(&device, &a, shift), Walled::new(&device, &b, shift));
                let mut out = Walled::new(&device, &before, shift);
                let args = matmul::cuda::Matmul { m, n, k, a: &a.view(), b: &b.view() };
                matmul::cuda::product_on(&device, rung, layout, &args, &mut out.view_mut()).unwrap();
                expect_same_bits(&what, n, &c, &out.take(&device, &what));
            }
        }
    }
}

#[test]
fn adamw_steps() {
    let Some(device) = device() else { return };
    let hyper = adamw::Hyper { lr: 3e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    for len in [1, 3, 4, 1023, 1024, 5000] {
        for (shift, blocks) in [(0, 1), (0, 7), (1, 1), (1, 7)] {
            let what = format!("adamw::step of {len} shift {shift} blocks {blocks}");
            let (mut p, mut m, mut v) = (numbers(1, len), vec![0.0; len], vec![0.0; len]);
            let on = |values: &[f32]| Walled::new(&device, values, shift);
            let (mut out_p, mut out_m, mut out_v) = (on(&p), on(&m), on(&v));
            let mut bias = adamw::BiasCorrection::default();
            for step in 0..4 {
                bias.advance(&hyper);
                let constants = adamw::Constants::new(&hyper, &bias, 0.37);
                let g = numbers(10 + step, len);
                adamw::step(&adamw::Step { constants, g: &g }, &mut p, &mut m, &mut v);
                let g = on(&g);
                adamw::cuda::step_on(
                    &device,
                    blocks,
                    &adamw::cuda::Step { constants, g: &g.view() },
                    &mut out_p.view_mut(),
                    &mut out_m.view_mut(),
                    &mut out_v.view_mut(),
                )
                .unwrap();
            }
            expect_same_bits(&format!("{what}: p"), len, &p, &out_p.take(&device, &what));
            expect_same_bits(&format!("{what}: m"), len, &m, &out_m.take(&device, &what));
            expect_same_bits(&format!("{what}: v"), len, &v, &out_v.take(&device, &what));
        }
    }
}

/// The entry points that choose a rung themselves, on what a small model asks of them.
#[test]
fn the_chosen_rungs() {
    let Some(device) = device() else { return };
    let (tokens, dim) = (96, 256);
    let (x, w, dy) = (numbers(1, tokens * dim), numbers(2, dim), numbers(3, tokens * dim));
    let (mut y, mut r) = (vec![0.0; tokens * dim], vec![0.0; tokens]);
    rms_norm::forward(&rms_norm::Forward { rows: tokens, dim, eps: 1e-5, x: &x, w: &w }, &mut y, &mut r);
    let (mut dx, mut dw) = (vec![0.0; tokens * dim], vec![0.0; dim]);
    rms_norm::backward(
        &rms_norm::Backward { rows: tokens, dim, x: &x, w: &w, r: &r, dy: &dy },
        &mut dx,
        &mut dw,
    );

    let on = |values: &[f32]| Walled::new(&device, values, 0);
    let (x, w, dy, mut dw_out) = (on(&x), on(&w), on(&dy), on(&vec![0.0; dim]));
    let empty = |len| Walled::empty(&device, len, 0);
    let (mut y_out, mut r_out, mut dx_out) = (empty(tokens * dim), empty(tokens), empty(tokens * dim));
    let (x, w, dy) = (x.view(), w.view(), dy.view());
    let args = rms_norm::cuda::Forward { rows: tokens, dim, eps: 1e-5, x: &x, w: &w };
    rms_norm::cuda::forward(&device, &args, &mut y_out.view_mut(), &mut r_out.view_mut()).unwrap();
    {
        let r = r_out.view();
        let args = rms_norm::cuda::Backward { rows: tokens, dim, x: &x, w: &w, r: &r, dy: &dy };
        rms_norm::cuda::backward(&device, &args, &mut dx_out.view_mut(), &mut dw_out.view_mut()).unwrap();
    }
    expect_same_bits("y", dim, &y, &y_out.take(&device, "y"));
    expect_same_bits("r", 1, &r, &r_out.take(&device, "r"));
    expect_same_bits("dx", dim, &dx, &dx_out.take(&device, "dx"));
    expect_same_bits("dw", dim, &dw, &dw_out.take(&device, "dw"));

    let (m, n, k) = (tokens, 3 * dim, dim);
    let (a, b) = (numbers(6, m * k), numbers(7, k * n));
    let (a_on, b_on) = (on(&a), on(&b));
    type OnCpu = fn(&matmul::Matmul<'_>, &mut [f32]);
    type OnCuda = fn(
        &CudaDevice,
        &matmul::cuda::Matmul<'_>,
        &mut kernels::device::ViewMut<'_, f32>,
    ) -> Result<(), kernels::device::DeviceError>;
    let entries: [(&str, OnCpu, OnCuda); 3] = [
        ("nn", matmul::nn, matmul::cuda::nn),
        ("nt", matmul::nt, matmul::cuda::nt),
        ("tn", matmul::tn, matmul::cuda::tn),
    ];
    for (what, on_cpu, on_cuda) in entries {
        let mut c = numbers(8, m * n);
        let mut c_out = on(&c);
        on_cpu(&matmul::Matmul { m, n, k, a: &a, b: &b }, &mut c);
        let args = matmul::cuda::Matmul { m, n, k, a: &a_on.view(), b: &b_on.view() };
        on_cuda(&device, &args, &mut c_out.view_mut()).unwrap();
        expect_same_bits(what, n, &c, &c_out.take(&device, what));
    }

    let hyper = adamw::Hyper { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let constants = adamw::Constants::new(&hyper, &adamw::BiasCorrection::after(&hyper, 1), 1.0);
    let (g, mut p, mut first, mut second) =
        (numbers(1, 9001), numbers(2, 9001), vec![0.0; 9001], vec![0.0; 9001]);
    let (g_on, mut p_out, mut first_out, mut second_out) = (on(&g), on(&p), on(&first), on(&second));
    adamw::step(&adamw::Step { constants, g: &g }, &mut p, &mut first, &mut second);
    adamw::cuda::step(
        &device,
        &adamw::cuda::Step { constants, g: &g_on.view() },
        &mut p_out.view_mut(),
        &mut first_out.view_mut(),
        &mut second_out.view_mut(),
    )
    .unwrap();
    expect_same_bits("p", 9001, &p, &p_out.take(&device, "p"));
}
