//! What is peculiar to the room.

use super::{Stream, block, normal, uniform};

const STREAM: Stream = Stream { seed: 1, tensor: 2, step: 3, purpose: 4 };

#[test]
fn known_answers_of_the_published_generator() {
    let ones = u32::MAX;
    assert_eq!(block([0, 0], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(block([ones; 2], [ones; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    assert_eq!(
        block([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
}

#[test]
fn any_part_can_be_made_alone() {
    let (mut whole, mut part) = (vec![0.0; 100], vec![0.0; 37]);
    uniform(&STREAM, 0, &mut whole);
    uniform(&STREAM, 13, &mut part);
    assert_eq!(whole[13..50], part);
    normal(&STREAM, 0, 1.0, &mut whole);
    normal(&STREAM, 13, 1.0, &mut part);
    assert_eq!(whole[13..50], part);
}

#[test]
fn normals_have_mean_zero_and_deviation_one() {
    let n = 100_000;
    let mut x = vec![0.0; n];
    normal(&STREAM, 0, 1.0, &mut x);
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
    let variance = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n as f64;
    assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
}
