//! Calls of device functions.

use cuda_emulator::exec::load;

use super::Run;

const CALLS: &str = include_str!("calls.ptx");

#[test]
fn functions_take_and_give() {
    let mut out = [9u32; 128];
    Run::new(CALLS, "calls").both(&mut out);
    let twice = |x: u32| if x < 10 { 2 * x } else { x };
    for lane in 0..32u32 {
        let once = twice(lane);
        let (sum, stored) = if lane > 15 { (once + once, once + once) } else { (7, 9) };
        let at = 4 * lane as usize;
        // All lanes are together again behind every call.
        assert_eq!(out[at..at + 4], [once, sum, u32::MAX, stored], "lane {lane}");
    }
}

#[test]
fn calls_that_cannot_be_made_are_refused_with_their_line() {
    let refused = |from: &str, to: &str, why: &str| {
        let source = CALLS.replacen(from, to, 1);
        assert_ne!(source, CALLS);
        let error = load(&source).expect_err(to);
        assert!(error.what.contains(why), "{error}");
        let line = source.lines().nth(error.line as usize - 1).unwrap();
        assert!(line.contains("call"), "{line}");
    };
    refused("call.uni nothing;", "call.uni nowhere;", "`nowhere` has no instructions");
    refused("call.uni nothing;", "call.uni outside;", "`outside` has no instructions");
    refused("call.uni nothing;", "call.uni twice;", "does not pass what the function `twice` takes");
    refused("call.uni nothing;", "call.uni %r1;", "other than a function by name");
    refused("bar.warp.sync 0xffffffff;", "call.uni nothing;", "calls itself");
}
