//! End to end: CUDA C++ through NVRTC and `cudarc`, unmodified, on whatever libcuda the library path offers —
//! the emulated one (`cargo xtask emulated`) or a real driver. Without both libraries: "not run".

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use std::sync::{Arc, OnceLock};

use common::values::values;

use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts};

const SOURCE: &str = include_str!("kernels.cu");

struct Device {
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
}

impl Device {
    fn open() -> Option<Self> {
        // SAFETY: asks whether the libraries can be opened, nothing else.
        let (driver, nvrtc) =
            unsafe { (cudarc::driver::sys::is_culib_present(), cudarc::nvrtc::sys::is_culib_present()) };
        if !driver || !nvrtc {
            println!("not run: libcuda found: {driver}, libnvrtc found: {nvrtc}; see `cargo xtask emulated`");
            return None;
        }
        let context = CudaContext::new(0).unwrap();
        let (major, minor) = context.compute_capability().unwrap();
        let options = [
            &format!("--gpu-architecture=compute_{}", 10 * major + minor),
            "--fmad=false",
            "--ftz=false",
            "--prec-div=true",
            "--prec-sqrt=true",
        ];
        let options = CompileOptions { options: options.map(String::from).to_vec(), ..Default::default() };
        static PTX: OnceLock<Ptx> = OnceLock::new();
        let ptx = PTX.get_or_init(|| compile_ptx_with_opts(SOURCE, options).unwrap());
        let module = context.load_module(ptx.clone()).unwrap();
        println!("device: {}", context.name().unwrap());
        Some(Self { stream: context.default_stream(), module })
    }

    fn kernel(&self, name: &str) -> CudaFunction {
        self.module.load_function(name).unwrap()
    }
}

fn shape(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

#[test]
fn vector_add() {
    let Some(device) = Device::open() else { return };
    let stream = &device.stream;
    let kernel = device.kernel("vector_add");
    for n in [1usize, 31, 1000, 4096] {
        let (a, b) = (values(n, 1), values(n, 2));
        let (da, db) = (stream.clone_htod(&a).unwrap(), stream.clone_htod(&b).unwrap());
        let mut dc = stream.alloc_zeros::<f32>(n).unwrap();
        let count = n as i32;
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&da).arg(&db).arg(&mut dc).arg(&count);
        // SAFETY: arguments are those of the kernel, and it stays below `count`.
        unsafe { launch.launch(shape(n.div_ceil(128) as u32, 128)) }.unwrap();
        let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        common::same_bits("vector_add", &stream.clone_dtoh(&dc).unwrap(), &expected);
    }
}

#[test]
fn rms_norm_both_ways() {
    let Some(device) = Device::open() else { return };
    let stream = &device.stream;
    for (rows, d) in [(1usize, 128usize), (5, 96), (7, 257), (16, 512)] {
        let (x, w, dy) = (values(rows * d, 3), values(d, 4), values(rows * d, 5));
        let (inv_d, eps) = (1.0 / d as f32, 1e-5f32);
        let (dx, dw) = (stream.clone_htod(&x).unwrap(), stream.clone_htod(&w).unwrap());
        let ddy = stream.clone_htod(&dy).unwrap();
        let mut out = stream.alloc_zeros::<f32>(rows * d).unwrap();
        let mut scratch = stream.alloc_zeros::<f32>(rows * d).unwrap();
        let (row_count, width) = (rows as i32, d as i32);
        let config = shape(rows.div_ceil(4) as u32, 128);

        let kernel = device.kernel("rms_norm");
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&dx).arg(&dw).arg(&mut out).arg(&row_count).arg(&width).arg(&inv_d).arg(&eps);
        // SAFETY: arguments are those of the kernel, one warp to a row.
        unsafe { launch.launch(config) }.unwrap();
        let expected = common::rms_norm(&x, &w, inv_d, eps);
        common::same_bits("rms_norm", &stream.clone_dtoh(&out).unwrap(), &expected);

        let kernel = device.kernel("rms_norm_backward");
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&dx).arg(&dw).arg(&ddy).arg(&mut out).arg(&mut scratch);
        launch.arg(&row_count).arg(&width).arg(&inv_d).arg(&eps);
        // SAFETY: as above.
        unsafe { launch.launch(config) }.unwrap();
        let expected = common::rms_norm_backward(&x, &w, &dy, inv_d, eps);
        common::same_bits("rms_norm_backward", &stream.clone_dtoh(&out).unwrap(), &expected);
    }
}

#[test]
fn adamw_step() {
    let Some(device) = Device::open() else { return };
    let stream = &device.stream;
    let kernel = device.kernel("adamw");
    let n = 3000usize;
    let (mut p, mut m, g) = (values(n, 6), values(n, 7), values(n, 8));
    let mut v: Vec<f32> = values(n, 9).iter().map(|v| v * v).collect();
    let (mut dp, mut dm) = (stream.clone_htod(&p).unwrap(), stream.clone_htod(&m).unwrap());
    let (mut dv, dg) = (stream.clone_htod(&v).unwrap(), stream.clone_htod(&g).unwrap());
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&mut dp).arg(&mut dm).arg(&mut dv).arg(&dg).arg(&n);
    for constant in &common::ADAMW {
        launch.arg(constant);
    }
    // SAFETY: arguments are those of the kernel, which strides over the grid.
    unsafe { launch.launch(shape(5, 256)) }.unwrap();
    common::adamw(&mut p, &mut m, &mut v, &g);
    common::same_bits("parameters", &stream.clone_dtoh(&dp).unwrap(), &p);
    common::same_bits("first moment", &stream.clone_dtoh(&dm).unwrap(), &m);
    common::same_bits("second moment", &stream.clone_dtoh(&dv).unwrap(), &v);
}

#[test]
fn sgemm_nn_nt_tn() {
    let Some(device) = Device::open() else { return };
    let stream = &device.stream;
    let kernel = device.kernel("sgemm");
    for (m, n, k) in [(1, 1, 1), (64, 64, 16), (70, 130, 37), (128, 192, 256)] {
        let (a, b) = (values(m * k, 10), values(k * n, 11));
        let (da, db) = (stream.clone_htod(&a).unwrap(), stream.clone_htod(&b).unwrap());
        for product in common::products(m, n, k) {
            let mut dc = stream.alloc_zeros::<f32>(m * n).unwrap();
            let sizes = [m, n, k, product.a[0], product.a[1], product.b[0], product.b[1]].map(|n| n as i32);
            let mut launch = stream.launch_builder(&kernel);
            launch.arg(&da).arg(&db).arg(&mut dc);
            for size in &sizes {
                launch.arg(size);
            }
            let grid_dim = (n.div_ceil(64) as u32, m.div_ceil(64) as u32, 1);
            // SAFETY: arguments are those of the kernel, which guards its edges.
            unsafe { launch.launch(LaunchConfig { grid_dim, block_dim: (256, 1, 1), shared_mem_bytes: 0 }) }
                .unwrap();
            let expected = common::sgemm(product, &a, &b);
            common::same_bits(&format!("{product:?}"), &stream.clone_dtoh(&dc).unwrap(), &expected);
        }
    }
}

#[test]
fn dynamic_shared_memory_and_events() {
    let Some(device) = Device::open() else { return };
    let stream = &device.stream;
    let kernel = device.kernel("reverse");
    let (blocks, threads) = (3usize, 64usize);
    let n = 4 * threads;
    let a = values(blocks * n, 12);
    let da = stream.clone_htod(&a).unwrap();
    let mut db = stream.alloc_zeros::<f32>(blocks * n).unwrap();
    let config = LaunchConfig { shared_mem_bytes: 4 * n as u32, ..shape(blocks as u32, threads as u32) };
    let flags = Some(cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT);
    let start = stream.record_event(flags).unwrap();
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&da).arg(&mut db);
    // SAFETY: arguments are those of the kernel, and shared memory is as long as it uses.
    unsafe { launch.launch(config) }.unwrap();
    let end = stream.record_event(flags).unwrap();
    assert!(start.elapsed_ms(&end).unwrap() >= 0.0);
    let expected: Vec<f32> = a.chunks(n).flat_map(|block| block.iter().rev().copied()).collect();
    common::same_bits("reverse", &stream.clone_dtoh(&db).unwrap(), &expected);

    // More than the device has is refused before anything runs.
    let config = LaunchConfig { shared_mem_bytes: 1 << 20, ..config };
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&da).arg(&mut db);
    // SAFETY: as above.
    assert!(unsafe { launch.launch(config) }.is_err());
}
