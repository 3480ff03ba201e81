//! Types, their edge values, and the cases an opcode is tried on.

/// A type as an opcode's suffix names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    Pred,
    /// Width in bytes.
    U(u32),
    S(u32),
    F(u32),
    /// bfloat16.
    Brain,
    /// A shift amount, position or length: 32 bits, small values of interest.
    Amount,
}

/// What an opcode takes and gives.
pub struct Sig {
    pub sources: Vec<Ty>,
    pub dst: Ty,
}

impl Ty {
    /// From a suffix; bits count as unsigned.
    pub fn parse(suffix: &str) -> Option<Self> {
        if suffix == "pred" {
            return Some(Self::Pred);
        }
        let (letter, bits) = suffix.split_at_checked(1)?;
        let bytes = match bits {
            "8" => 1,
            "16" => 2,
            "32" => 4,
            "64" => 8,
            _ => return None,
        };
        match letter {
            "u" | "b" => Some(Self::U(bytes)),
            "s" => Some(Self::S(bytes)),
            "f" if bytes >= 4 => Some(Self::F(bytes)),
            _ => None,
        }
    }

    pub fn bytes(self) -> u32 {
        match self {
            Self::Pred => 0,
            Self::U(n) | Self::S(n) | Self::F(n) => n,
            Self::Brain => 2,
            Self::Amount => 4,
        }
    }

    pub fn width(self) -> u32 {
        8 * self.bytes()
    }

    pub fn mask(self) -> u64 {
        match self.bytes() {
            0 => 1,
            8 => u64::MAX,
            n => (1 << (8 * n)) - 1,
        }
    }

    /// Whether bits are a binary64 that is not a number; of those only the fact is compared.
    pub fn is_nan(self, bits: u64) -> bool {
        self == Self::F(8) && f64::from_bits(bits).is_nan()
    }

    /// The integer value of bits.
    pub fn value(self, bits: u64) -> i128 {
        let bits = bits & self.mask();
        match self {
            Self::S(n) if bits >> (8 * n - 1) != 0 => i128::from(bits) - (1i128 << (8 * n)),
            _ => i128::from(bits),
        }
    }

    fn edges(self) -> Vec<u64> {
        match self {
            Self::Pred => vec![0, 1],
            Self::Amount => {
                vec![0, 1, 5, 15, 16, 31, 32, 33, 63, 64, 100, 255, 256 + 7, 0x8000_0000, u32::MAX.into()]
            }
            Self::U(n) | Self::S(n) => {
                let top = 1u64 << (8 * n - 1);
                let some = [
                    0,
                    1,
                    2,
                    3,
                    7,
                    10,
                    100,
                    0x5a,
                    0x1234_5678_9abc_def0,
                    0xfedc_ba98_7654_3210,
                    0x00ff_00ff_00ff_00ff,
                ];
                // Edges of binary16 and bfloat16: largest, least normal, infinities, not a number, 1 and its neighbours.
                let halves = [
                    0x7bff_3c00,
                    0x0400_03ff,
                    0x7c00_fc00,
                    0x7e00_3c01,
                    0x3bff_c000,
                    0x7f7f_3f80,
                    0x0080_007f,
                    0x7f80_ff80,
                    0x7fc0_3f81,
                    0xbf80_4049,
                ];
                let near =
                    [top, top - 1, top + 1, u64::MAX, u64::MAX - 1, u64::MAX - 6, top >> 1, 0x80, 0x8000];
                some.iter()
                    .chain(&near)
                    .chain(&halves)
                    .flat_map(|bits| [*bits, bits >> 16])
                    .map(|bits| bits & self.mask())
                    .collect()
            }
            Self::F(4) => SINGLES.iter().map(|&bits| u64::from(bits)).collect(),
            Self::F(_) => {
                let singles = SINGLES.iter().map(|&bits| f64::from(f32::from_bits(bits)).to_bits());
                singles.chain(DOUBLES.iter().copied()).collect()
            }
            Self::Brain => SINGLES.iter().map(|&bits| u64::from(bits >> 16)).collect(),
        }
    }
}

/// Zeros, subnormals, the ends of the range, halves around integers, ends of integer types, infinities, not a
/// number, and some of no distinction.
const SINGLES: &[u32] = &[
    0x0000_0000,
    0x8000_0000,
    0x0000_0001,
    0x8000_0001,
    0x0000_0003,
    0x007f_ffff,
    0x807f_ffff,
    0x0080_0000,
    0x0080_0001,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc1_2345,
    0x7f80_0001,
    0x3f80_0000,
    0xbf80_0000,
    0x3f80_0001,
    0x3f7f_ffff,
    0x3f00_0000,
    0xbf00_0000,
    0x3fc0_0000,
    0x4020_0000,
    0xc020_0000,
    0x3eff_ffff,
    0x4b00_0001,
    0x4afe_ffff,
    0x4f00_0000,
    0xcf00_0000,
    0x4eff_ffff,
    0x4f80_0000,
    0x5f00_0000,
    0xdf00_0000,
    0x5eff_ffff,
    0x5f80_0000,
    0x437f_0000,
    0x4300_0000,
    0xc301_0000,
    0x4049_0fdb,
    0x0d80_0000,
    0x7149_f2ca,
    0x3f80_8000,
    0x3f81_8000,
    0x3f80_8001,
    0x2b80_0000,
    0x6a80_0000,
];

const DOUBLES: &[u64] = &[
    0x0000_0000_0000_0001,
    0x000f_ffff_ffff_ffff,
    0x7fef_ffff_ffff_ffff,
    0xffef_ffff_ffff_ffff,
    0x3ff0_0000_0000_0001,
    0x3ff0_0000_1000_0000,
    0x3ff0_0000_1000_0001,
    0x3ff0_0000_3000_0000,
    0x47ef_ffff_f000_0000,
    0x47ef_ffff_efff_ffff,
    0x369f_ffff_ffff_ffff,
    0x3690_0000_0000_0001,
    0x41df_ffff_ffc0_0000,
    0xc1e0_0000_0020_0000,
    0x433f_ffff_ffff_ffff,
    0x43df_ffff_ffff_ffff,
];

/// All combinations of edges, thinned evenly beyond what is useful.
pub fn cases(name: &str, sources: &[Ty]) -> Vec<Vec<u64>> {
    let mut edges: Vec<Vec<u64>> = sources.iter().map(|ty| ty.edges()).collect();
    if name == "lop3.b32" {
        edges[3] = (0..256).step_by(5).collect();
        edges.iter_mut().take(3).for_each(|values| values.truncate(10));
    }
    if name == "prmt.b32" {
        edges[2] = vec![0x3210, 0x7654, 0x0123, 0xfedc, 0xba98, 0x8888, 0x4f1a, 0xffff_0000 + 0x5555];
    }
    let total: usize = edges.iter().map(Vec::len).product();
    let step = (total / 120_000).max(1) | 1;
    let one = |mut index: usize| {
        let mut case = Vec::new();
        for values in &edges {
            case.push(values[index % values.len()]);
            index /= values.len();
        }
        case
    };
    (0..total).step_by(step).map(one).collect()
}
