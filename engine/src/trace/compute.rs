//! One tile of an op's output, computed alone by the same kernels. Every element's order is fixed by
//! `kernels/ARITHMETIC.md` and does not depend on what is computed beside it.

use super::desk::Desk;
use super::program::Kind;
use super::record::block_sums;
use super::tile::Tile;
use crate::model::scaling;
use crate::payload::{self, HEADER_LEN};
use kernels::attention::{self, Shape};
use kernels::{adamw, codec, cross_entropy, embedding, matmul, reduce, residual, rms_norm, rope, swiglu};
use std::ops::Range;

/// The bytes of a tile of output `output`; `None` if they cannot be told, or not before its tokens are known.
pub fn tile(desk: &mut Desk<'_>, output: usize, tile: &Tile) -> Option<Vec<u8>> {
    let (rows, cols) = (tile.rows.clone(), tile.cols.clone());
    let floats = match desk.op.kind.clone() {
        Kind::Encode(expected) => return encode(desk, &expected, tile),
        Kind::State { header } => return Some(state(desk, &header, rows)),
        Kind::Mean => {
            let mean = cross_entropy::mean_q32(&desk.all(0)).unwrap_or(i64::MIN);
            return Some(mean.to_le_bytes().to_vec());
        }
        Kind::GlobalNorm => {
            let sum = |sums: Vec<f32>| sums.iter().fold(0.0, |total, sum| total + f64::from(*sum));
            let sums: Vec<f64> = (0..desk.op.inputs.len()).map(|tensor| sum(desk.all(tensor))).collect();
            return Some(reduce::global_norm(sums).to_le_bytes().to_vec());
        }
        Kind::Decode(expected) => decode(desk, &expected, rows)?,
        Kind::Embedding { dim, .. } => {
            let tokens = desk.tokens(rows, false)?;
            tokens
                .iter()
                .flat_map(|&token| desk.matrix(0, dim, token as usize..token as usize + 1, 0..dim))
                .collect()
        }
        Kind::EmbeddingBack { dim, .. } => embedding_back(desk, dim, rows, cols)?,
        Kind::Norm { dim, eps } => {
            let (x, w) = (desk.matrix(0, dim, rows.clone(), 0..dim), desk.all(1));
            let (mut y, mut r) = (vec![0.0; x.len()], vec![0.0; rows.len()]);
            rms_norm::forward(
                &rms_norm::Forward { rows: rows.len(), dim, eps, x: &x, w: &w },
                &mut y,
                &mut r,
            );
            [y, r].into_iter().nth(output)?
        }
        Kind::NormBack { dim, adds } if output == 0 => norm_back(desk, dim, adds, rows),
        Kind::NormBack { dim, .. } => norm_back_weight(desk, dim, cols),
        Kind::ProductNt { n, k, adds } => {
            let (a, b) = (desk.matrix(0, k, rows.clone(), 0..k), desk.matrix(1, k, cols.clone(), 0..k));
            let args = matmul::Matmul { m: rows.len(), n: cols.len(), k, a: &a, b: &b };
            let mut c = vec![0.0; args.m * args.n];
            match adds {
                true => matmul::nt_add(&args, &desk.matrix(2, n, rows, cols), &mut c),
                false => matmul::nt(&args, &mut c),
            }
            c
        }
        Kind::ProductNn { n, k, adds } => {
            let (a, b) = (desk.matrix(0, k, rows.clone(), 0..k), desk.matrix(1, n, 0..k, cols.clone()));
            let args = matmul::Matmul { m: rows.len(), n: cols.len(), k, a: &a, b: &b };
            let mut c = if adds { desk.matrix(2, n, rows, cols) } else { vec![0.0; args.m * args.n] };
            if adds {
                matmul::nn_add(&args, &mut c)
            } else {
                matmul::nn(&args, &mut c)
            }
            c
        }
        Kind::ProductTn { m, n, k } => {
            let (a, b) = (desk.matrix(0, m, 0..k, rows.clone()), desk.matrix(1, n, 0..k, cols.clone()));
            let mut c = desk.matrix(2, n, rows.clone(), cols.clone());
            matmul::tn(&matmul::Matmul { m: rows.len(), n: cols.len(), k, a: &a, b: &b }, &mut c);
            c
        }
        Kind::Rope { seq, heads, head_dim, back } => {
            let x = desk.matrix(0, heads * head_dim, rows.clone(), 0..heads * head_dim);
            let model = &desk.window.run.model;
            let tables = rope::tables(seq, head_dim, model.rope_theta, scaling(model).as_ref());
            let first = rows.start % seq * (head_dim / 2);
            let (cos, sin) = (&tables.cos[first..], &tables.sin[first..]);
            let args = rope::Rope { rows: rows.len(), seq: rows.len(), heads, head_dim, cos, sin, x: &x };
            let mut y = vec![0.0; x.len()];
            if back {
                rope::backward(&args, &mut y)
            } else {
                rope::forward(&args, &mut y)
            }
            y
        }
        Kind::Attention(shape) => attention(desk, &shape, output, tile),
        Kind::AttentionBack(shape) if output == 0 => query_gradient(desk, &shape, tile),
        Kind::AttentionBack(shape) => key_gradient(desk, &shape, output, tile),
        Kind::SwiGlu => {
            let (g, u) = (desk.floats(0, rows.clone()), desk.floats(1, rows));
            let mut h = vec![0.0; g.len()];
            swiglu::forward(&swiglu::Forward { g: &g, u: &u }, &mut h);
            h
        }
        Kind::SwiGluBack => {
            let [g, u, dh] = [0, 1, 2].map(|input| desk.floats(input, rows.clone()));
            let (mut dg, mut du) = (vec![0.0; g.len()], vec![0.0; g.len()]);
            swiglu::backward(&swiglu::Backward { g: &g, u: &u, dh: &dh }, &mut dg, &mut du);
            [dg, du].into_iter().nth(output)?
        }
        Kind::Loss { vocab, weight } => {
            let logits = desk.matrix(0, vocab, rows.clone(), 0..vocab);
            let targets = desk.tokens(rows.clone(), true)?;
            let args = cross_entropy::Forward {
                rows: rows.len(),
                vocab,
                logits: &logits,
                targets: &targets,
                weight,
            };
            let (mut loss, mut gradient) = (vec![0.0; rows.len()], vec![0.0; logits.len()]);
            cross_entropy::forward(&args, &mut loss, &mut gradient);
            [loss, gradient].into_iter().nth(output)?
        }
        Kind::Accumulate => {
            let (mut sum, x) = (desk.floats(0, rows.clone()), desk.floats(1, rows));
            residual::accumulate(&mut sum, &x);
            sum
        }
        Kind::Scale { factor } => {
            let mut values = desk.floats(0, rows);
            reduce::scale(&mut values, factor);
            values
        }
        Kind::Squares => {
            let bytes: u64 = desk.op.inputs.first()?.iter().map(|piece| piece.bytes).sum();
            let values = rows.start * reduce::BLOCK..(rows.end * reduce::BLOCK).min(bytes as usize / 4);
            block_sums(&desk.floats(0, values))
        }
        Kind::AdamW(constants) => moved(desk, constants, rows)?.into_iter().nth(output)?,
    };
    Some(bytemuck::cast_slice(&floats).to_vec())
}

fn encode(desk: &mut Desk<'_>, expected: &payload::Expected, tile: &Tile) -> Option<Vec<u8>> {
    let (format, cols) = (payload::format(expected.codec), expected.cols as usize);
    let mut bytes = if tile.head { expected.header().to_vec() } else { Vec::new() };
    let values = desk.matrix(0, cols, tile.rows.clone(), 0..cols);
    let mut row = vec![0; format.encoded_len(cols)];
    for values in values.chunks_exact(cols) {
        // What has no encoding was no output.
        codec::encode(format, values, &mut row).ok()?;
        bytes.extend_from_slice(&row);
    }
    Some(bytes)
}

fn decode(desk: &mut Desk<'_>, expected: &payload::Expected, rows: Range<usize>) -> Option<Vec<f32>> {
    let (format, cols) = (payload::format(expected.codec), expected.cols as usize);
    let len = format.encoded_len(cols) as u64;
    let place = |row: usize| HEADER_LEN as u64 + row as u64 * len;
    let bytes = desk.bytes(0, place(rows.start)..place(rows.end));
    let mut values = vec![0.0; rows.len() * cols];
    for (encoded, values) in bytes.chunks_exact(len as usize).zip(values.chunks_exact_mut(cols)) {
        codec::decode(format, encoded, values).ok()?;
    }
    Some(values)
}

/// A range of bytes of a state file: its head, then weights, moments, and what was there before.
fn state(desk: &mut Desk<'_>, header: &[u8], range: Range<usize>) -> Vec<u8> {
    let mut bytes =
        header.get(range.start.min(header.len())..range.end.min(header.len())).unwrap_or_default().to_vec();
    let mut first = header.len();
    for input in 0..desk.op.inputs.len() {
        let len: usize = desk.op.inputs[input].iter().map(|piece| piece.bytes as usize).sum();
        let (from, to) = (range.start.max(first), range.end.min(first + len));
        if from < to {
            bytes.extend(desk.bytes(input, (from - first) as u64..(to - first) as u64));
        }
        first += len;
    }
    bytes
}

/// Inputs: gradient of the rows, the table's gradient before.
fn embedding_back(
    desk: &mut Desk<'_>,
    dim: usize,
    rows: Range<usize>,
    cols: Range<usize>,
) -> Option<Vec<f32>> {
    let mut table = desk.matrix(1, dim, rows.clone(), cols.clone());
    let all = desk.tokens(0..desk.window.run.microbatch_tokens() as usize, false)?;
    let (mut tokens, mut dy) = (Vec::new(), Vec::new());
    for (row, token) in all.into_iter().enumerate().filter(|(_, token)| rows.contains(&(*token as usize))) {
        tokens.push(token - rows.start as u32);
        dy.extend(desk.matrix(0, dim, row..row + 1, cols.clone()));
    }
    let args = embedding::Backward { vocab: rows.len(), dim: cols.len(), tokens: &tokens, dy: &dy };
    embedding::backward(&args, &mut table);
    Some(table)
}

/// Inputs: x, weight, reciprocal roots, gradient, the weight's gradient before, the input's before if it adds.
fn norm_back(desk: &mut Desk<'_>, dim: usize, adds: bool, rows: Range<usize>) -> Vec<f32> {
    let [x, dy] = [0, 3].map(|input| desk.matrix(input, dim, rows.clone(), 0..dim));
    let (w, r) = (desk.all(1), desk.floats(2, rows.clone()));
    let args = rms_norm::Backward { rows: rows.len(), dim, x: &x, w: &w, r: &r, dy: &dy };
    let mut dx = if adds { desk.matrix(5, dim, rows, 0..dim) } else { vec![0.0; x.len()] };
    let backward = if adds { rms_norm::backward_add } else { rms_norm::backward };
    backward(&args, &mut dx, &mut vec![0.0; dim]);
    dx
}

/// Columns are independent of each other, whatever the weight is.
fn norm_back_weight(desk: &mut Desk<'_>, dim: usize, cols: Range<usize>) -> Vec<f32> {
    let r = desk.all(2);
    let [x, dy] = [0, 3].map(|input| desk.matrix(input, dim, 0..r.len(), cols.clone()));
    let w = vec![0.0; cols.len()];
    let args = rms_norm::Backward { rows: r.len(), dim: cols.len(), x: &x, w: &w, r: &r, dy: &dy };
    let mut dw = desk.floats(4, cols);
    rms_norm::backward(&args, &mut vec![0.0; x.len()], &mut dw);
    dw
}

/// One head of one sequence up to the tile's last query. Rows before the tile are left zero: a query stands for itself.
fn attention(desk: &mut Desk<'_>, shape: &Shape, output: usize, tile: &Tile) -> Vec<f32> {
    let Shape { seq, heads, kv_heads, head_dim, .. } = *shape;
    let (sequence, head) = match output {
        0 => (tile.rows.start / seq, tile.cols.start / head_dim),
        _ => (tile.rows.start / seq / heads, tile.rows.start / seq % heads),
    };
    let (first, end) = (tile.rows.start % seq, tile.rows.start % seq + tile.rows.len());
    let part = |head: usize| head * head_dim..(head + 1) * head_dim;
    let kv = part(head / (heads / kv_heads));
    let rows = |range: Range<usize>| sequence * seq + range.start..sequence * seq + range.end;
    let q = after_zeros(first * head_dim, desk.matrix(0, heads * head_dim, rows(first..end), part(head)));
    let [k, v] = [1, 2].map(|input| desk.matrix(input, kv_heads * head_dim, rows(0..end), kv.clone()));
    let one = Shape { batch: 1, seq: end, heads: 1, kv_heads: 1, head_dim };
    let (mut o, mut m, mut l) = (vec![0.0; q.len()], vec![0.0; end], vec![0.0; end]);
    attention::forward(&attention::Forward { shape: one, q: &q, k: &k, v: &v }, &mut o, &mut m, &mut l);
    match output {
        0 => o.split_off(first * head_dim),
        1 => m.split_off(first),
        _ => l.split_off(first),
    }
}

/// As [`attention`]. Inputs: q, k, v, o, m, l, gradient of o.
fn query_gradient(desk: &mut Desk<'_>, shape: &Shape, tile: &Tile) -> Vec<f32> {
    let Shape { seq, heads, kv_heads, head_dim, .. } = *shape;
    let (sequence, head) = (tile.rows.start / seq, tile.cols.start / head_dim);
    let (first, end) = (tile.rows.start % seq, tile.rows.start % seq + tile.rows.len());
    let group = head / (heads / kv_heads);
    let keys = sequence * seq..sequence * seq + end;
    let [q, o, dout] = [0, 3, 6].map(|input| {
        after_zeros(
            first * head_dim,
            desk.matrix(input, heads * head_dim, tile.rows.clone(), tile.cols.clone()),
        )
    });
    let [k, v] = [1, 2].map(|input| {
        desk.matrix(input, kv_heads * head_dim, keys.clone(), group * head_dim..(group + 1) * head_dim)
    });
    let stats = (sequence * heads + head) * seq;
    let [m, l] = [4, 5].map(|input| after_zeros(first, desk.floats(input, stats + first..stats + end)));
    let one = Shape { batch: 1, seq: end, heads: 1, kv_heads: 1, head_dim };
    let args = attention::Backward { shape: one, q: &q, k: &k, v: &v, o: &o, m: &m, l: &l, dout: &dout };
    let [mut dq, mut dk, mut dv] = [q.len(), k.len(), v.len()].map(|len| vec![0.0; len]);
    attention::backward(&args, &mut dq, &mut dk, &mut dv);
    dq.split_off(first * head_dim)
}

/// The queries of all heads of the group from the tile's first key on; keys after the tile are left zero: a key stands for
/// itself, and where a sequence begins makes no difference to those that see each other.
fn key_gradient(desk: &mut Desk<'_>, shape: &Shape, output: usize, tile: &Tile) -> Vec<f32> {
    let Shape { seq, heads, kv_heads, head_dim, .. } = *shape;
    let (sequence, group) = (tile.rows.start / seq, tile.cols.start / head_dim);
    let (first, size) = (tile.rows.start % seq, heads / kv_heads);
    let (left, wide) = (seq - first, size * head_dim);
    let queries = sequence * seq + first..(sequence + 1) * seq;
    let [q, o, dout] = [0, 3, 6]
        .map(|input| desk.matrix(input, heads * head_dim, queries.clone(), group * wide..(group + 1) * wide));
    let [k, v] = [1, 2].map(|input| {
        let mut part = desk.matrix(input, kv_heads * head_dim, tile.rows.clone(), tile.cols.clone());
        part.resize(left * head_dim, 0.0);
        part
    });
    let [m, l] = [4, 5].map(|input| {
        let head = |head: usize| (sequence * heads + group * size + head) * seq;
        (0..size).flat_map(|of| desk.floats(input, head(of) + first..head(of) + seq)).collect::<Vec<f32>>()
    });
    let one = Shape { batch: 1, seq: left, heads: size, kv_heads: 1, head_dim };
    let args = attention::Backward { shape: one, q: &q, k: &k, v: &v, o: &o, m: &m, l: &l, dout: &dout };
    let [mut dq, mut dk, mut dv] = [q.len(), k.len(), v.len()].map(|len| vec![0.0; len]);
    attention::backward(&args, &mut dq, &mut dk, &mut dv);
    let mut gradient = if output == 1 { dk } else { dv };
    gradient.truncate(tile.rows.len() * head_dim);
    gradient
}

fn after_zeros(zeros: usize, values: Vec<f32>) -> Vec<f32> {
    let mut all = vec![0.0; zeros];
    all.extend(values);
    all
}

/// Inputs: gradient, weights, both moments, the norm.
fn moved(desk: &mut Desk<'_>, constants: adamw::Constants, rows: Range<usize>) -> Option<[Vec<f32>; 3]> {
    let [g, mut p, mut m, mut v] = [0, 1, 2, 3].map(|input| desk.floats(input, rows.clone()));
    let norm = f64::from_le_bytes(desk.bytes(4, 0..8).try_into().ok()?);
    let (run, stage) = (desk.window.run, desk.window.stage);
    let clip = reduce::stage_clip(run.inner.clip, run.model.stage_parameters(stage), run.model.parameters());
    let grad_scale = reduce::clip_scale(norm, clip)?;
    let args = adamw::Step { constants: adamw::Constants { grad_scale, ..constants }, g: &g };
    adamw::step(&args, &mut p, &mut m, &mut v);
    Some([p, m, v])
}
