//! The same kernels compiled by NVRTC for every architecture, in both of its dialects, run in this process.
//! Without NVRTC: "not run".

use cuda_emulator::exec::check::{Allocations, Range};
use cuda_emulator::exec::launch::{Launch, launch};
use cuda_emulator::exec::load;
use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};

const SOURCE: &str = include_str!("../kernels.cu");

#[test]
fn both_dialects_give_the_same_bits() {
    // SAFETY: asks whether the library can be opened, nothing else.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        println!("not run: libnvrtc not found on the library path");
        return;
    }
    let mut first: Option<Vec<u32>> = None;
    for architecture in [75, 80, 86, 89, 90, 100, 120] {
        let text = compile(architecture);
        let found = mixture(&text);
        let first = first.get_or_insert_with(|| found.clone());
        for (at, (found, expected)) in found.iter().zip(first.iter()).enumerate() {
            assert_eq!(found, expected, "word {at} differs between sm_75 and sm_{architecture}");
        }
    }
}

fn compile(architecture: u32) -> String {
    let options = [
        &format!("--gpu-architecture=compute_{architecture}"),
        "--fmad=false",
        "--ftz=false",
        "--prec-div=true",
        "--prec-sqrt=true",
        "--generate-line-info",
    ];
    let options = CompileOptions { options: options.map(String::from).to_vec(), ..Default::default() };
    compile_ptx_with_opts(SOURCE, options).unwrap().to_src()
}

/// All that the kernel `mixture` writes.
fn mixture(text: &str) -> Vec<u32> {
    let module = load(text).unwrap_or_else(|error| panic!("{}", error.quoting(text)));
    let program = &module.programs["mixture"];
    let (blocks, threads) = (3usize, 96usize);
    let n = blocks * threads;
    let values = crate::values::values(50, 77);
    let mut out = vec![0u32; n];
    let mut wide: Vec<f64> = (0..n).map(|i| i as f64 * 1.7).collect();
    let mut narrow: Vec<i16> = (0..n).map(|i| (i as i16).wrapping_mul(-1237)).collect();
    let mut large: Vec<i64> = (0..n as i64).map(|i| i.wrapping_mul(-7_777_777_777_777) + (i << 40)).collect();
    let mut params = Vec::new();
    params.extend((values.as_ptr() as u64).to_le_bytes());
    params.extend(50i32.to_le_bytes());
    params.extend(3i16.to_le_bytes());
    params.extend([9, 0]);
    let arrays = [
        (out.as_mut_ptr() as u64, size_of_val(&out[..])),
        (wide.as_mut_ptr() as u64, size_of_val(&wide[..])),
        (narrow.as_mut_ptr() as u64, size_of_val(&narrow[..])),
        (large.as_mut_ptr() as u64, size_of_val(&large[..])),
    ];
    for (address, _) in arrays {
        params.extend(address.to_le_bytes());
    }
    params.extend(2i32.to_le_bytes());
    let range = |(start, bytes): (u64, usize)| Range { start, end: start + bytes as u64, written: None };
    let mut ranges: Vec<Range> =
        arrays.into_iter().chain(module.variables.values().copied()).map(range).collect();
    ranges.push(range((values.as_ptr() as u64, size_of_val(&values[..]))));
    let allocations = Allocations::new(ranges);
    let shape = Launch { check: Some(&allocations), ..Launch::new(blocks as u32, threads as u32, &params) };
    // SAFETY: the launch is checked, and nothing else uses the arrays.
    unsafe { launch(program, &shape) }.unwrap_or_else(|report| panic!("{report}"));
    let (total, _) = module.variables["total"];
    // SAFETY: the module's variable of 8 bytes, still loaded.
    let total = unsafe { (total as *const u64).read() };
    assert_eq!(total, 7 + (0..n as u64).sum::<u64>());
    let bytes = wide.iter().flat_map(|v| v.to_le_bytes()).chain(narrow.iter().flat_map(|v| v.to_le_bytes()));
    let bytes: Vec<u8> = bytes.chain(large.iter().flat_map(|v| v.to_le_bytes())).collect();
    out.extend(bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])));
    out
}
