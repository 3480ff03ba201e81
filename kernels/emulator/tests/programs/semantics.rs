//! What instructions mean together.

use super::Run;

const CONTROL: &str = include_str!("control.ptx");
const MEMORY: &str = include_str!("memory.ptx");
const EXCHANGE: &str = include_str!("exchange.ptx");

#[test]
fn lanes_part_and_meet_again() {
    let mut out = [0u32; 32];
    Run::new(CONTROL, "collatz").both(&mut out);
    for (lane, found) in out.iter().enumerate() {
        let (mut n, mut steps) = (lane as u32 + 1, 0);
        while n != 1 {
            n = if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
            steps += 1;
        }
        assert_eq!(*found, 2 * steps + 1, "lane {lane}: steps, and all 32 lanes together at the end");
    }
}

#[test]
fn a_table_of_branches_and_early_exits() {
    let mut out = [0u32; 32];
    Run::new(CONTROL, "table").both(&mut out);
    let expected: Vec<u32> = (0..32).map(|i| if i > 29 { 0 } else { 100 * (i % 3 + 1) }).collect();
    assert_eq!(out[..], expected);
}

#[test]
fn inner_scopes_have_registers_and_labels_of_their_own() {
    let mut out = [0u32; 32];
    Run::new(CONTROL, "scopes").both(&mut out);
    let expected: Vec<u32> = (0..32).map(|i| if i < 16 { 7 } else { 7 + i }).collect();
    assert_eq!(out[..], expected);
}

#[test]
fn every_form_of_setp() {
    let mut out = [0u32; 32];
    Run::new(CONTROL, "predicates").both(&mut out);
    for i in 0..32u32 {
        let (p1, p2) = (i < 10, i >= 10);
        let (and, not_and) = (i >= 5 && p1, i < 5 && p1);
        let or = i == 31 || !p2;
        let xor = (i == 0) != or;
        let bits = [p1, p2, and, not_and, or, xor];
        let expected = bits.iter().enumerate().fold(0, |all, (at, bit)| all | u32::from(*bit) << at);
        assert_eq!(out[i as usize], expected, "lane {i}");
    }
}

#[test]
fn loads_extend_and_stores_truncate() {
    let mut out = [0u32; 12];
    Run { block: 1, ..Run::new(MEMORY, "extend") }.both(&mut out);
    let minus = u32::MAX;
    assert_eq!(out, [minus, 128, 0xffff_8000, minus, minus, minus, minus, 0, minus, 0xff, 0x8000, 0]);
}

#[test]
fn vectors_and_packing() {
    let mut out = [0u32; 18];
    out[..4].copy_from_slice(&[0x0403_0201, 0x0807_0605, 11, 12]);
    Run { block: 1, ..Run::new(MEMORY, "vectors") }.both(&mut out);
    let (a, b) = (0x0403_0201, 0x0807_0605);
    assert_eq!(out[4..8], [12, 11, b, 9]);
    assert_eq!(out[8..12], [a, b, a, b]);
    assert_eq!(out[12..14], [b, a]);
    assert_eq!(out[14], 0x0201_0403);
    assert_eq!(out[15], 0x0102_0304);
    assert_eq!(out[16..18], [0x0605_0807, 0x0201_0403]);
}

#[test]
fn one_instruction_may_reach_three_spaces() {
    let mut out = [0u32; 32];
    Run { scalars: &[1000], ..Run::new(MEMORY, "generic") }.both(&mut out);
    let expected: Vec<u32> = (0..32).map(|i| 1000 + if i % 3 == 1 { 2 * i } else { i }).collect();
    assert_eq!(out[..], expected);
}

#[test]
fn integer_atomics() {
    let mut out = [0, 0, (-3i32) as u32, 0, 0, 0, 1, 0];
    Run { block: 64, ..Run::new(MEMORY, "atomics") }.both(&mut out);
    let sum: u32 = (0..64).sum();
    assert_eq!(out, [100 + 2 * 64, sum, 63, (-5i32) as u32, 63, 64 % 10, 77, 5 + sum]);
}

#[test]
fn asynchronous_copies_land_at_their_wait() {
    let mut out: Vec<u32> = (0..128).map(|i| 100 + i).collect();
    Run::new(MEMORY, "late_copy").both(&mut out);
    for lane in 0..32u32 {
        let at = 4 * lane as usize;
        // Old value, first group landed, second not yet; it was told to read nothing and writes zeros.
        assert_eq!(out[at..at + 4], [5, 100 + 4 * lane, 101 + 4 * lane, 0], "lane {lane}");
    }
}

#[test]
fn values_cross_lanes() {
    let mut out = [0u32; 128];
    Run::new(EXCHANGE, "warp").both(&mut out);
    for lane in 0..32u32 {
        let at = 4 * lane as usize;
        let up = if lane < 4 { lane } else { 1000 + lane - 4 };
        assert_eq!(out[at..at + 4], [496, (lane + 3) % 32, up, 0xf000_0000], "lane {lane}");
    }
    let mut out = [9u32; 32];
    Run::new(EXCHANGE, "half_vote").both(&mut out);
    let expected: Vec<u32> = (0..32).map(|i| if i < 16 { 1 + 4 } else { 0 }).collect();
    assert_eq!(out[..], expected);
}

#[test]
fn values_cross_warps() {
    for threads in [1u32, 2, 31, 33, 100, 128] {
        let mut out = vec![0u32; threads as usize];
        Run { block: threads, dynamic_shared: 4 * threads as usize, ..Run::new(EXCHANGE, "block") }
            .both(&mut out);
        for i in 0..threads {
            let all = if threads <= 3 { 32 } else { 0 };
            assert_eq!(
                out[i as usize],
                (threads - 1 - i) << 8 | threads.min(3) | 16 | all,
                "{threads} threads"
            );
        }
    }
}

/// Counters of a kernel whose every instruction and access is known.
#[test]
fn a_launch_is_counted() {
    let source = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out)\n{\n\
         .shared .align 16 .b8 board[4096];\n.reg .pred %p<3>;\n.reg .b32 %r<9>;\n.reg .f32 %f<4>;\n\
         .reg .b64 %rd<5>;\nld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\n\
         add.s64 %rd3, %rd1, %rd2;\nld.global.f32 %f1, [%rd3];\nfma.rn.f32 %f2, %f1, %f1, %f1;\n\
         st.global.f32 [%rd3+4], %f2;\nmul.lo.u32 %r2, %r1, 8;\nmov.u32 %r3, board;\nadd.u32 %r4, %r3, %r2;\n\
         st.shared.f32 [%r4], %f2;\nsetp.lt.u32 %p1, %r1, 1;\n@%p1 ld.shared.f32 %f3, [board];\nret;\n}\n";
    let tally = cuda_emulator::exec::count::Tally::default();
    #[repr(align(256))]
    struct Out([u32; 65]);
    let mut out = Out([0; 65]);
    Run { block: 64, count: Some(&tally), ..Run::new(source, "k") }.on(&mut [&mut out.0]).unwrap();
    let counters = tally.counters();
    // Loads of 32 aligned words touch 4 sectors; shifted by one they touch 5, of which two warps share one.
    assert_eq!((counters.load.requests, counters.load.bytes, counters.load.sectors), (2, 256, 8));
    assert_eq!((counters.store.sectors, counters.store.block_sectors), (10, 9));
    // Every second word: two passes, where one would do.
    assert_eq!((counters.shared_store.wavefronts, counters.shared_store.ideal), (4, 2));
    assert_eq!((counters.shared_load.wavefronts, counters.shared_load.ideal), (1, 1));
    assert_eq!(counters.conflict_wavefronts(), 2);
    let line = counters.json("k", [1, 1, 1], [64, 1, 1], |pc| (pc + 1, None));
    // A load that no lane takes part in is issued all the same.
    for part in
        ["\"ffma\":2", "\"shared_load\":2", "\"integer\":10", "\"move\":4", "\"constant\":2", "\"control\":2"]
    {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}
