//! Named buffers in a device's memory, each between two walls.

use std::marker::PhantomData;

use crate::catalogue::Buffers;
use crate::device::{Buffer, CudaDevice, DeviceError, View, ViewMut};

/// The buffers of a case, on a device.
pub struct OnDevice(Vec<Held>);

struct Held {
    name: &'static str,
    type_name: &'static str,
    memory: Buffer<u8>,
    /// Bytes before the content.
    begin: usize,
    /// Bytes of the content.
    len: usize,
}

/// What walls are made of: bytes that no kernel writes by chance.
const SENTINEL: u8 = 0xA5;
/// Bytes of a wall; a multiple of 16.
const WALL: usize = 256;

/// A type of number that a buffer may hold.
pub trait Number: bytemuck::Pod {
    /// Its name, as the catalogue's buffers say it.
    const NAME: &'static str;
}

macro_rules! numbers {
    ($($ty:ident)*) => {$(
        impl Number for $ty {
            const NAME: &'static str = stringify!($ty);
        }
    )*};
}
numbers! { f32 f64 u32 i64 i16 i8 u8 }

/// One buffer, to be written as numbers of type `T`.
pub struct Slot<'a, T> {
    bytes: ViewMut<'a, u8>,
    of: PhantomData<T>,
}

impl<T: Number> Slot<'_, T> {
    /// The numbers.
    pub fn view(&mut self) -> ViewMut<'_, T> {
        self.bytes.cast_mut()
    }
}

/// One buffer, to be written as numbers of a type that is chosen when it is known.
pub struct Raw<'a> {
    name: &'static str,
    type_name: &'static str,
    bytes: ViewMut<'a, u8>,
}

impl<'a> Raw<'a> {
    /// The buffer, which holds `T`.
    #[track_caller]
    pub fn of<T: Number>(self) -> Slot<'a, T> {
        assert_eq!(self.type_name, T::NAME, "the type of buffer `{}`", self.name);
        Slot { bytes: self.bytes, of: PhantomData }
    }
}

impl OnDevice {
    /// A copy of `buffers`, each beginning `shift` elements after an address that is a multiple of 256.
    pub(super) fn upload(device: &CudaDevice, buffers: &Buffers, shift: usize) -> Result<Self, DeviceError> {
        let held = buffers.0.iter().map(|buffer| {
            let content = buffer.data.bytes();
            let element = if buffer.data.is_empty() { 1 } else { content.len() / buffer.data.len() };
            let begin = WALL + shift * element;
            let mut host = vec![SENTINEL; begin + content.len() + WALL];
            host[begin..][..content.len()].copy_from_slice(content);
            Ok(Held {
                name: buffer.name,
                type_name: buffer.data.type_name(),
                memory: device.upload(&host)?,
                begin,
                len: content.len(),
            })
        });
        held.collect::<Result<_, _>>().map(Self)
    }

    /// The contents, named and shaped as in `like`, after a look at the walls.
    pub(super) fn download(&self, device: &CudaDevice, like: &Buffers) -> Result<Buffers, String> {
        let mut found = like.clone();
        for (held, buffer) in self.0.iter().zip(&mut found.0) {
            let host = device.download(&held.memory.view()).map_err(|error| error.to_string())?;
            let content = held.begin..held.begin + held.len;
            let stray = (0..host.len()).find(|place| !content.contains(place) && host[*place] != SENTINEL);
            if let Some(place) = stray {
                let byte = place as i64 - held.begin as i64;
                return Err(format!("byte {byte} of `{}`, which has {}, was written", held.name, held.len));
            }
            buffer.data.bytes_mut().copy_from_slice(&host[content]);
        }
        Ok(found)
    }

    /// The content of `name`, which holds `T`.
    #[track_caller]
    pub fn view<T: Number>(&self, name: &str) -> View<'_, T> {
        let Some(held) = self.0.iter().find(|held| held.name == name) else {
            panic!("no buffer `{name}` on the device")
        };
        assert_eq!(held.type_name, T::NAME, "the type of buffer `{name}`");
        held.memory.slice(held.begin..held.begin + held.len).cast()
    }

    /// All buffers, which are called `names` in this order.
    #[track_caller]
    pub fn all<const N: usize>(&mut self, names: [&str; N]) -> [Raw<'_>; N] {
        let found: Vec<&str> = self.0.iter().map(|held| held.name).collect();
        assert_eq!(found, names, "the outputs on the device are others");
        let mut held = self.0.iter_mut();
        names.map(|name| match held.next() {
            Some(held) => Raw {
                name: held.name,
                type_name: held.type_name,
                bytes: held.memory.slice_mut(held.begin..held.begin + held.len),
            },
            None => panic!("no buffer `{name}` on the device"),
        })
    }

    /// All buffers, which hold f32 and are called `names` in this order.
    #[track_caller]
    pub fn floats<const N: usize>(&mut self, names: [&str; N]) -> [Slot<'_, f32>; N] {
        self.all(names).map(Raw::of)
    }
}
