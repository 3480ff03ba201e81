//! Named arrays: what goes into an op and what comes out, in a form every device can copy.

/// The elements of a buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// f32.
    F32(Vec<f32>),
    /// f64.
    F64(Vec<f64>),
    /// u32.
    U32(Vec<u32>),
    /// i64.
    I64(Vec<i64>),
    /// i16.
    I16(Vec<i16>),
    /// i8.
    I8(Vec<i8>),
    /// Bytes.
    U8(Vec<u8>),
}

/// Runs `$body` with `$v` the vector of whatever type.
macro_rules! each_data {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            Data::F32($v) => $body,
            Data::F64($v) => $body,
            Data::U32($v) => $body,
            Data::I64($v) => $body,
            Data::I16($v) => $body,
            Data::I8($v) => $body,
            Data::U8($v) => $body,
        }
    };
}

impl Data {
    /// Elements.
    pub fn len(&self) -> usize {
        each_data!(self, v => v.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements' bytes in this machine's order.
    pub fn bytes(&self) -> &[u8] {
        each_data!(self, v => bytemuck::cast_slice(v))
    }

    /// The same, to be written by a device.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        each_data!(self, v => bytemuck::cast_slice_mut(v))
    }

    /// The name of the element's type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::U32(_) => "u32",
            Self::I64(_) => "i64",
            Self::I16(_) => "i16",
            Self::I8(_) => "i8",
            Self::U8(_) => "u8",
        }
    }

    fn slice(&self, first: usize, count: usize) -> Self {
        match self {
            Self::F32(v) => Self::F32(v[first..first + count].to_vec()),
            Self::F64(v) => Self::F64(v[first..first + count].to_vec()),
            Self::U32(v) => Self::U32(v[first..first + count].to_vec()),
            Self::I64(v) => Self::I64(v[first..first + count].to_vec()),
            Self::I16(v) => Self::I16(v[first..first + count].to_vec()),
            Self::I8(v) => Self::I8(v[first..first + count].to_vec()),
            Self::U8(v) => Self::U8(v[first..first + count].to_vec()),
        }
    }
}

/// A named array.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// Name, as in the op's `Args`.
    pub name: &'static str,
    /// Sizes, slowest axis first.
    pub shape: Vec<usize>,
    /// Elements. Without guards exactly the product of `shape`.
    pub data: Data,
    /// Elements of the guard zone on either side of the content.
    guard: usize,
}

/// Bytes of a guard zone: no op writes this by chance.
const SENTINEL: u8 = 0xA5;
/// Elements of a guard zone.
const GUARD: usize = 67;

impl Buffer {
    /// A buffer.
    ///
    /// # Panics
    /// If `data` does not fill `shape`.
    #[track_caller]
    pub fn new(name: &'static str, shape: &[usize], data: Data) -> Self {
        crate::common::shape::expect_len("catalogue", name, data.len(), shape.iter().product());
        Self { name, shape: shape.to_vec(), data, guard: 0 }
    }

    /// The same content between guard zones.
    #[must_use]
    pub fn guarded(&self) -> Self {
        fn between<T: bytemuck::Pod>(v: &[T]) -> Vec<T> {
            let mut zone = vec![T::zeroed(); GUARD];
            bytemuck::cast_slice_mut::<T, u8>(&mut zone).fill(SENTINEL);
            [&zone, v, &zone].concat()
        }
        let data = match &self.data {
            Data::F32(v) => Data::F32(between(v)),
            Data::F64(v) => Data::F64(between(v)),
            Data::U32(v) => Data::U32(between(v)),
            Data::I64(v) => Data::I64(between(v)),
            Data::I16(v) => Data::I16(between(v)),
            Data::I8(v) => Data::I8(between(v)),
            Data::U8(v) => Data::U8(between(v)),
        };
        Self { data, guard: GUARD, ..self.clone() }
    }

    /// Whether the guard zones are as they were.
    pub fn guards_intact(&self) -> bool {
        let bytes = self.data.bytes();
        let zone = if self.data.is_empty() { 0 } else { bytes.len() / self.data.len() * self.guard };
        bytes[..zone].iter().chain(&bytes[bytes.len() - zone..]).all(|b| *b == SENTINEL)
    }

    /// Without the guard zones.
    #[must_use]
    pub fn unguarded(&self) -> Self {
        let data = self.data.slice(self.guard, self.data.len() - 2 * self.guard);
        Self { data, guard: 0, ..self.clone() }
    }

    /// Row `row` of the slowest axis.
    fn row(&self, row: usize) -> Self {
        let stride: usize = self.shape[1..].iter().product();
        let mut shape = self.shape.clone();
        shape[0] = 1;
        Self { data: self.data.slice(row * stride, stride), shape, ..self.clone() }
    }
}

/// Several buffers, found by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buffers(pub Vec<Buffer>);

/// Accessors for one element type.
macro_rules! accessors {
    ($($one:ident $many_mut:ident $variant:ident $ty:ty;)*) => {$(
        #[doc = concat!("The content of `name`, which is ", stringify!($ty), ".")]
        ///
        /// # Panics
        /// If there is no such buffer.
        #[track_caller]
        pub fn $one(&self, name: &str) -> &[$ty] {
            let buffer = self.get(name);
            match &buffer.data {
                Data::$variant(v) => &v[buffer.guard..v.len() - buffer.guard],
                other => panic!("buffer `{name}` is {}, asked for as {}", other.type_name(), stringify!($ty)),
            }
        }

        #[doc = concat!("The contents of several buffers of ", stringify!($ty), ", to be written.")]
        ///
        /// # Panics
        /// If one is missing.
        #[track_caller]
        pub fn $many_mut<const N: usize>(&mut self, names: [&str; N]) -> [&mut [$ty]; N] {
            let mut found: [Option<&mut [$ty]>; N] = [const { None }; N];
            for buffer in &mut self.0 {
                if let Some(i) = names.iter().position(|name| *name == buffer.name)
                    && let Data::$variant(v) = &mut buffer.data
                {
                    let end = v.len() - buffer.guard;
                    found[i] = Some(&mut v[buffer.guard..end]);
                }
            }
            let mut names = names.iter();
            found.map(|slice| {
                let name = names.next();
                slice.unwrap_or_else(|| panic!("no buffer {name:?} of {}", stringify!($ty)))
            })
        }
    )*};
}

impl Buffers {
    accessors! {
        f32 f32_mut F32 f32;
        f64 f64_mut F64 f64;
        u32 u32_mut U32 u32;
        i64 i64_mut I64 i64;
        i16 i16_mut I16 i16;
        i8 i8_mut I8 i8;
        u8 u8_mut U8 u8;
    }

    /// The buffer `name`.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn get(&self, name: &str) -> &Buffer {
        match self.0.iter().find(|buffer| buffer.name == name) {
            Some(buffer) => buffer,
            None => {
                panic!("no buffer `{name}` among {:?}", self.0.iter().map(|b| b.name).collect::<Vec<_>>())
            }
        }
    }

    /// All buffers between guard zones.
    #[must_use]
    pub fn guarded(&self) -> Self {
        Self(self.0.iter().map(Buffer::guarded).collect())
    }

    /// All buffers without guard zones.
    #[must_use]
    pub fn unguarded(&self) -> Self {
        Self(self.0.iter().map(Buffer::unguarded).collect())
    }

    /// Row `row` of the buffers in `names`, and all others as they are.
    #[must_use]
    pub fn row(&self, row: usize, names: &[&str]) -> Self {
        Self(self.0.iter().map(|b| if names.contains(&b.name) { b.row(row) } else { b.clone() }).collect())
    }
}

impl FromIterator<Buffer> for Buffers {
    fn from_iter<I: IntoIterator<Item = Buffer>>(buffers: I) -> Self {
        Self(buffers.into_iter().collect())
    }
}
