//! The decoders, each with inputs that it takes.

use crate::{Target, tile};
use anyhow::{Context, Result, anyhow};
use credit::{Ledger, Rule};
use engine::StageState;
use engine::contribution::{Committed, Contribution, Piece, Scales, Sum};
use engine::data::{TokenShard, Width, shard_bytes};
use engine::payload::{self, Expected, Kind};
use engine::tensor::Tensor;
use spec::{BoundaryCodec, Digest, NodeId, Run};
use transport::Invitation;
use transport::pack::{pack, unpack};
use validator::evidence;
use wire::envelope::{checksum, decode};
use wire::limits::HEAD_BYTES_MAX;
use wire::{Evidence, Finding, HEADER_LEN, Header, Key, Manifest, Message, Signed, Terms, Verdict};

/// One frame of every kind, as people can read it.
const GOLDEN: &str = include_str!("../../transport/wire/tests/golden.txt");
/// A run small enough to decode its states by the thousand.
const RUN: &str = include_str!("../../engine/spec/tests/tiny.toml");
/// Longest body that is unpacked here, in bytes: the declared length is bounded before, and costs memory.
const UNPACKED_BYTES_MAX: u32 = 1 << 20;

/// All of them.
///
/// # Errors
/// An input that its decoder should take cannot be made.
pub fn targets() -> Result<Vec<Target>> {
    let frames = frames()?;
    let mut all = messages(&frames)?;
    all.push(target("header", frames.iter().map(|frame| frame.header.to_vec()), |bytes| {
        bytes.first_chunk::<HEADER_LEN>().is_some_and(|header| Header::decode(header).is_ok())
    }));
    all.extend(around_frames());
    all.extend(tensors()?);
    all.extend(merges()?);
    all.extend(files(&frames)?);
    Ok(all)
}

fn target(
    name: impl Into<String>,
    seeds: impl IntoIterator<Item = Vec<u8>>,
    decode: impl Fn(&[u8]) -> bool + 'static,
) -> Target {
    Target { name: name.into(), seeds: seeds.into_iter().collect(), decode: Box::new(decode) }
}

/// A frame of the golden file.
struct Frame {
    name: String,
    header: [u8; HEADER_LEN],
    head: Vec<u8>,
}

fn frames() -> Result<Vec<Frame>> {
    let frame = |text: &str| {
        let name = text.lines().next().unwrap_or_default().to_owned();
        let bytes = |label: &str| {
            let rows = text.lines().filter_map(|line| line.strip_prefix(label));
            let digits: String = rows.flat_map(str::chars).filter(|digit| !digit.is_whitespace()).collect();
            hex::decode(digits)
        };
        let header =
            bytes("header ")?.try_into().map_err(|_| anyhow!("{name}: a header of another length"))?;
        Ok(Frame { head: bytes("head ")?, header, name })
    };
    GOLDEN.split("\n\n").skip(1).map(frame).collect()
}

/// A target for every kind of message. What is decoded is also written down in words, as logs do.
fn messages(frames: &[Frame]) -> Result<Vec<Target>> {
    let mut all = vec![];
    for Frame { name, header, head } in frames {
        let header = Header::decode(header).with_context(|| format!("the golden frame {name}"))?;
        all.push(target(format!("message {name}"), [head.clone()], move |head| {
            [false, true].into_iter().any(|urgent| {
                let header = sealed(Header { urgent, packed: false, ..header }, head);
                header.is_some_and(|header| {
                    decode(&header, head, b"").is_ok_and(|message| {
                        std::hint::black_box(message.to_string());
                        true
                    })
                })
            })
        }));
    }
    Ok(all)
}

/// The header with lengths and checksum that fit.
fn sealed(header: Header, head: &[u8]) -> Option<Header> {
    let head_len = u32::try_from(head.len()).ok().filter(|&length| length <= HEAD_BYTES_MAX)?;
    Some(Header { head_len, body_len: 0, unpacked_len: 0, checksum: checksum(head, &[]), ..header })
}

fn around_frames() -> Vec<Target> {
    let floats: Vec<u8> = (0..4096u32).flat_map(|i| (i as f32 * 0.1).sin().to_le_bytes()).collect();
    // The declared length lies in front, as in a header.
    let with_length = |packed: Vec<u8>| [&(floats.len() as u32).to_le_bytes()[..], &packed].concat();
    let packed = pack(&floats).map(with_length);
    let key = NodeId([0xab; 32]);
    let invitations = [format!("iota://[::1]:4433/{key}/00ff"), format!("iota://a.example:1/{key}/")];
    let token = Terms { role: None, expires_s: Some(1 << 33) }.token(&[1; 32], &Digest([2; 32]));
    vec![
        target("packed body", packed, |bytes| {
            let Some((length, packed)) = bytes.split_first_chunk() else { return false };
            unpack(packed, u32::from_le_bytes(*length).min(UNPACKED_BYTES_MAX)).is_ok()
        }),
        target("invitation", invitations.map(String::into_bytes), |bytes| {
            String::from_utf8_lossy(bytes).parse::<Invitation>().is_ok()
        }),
        target("token", [token], |bytes| Terms::read(&[1; 32], &Digest([2; 32]), bytes).is_some()),
    ]
}

fn run() -> Result<Run> {
    Run::from_toml(RUN).context("the tiny run")
}

fn tensors() -> Result<Vec<Target>> {
    let run = run()?;
    let mut all = vec![];
    for codec in [BoundaryCodec::F32, BoundaryCodec::Bf16, BoundaryCodec::Int8] {
        let expected = Expected { codec, kind: Kind::Activation, rows: 3, cols: 200 };
        let values = (0..600).map(|i| (i as f32 * 0.1).sin()).collect();
        let block = payload::encode(&expected, &Tensor::new(&[3, 200], values))?;
        let block = block.context("a payload of sines is not finite")?;
        all.push(target(format!("payload {codec:?}"), [block], move |bytes| {
            payload::decode(&expected, bytes, &engine::Device::Cpu).is_ok()
        }));
    }
    let state = StageState::initial(&run, 0)?;
    let (weights, whole) = (state.weights_bytes()?, state.state_bytes()?);
    let of_weights = run.clone();
    all.push(target("weights", [weights], move |bytes| {
        StageState::from_weights(&of_weights, 0, bytes).is_ok()
    }));
    all.push(target("state", [whole], move |bytes| StageState::from_state(&run, 0, bytes).is_ok()));
    let tokens: Vec<u32> = (0..300).map(|token| token % 251).collect();
    let shards = [shard_bytes(&tokens, Width::One)?, shard_bytes(&tokens, Width::Two)?];
    all.push(target("token shard", shards, |bytes| TokenShard::from_bytes(bytes.to_vec()).is_ok()));
    Ok(all)
}

fn merges() -> Result<Vec<Target>> {
    const BITS: u8 = 4;
    const COUNT: usize = 3000;
    let blocks = COUNT.div_ceil(128);
    let codes: Vec<i16> = (0..COUNT).map(|i| (i % 15) as i16 - 7).collect();
    let contribution = Contribution { bits: BITS, weight: 9, exponents: vec![-3; blocks], codes };
    let scales = Scales { bits: BITS, weight: 9, exponents: vec![-3; blocks] };
    let whole = contribution.to_bytes();
    let committed = Committed::new(contribution, NodeId([5; 32]));
    let piece = committed.piece(&(1..2)).context("a piece of the middle")?;
    let sum = Sum::of(BITS, COUNT, &[Piece::from_bytes(BITS, COUNT, &piece)?])?;
    Ok(vec![
        target("contribution", [whole], |bytes| Contribution::from_bytes(BITS, COUNT, bytes).is_ok()),
        target("scales", [scales.to_bytes(COUNT)], |bytes| Scales::from_bytes(BITS, COUNT, bytes).is_ok()),
        target("piece", [piece], |bytes| Piece::from_bytes(BITS, COUNT, bytes).is_ok()),
        target("sum", [sum.to_bytes()], |bytes| Sum::from_bytes(BITS, COUNT, bytes).is_ok()),
    ])
}

fn files(frames: &[Frame]) -> Result<Vec<Target>> {
    let of = |name: &str| -> Result<Message> {
        let frame = frames.iter().find(|frame| frame.name.ends_with(name));
        let frame = frame.with_context(|| format!("no golden frame {name}"))?;
        let header = Header::decode(&frame.header)?;
        let sealed = sealed(Header { packed: false, ..header }, &frame.head).context("a head too long")?;
        Ok(decode(&sealed, &frame.head, b"")?)
    };
    let (Message::Audit(order), Message::Open(manifest)) = (of(" Audit")?, of(" Open")?) else {
        return Err(anyhow!("golden frames of other kinds"));
    };
    let (run, key) = (run()?, Key::from_seed([7; 32]));
    let manifest = Signed::new(Manifest { run: run.id(), ..manifest.body }, &key);
    let verdict = Verdict {
        run: run.id(),
        miner: order.miner,
        window: order.window,
        start: order.start.digest(),
        finding: Finding::Equal { operations: 5 },
    };
    let verdict = Signed::new(verdict, &key);
    let case = wire::to_bytes(&Evidence { run: wire::to_bytes(&run), manifest, order, verdict });
    let evidence = evidence::pack(&case, &[] as &[Vec<u8>]).map_err(|error| anyhow!("{error}"))?;
    let expected = evidence::Expected::default();
    let sections = tile::sections()?;
    let mut ledger = Ledger::header().to_vec();
    let entry =
        Ledger::default().next(&key, (run.id(), 0, Digest([3; 32])), Rule::default(), vec![], vec![])?;
    ledger.extend(Ledger::record(&entry));
    let pointer = format!("12 {}", Digest([4; 32]));
    Ok(vec![
        target("evidence", [evidence], move |bytes| {
            evidence::merge::verify(bytes, &expected).is_ok() || evidence::unpack(bytes).is_ok()
        }),
        target("evidence of a tile", [tile::file(&sections)], move |bytes| {
            evidence::tile::verify(bytes, &expected).is_ok()
        }),
        // Behind a table that fits.
        target("sections of a tile", [postcard::to_allocvec(&sections)?], move |bytes| {
            let sections = postcard::from_bytes::<Vec<Vec<u8>>>(bytes);
            sections.is_ok_and(|sections| evidence::tile::verify(&tile::file(&sections), &expected).is_ok())
        }),
        target("trace", [tile::trace()], |bytes| evidence::tile::read_trace(bytes).is_ok()),
        target("ledger", [ledger], |bytes| Ledger::read(bytes).is_ok_and(|(_, whole)| whole > 4)),
        target("pointer", [pointer.into_bytes()], |bytes| {
            orchestrator::parse_pointer(&String::from_utf8_lossy(bytes)).is_some()
        }),
        target("run.toml", [RUN.as_bytes().to_vec()], |bytes| {
            Run::from_toml(&String::from_utf8_lossy(bytes)).is_ok()
        }),
    ])
}
