//! Bytes that are no frame: each is an error that says why, and none a panic.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

mod samples;

use proptest::prelude::*;
use spec::NodeId;
use wire::envelope::{checksum, decode, encode};
use wire::limits::{BODY_BYTES_MAX, HEAD_BYTES_MAX, VERSION};
use wire::message::{AUDIT_KIND, EXPLAIN_KIND, KINDS, PAYLOAD_KIND, has_body};
use wire::{Assignment, HEADER_LEN, Header, Hello, Message, PayloadKind, Role, Slot, WireError};

const BODY: &[u8] = b"body";

fn payload() -> ([u8; HEADER_LEN], Vec<u8>) {
    encode(samples::receiver(), &samples::payload(PayloadKind::Activation), BODY, None).unwrap()
}

/// The error of a good header after one edit.
fn edited(edit: impl FnOnce(&mut [u8; HEADER_LEN])) -> WireError {
    let (mut header, _) = payload();
    edit(&mut header);
    Header::decode(&header).unwrap_err()
}

fn set(at: usize, value: u32) -> impl FnOnce(&mut [u8; HEADER_LEN]) {
    move |header| header[at..at + 4].copy_from_slice(&value.to_le_bytes())
}

#[test]
fn headers_of_another_make_are_told_apart() {
    assert_eq!(edited(|header| header[0] = b'i'), WireError::Magic { found: *b"iOTA" });
    let found = VERSION + 1;
    assert_eq!(
        edited(|header| header[4..6].copy_from_slice(&found.to_le_bytes())),
        WireError::Version { found }
    );
    let unknown = |what, found| WireError::Unknown { what, found };
    assert_eq!(edited(|header| header[6] = KINDS), unknown("kind", KINDS.into()));
    assert_eq!(edited(|header| header[7] = 0x84), unknown("flags", 0x84));
    assert_eq!(edited(set(20, 9)), unknown("reserved bytes", 9));
    // A body that is not packed is as long unpacked as it travels.
    assert_eq!(edited(set(16, 5)), unknown("unpacked length", 5));
}

#[test]
fn lengths_are_bounded_before_anything_is_read() {
    let too_long = |kind, what, found, limit| WireError::TooLong { kind, what, found, limit };
    let short = 64 << 10;
    assert_eq!(edited(set(8, short + 1)), too_long(PAYLOAD_KIND, "head", short + 1, short));
    let whole_window = |kind: u8, length: u32| {
        move |header: &mut [u8; HEADER_LEN]| {
            header[6] = kind;
            set(8, length)(header);
            set(12, 0)(header);
            set(16, 0)(header);
        }
    };
    let long = HEAD_BYTES_MAX + 1;
    for kind in [AUDIT_KIND, EXPLAIN_KIND] {
        assert_eq!(edited(whole_window(kind, long)), too_long(kind, "head", long, HEAD_BYTES_MAX));
        let (mut header, _) = payload();
        whole_window(kind, HEAD_BYTES_MAX)(&mut header);
        assert!(Header::decode(&header).is_ok());
    }

    let long = BODY_BYTES_MAX + 1;
    assert_eq!(edited(set(12, long)), too_long(PAYLOAD_KIND, "body", long, BODY_BYTES_MAX));
    assert_eq!(edited(set(16, long)), too_long(PAYLOAD_KIND, "unpacked body", long, BODY_BYTES_MAX));
    // No other kind has a body.
    assert_eq!(edited(|header| header[6] = 5), too_long(5, "body", 4, 0));
    let error = encode(samples::receiver(), &Message::Ready { epoch: 1, turn: 0 }, BODY, None).unwrap_err();
    assert_eq!(error, too_long(5, "body", 4, 0));
}

#[test]
fn damaged_heads_and_bodies_are_told_apart_from_whole_ones() {
    let (header, head) = payload();
    let header = Header::decode(&header).unwrap();
    assert!(decode(&header, &head, BODY).is_ok());
    let damaged = Err(WireError::Checksum { kind: PAYLOAD_KIND });
    assert_eq!(decode(&header, &head, b"bodY"), damaged);
    assert_eq!(decode(&header, &head[1..], BODY), damaged);

    let why = |header: &Header, head: &[u8]| match decode(&sealed(*header, head, b""), head, b"") {
        Err(WireError::Head { why, .. }) => why,
        other => panic!("expected a bad head, found {other:?}"),
    };
    assert!(!why(&header, &[200]).is_empty());
    assert_eq!(why(&Header { kind: 6, ..header }, &head), "it is of kind 8");
    assert_eq!(why(&header, &[&head[..], b"!!"].concat()), "2 bytes too many");
    assert_eq!(why(&Header { urgent: true, ..header }, &head), "its urgency is not the header's");
}

/// The header with the checksum that fits.
fn sealed(header: Header, head: &[u8], body: &[u8]) -> Header {
    Header { checksum: checksum(head, body), ..header }
}

fn any_message() -> impl Strategy<Value = Message> {
    let slot = (any::<[u8; 32]>(), any::<[u32; 2]>(), any::<[u16; 3]>()).prop_map(
        |(miner, [step, settled], [position, members, attempt])| Slot {
            miner: NodeId(miner),
            step,
            position,
            members,
            attempt,
            settled,
        },
    );
    let assignment = (any::<u64>(), any::<u32>(), any::<u64>(), prop::collection::vec(slot, 0..9))
        .prop_map(|(id, epoch, microbatch, route)| Assignment { id, epoch, microbatch, route });
    let hello = (prop::collection::vec(any::<u8>(), 0..99), ".{0,40}").prop_map(|(token, software)| Hello {
        role: Role::Miner,
        token,
        software,
        resumes: false,
    });
    let sample = prop::sample::select(samples::messages()).prop_map(|(_, message)| message);
    prop_oneof![
        assignment.prop_map(Message::Assign),
        hello.prop_map(Message::Hello),
        any::<(u32, u32)>().prop_map(|(epoch, turn)| Message::Ready { epoch, turn }),
        ".{0,80}".prop_map(|reason| Message::Leave { reason }),
        sample,
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(
        message in any_message(),
        to in any::<[u8; 32]>(),
        body in prop::collection::vec(any::<u8>(), 1..300),
        unpacked in prop::option::of(1u32..BODY_BYTES_MAX),
    ) {
        let payload = has_body(message.kind());
        let (body, unpacked) = if payload { (body, unpacked) } else { (Vec::new(), None) };
        let (bytes, head) = encode(NodeId(to), &message, &body, unpacked).unwrap();
        let header = Header::decode(&bytes).unwrap();
        prop_assert_eq!(header.encode(), bytes);
        prop_assert_eq!(header.to, NodeId(to));
        prop_assert_eq!((header.head_len, header.body_len), (head.len() as u32, body.len() as u32));
        prop_assert_eq!(header.packed, unpacked.is_some());
        prop_assert_eq!(header.unpacked_len, unpacked.unwrap_or(body.len() as u32));
        prop_assert_eq!(decode(&header, &head, &body).unwrap(), message);
    }

    #[test]
    fn any_64_bytes_are_a_header_within_bounds_or_an_error(mut bytes: [u8; 32], to: [u8; 32], like_ours: bool) {
        if like_ours {
            bytes[..6].copy_from_slice(&[b'I', b'O', b'T', b'A', VERSION as u8, 0]);
            bytes[6] %= KINDS + 1;
            bytes[7] &= 3;
            bytes[20..24].fill(0);
            for high in [10, 11, 14, 15, 18, 19] {
                bytes[high] &= 1;
            }
        }
        let mut header = [0; HEADER_LEN];
        header[..32].copy_from_slice(&bytes);
        header[32..].copy_from_slice(&to);
        if let Ok(decoded) = Header::decode(&header) {
            prop_assert!(decoded.head_len <= HEAD_BYTES_MAX);
            prop_assert!(decoded.body_len.max(decoded.unpacked_len) <= BODY_BYTES_MAX);
            prop_assert_eq!(decoded.encode(), header);
        }
    }

    #[test]
    fn any_head_is_a_message_or_an_error(kind in 0..KINDS, mut head in prop::collection::vec(any::<u8>(), 0..400)) {
        // The tag that fits, so that the decoder goes on to the fields.
        if let Some(tag) = head.first_mut() {
            *tag = kind;
        }
        judge(kind, &head)?;
    }

    #[test]
    fn any_edit_of_a_head_is_a_message_or_an_error(
        (_, message) in prop::sample::select(samples::messages()),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (_, mut head) = encode(samples::receiver(), &message, b"", None).unwrap();
        for (at, value) in edits {
            let at = at.index(head.len());
            head[at] = value;
        }
        if let Some(cut) = cut {
            head.truncate(cut.index(head.len()));
        }
        judge(message.kind(), &head)?;
    }
}

/// Decodes behind a checksum that fits; what is taken must be what it says it is.
fn judge(kind: u8, head: &[u8]) -> Result<(), TestCaseError> {
    let (header, _) = payload();
    let header = Header::decode(&header).unwrap();
    for urgent in [false, true] {
        let header = sealed(Header { kind, urgent, ..header }, head, b"");
        if let Ok(message) = decode(&header, head, b"") {
            prop_assert_eq!(message.kind(), kind);
            // By bytes, because a NaN is not equal to itself.
            let (first, head) = encode(header.to, &message, b"", None).unwrap();
            let message = decode(&Header::decode(&first).unwrap(), &head, b"").unwrap();
            prop_assert_eq!(encode(header.to, &message, b"", None).unwrap(), (first, head));
        }
    }
    Ok(())
}
