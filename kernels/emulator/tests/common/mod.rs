//! The plain loops the kernels of `kernels.cu` are held against.

pub mod values;

/// The row reduction of the contract: 128 accumulators, then a tree.
pub fn row_dot(x: &[f32], y: &[f32]) -> f32 {
    let mut a = [0f32; 128];
    for i in 0..x.len() {
        a[i % 128] = x[i].mul_add(y[i], a[i % 128]);
    }
    let mut q: Vec<f32> = a.chunks(4).map(|c| (c[0] + c[1]) + (c[2] + c[3])).collect();
    for half in [16, 8, 4, 2, 1] {
        for l in 0..half {
            q[l] += q[l + half];
        }
    }
    q[0]
}

fn rsqrt(x: &[f32], inv_d: f32, eps: f32) -> f32 {
    1.0 / (row_dot(x, x) * inv_d + eps).sqrt()
}

pub fn rms_norm(x: &[f32], w: &[f32], inv_d: f32, eps: f32) -> Vec<f32> {
    let one = |row: &[f32]| {
        let r = rsqrt(row, inv_d, eps);
        row.iter().zip(w).map(|(x, w)| (x * r) * w).collect::<Vec<_>>()
    };
    x.chunks(w.len()).flat_map(one).collect()
}

pub fn rms_norm_backward(x: &[f32], w: &[f32], dy: &[f32], inv_d: f32, eps: f32) -> Vec<f32> {
    let one = |(x, dy): (&[f32], &[f32])| {
        let r = rsqrt(x, inv_d, eps);
        let g: Vec<f32> = dy.iter().zip(w).map(|(dy, w)| dy * w).collect();
        let k = ((row_dot(&g, x) * r) * r) * r * inv_d;
        x.iter().zip(&g).map(|(x, g)| (-k).mul_add(*x, r * g)).collect::<Vec<_>>()
    };
    x.chunks(w.len()).zip(dy.chunks(w.len())).flat_map(one).collect()
}

/// Constants of one step: b1, b2, 1-b1, 1-b2, c1, c2, eps, lr, 1-lr*wd.
pub const ADAMW: [f32; 9] = [0.9, 0.95, 0.1, 0.05, 1.9, 3.1, 1e-8, 3e-4, 0.99997];

pub fn adamw(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    let [b1, b2, b1c, b2c, c1, c2, eps, lr, decay] = ADAMW;
    for i in 0..g.len() {
        m[i] = b1c.mul_add(g[i], b1 * m[i]);
        v[i] = (b2c * g[i]).mul_add(g[i], b2 * v[i]);
        let u = (m[i] * c1) / ((v[i] * c2).sqrt() + eps);
        p[i] = (-lr).mul_add(u, p[i] * decay);
    }
}

/// Shape and strides of a product: M, N, K, then the strides of A by m and k and of B by k and n.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: [usize; 2],
    pub b: [usize; 2],
}

/// NN, NT and TN of one shape.
pub fn products(m: usize, n: usize, k: usize) -> [Product; 3] {
    let nn = Product { m, n, k, a: [k, 1], b: [n, 1] };
    [nn, Product { b: [1, k], ..nn }, Product { a: [1, m], ..nn }]
}

pub fn sgemm(p: Product, a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut c = vec![0f32; p.m * p.n];
    for m in 0..p.m {
        for n in 0..p.n {
            let mut acc = 0f32;
            for k in 0..p.k {
                acc = a[m * p.a[0] + k * p.a[1]].mul_add(b[k * p.b[0] + n * p.b[1]], acc);
            }
            c[m * p.n + n] = acc;
        }
    }
    c
}

/// Fails with the first place where two results differ in a bit.
pub fn same_bits(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert_eq!(f.to_bits(), e.to_bits(), "{what}: element {i} is {f:e}, expected {e:e}");
    }
}
