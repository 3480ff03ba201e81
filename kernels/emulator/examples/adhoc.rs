use cuda_emulator::exec::{launch::{Launch, launch}, load, check::Allocations};
fn main() {
    let text = std::fs::read_to_string(std::env::args().nth(1).unwrap()).unwrap();
    let module = load(&text).unwrap();
    let program = &module.programs["sgemm"];
    let n = 512usize;
    let a = vec![1.5f32; n * n]; let b = vec![0.5f32; n * n]; let mut c = vec![0f32; n * n];
    let mut params = Vec::new();
    for p in [a.as_ptr() as u64, b.as_ptr() as u64, c.as_mut_ptr() as u64] { params.extend(p.to_le_bytes()); }
    for _ in 0..3 { params.extend((n as i32).to_le_bytes()); }
    if program.param_bytes > params.len() { for v in [n as i32, 1, n as i32, 1] { params.extend(v.to_le_bytes()); } }
    let al = Allocations::new(vec![(0, u64::MAX)]);
    for check in [None] {
        for _ in 0..10 {
            let t = std::time::Instant::now();
            let shape = Launch { grid: [n as u32 / 64, n as u32 / 64, 1], block: [256, 1, 1], dynamic_shared: 0, params: &params, check };
            unsafe { launch(program, &shape) }.unwrap();
            let s = t.elapsed().as_secs_f64();
            println!("check {} {:.1} ms, {:.2} G lane-FFMA/s", check.is_some(), s * 1e3, (n * n * n) as f64 / s / 1e9);
        }
    }
    println!("frame {}", program.registers);
}
