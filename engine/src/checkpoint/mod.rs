//! Weights and full state as safetensors files with one canonical form, so that equal content has equal digests.
//!
//! ```text
//! u64 LE header length | header: JSON, padded with spaces to 8 bytes | f32 LE values, in canonical order
//!
//! weights   "<name>"                                    for every parameter
//! state     "weights/<name>" …, "m/<name>" …, "v/<name>" …; with an outer optimizer also "residual/<name>" …,
//!           "momentum/<name>" …
//! ```
//!
//! The header lists `__metadata__` first, then the tensors in the order of their values, without blanks. Metadata of both
//! files: `format` = "pt", `run` (id), `stage` (index). Of a state also: `steps` (AdamW steps), `power1` and `power2` (bits
//! of the f64 running products of the betas, hexadecimal), `folded` (microbatches folded in this epoch) and `anchor`
//! (digest of the weights file at the last merge). Reading accepts exactly what writing produces.

use crate::model::Layout;
use crate::tensor::Slice;
use kernels::device::DeviceError;
use kernels::reduce;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;

/// Key and value of `__metadata__`, in the order in which they are written.
pub type Metadata = Vec<(&'static str, String)>;

/// One array of values in a file: the stage's parameters under a prefix.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// What stands before the parameters' names.
    pub prefix: &'static str,
    /// Values, flat, in canonical order.
    pub values: Slice<'a>,
}

/// Bytes that are not the file expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The model has no such stage.
    #[error("stage {index} does not exist: the model is cut into {stages}")]
    NoStage {
        /// Index asked for.
        index: usize,
        /// Number of stages.
        stages: usize,
    },
    /// Not a safetensors file.
    #[error("checkpoint: not a safetensors file: {0}; fetch it again by its digest")]
    Format(String),
    /// A metadata value differs.
    #[error("checkpoint metadata {key}: expected {expected}, found {found}")]
    Metadata {
        /// The key.
        key: &'static str,
        /// What it should say.
        expected: String,
        /// What it says.
        found: String,
    },
    /// A tensor is missing, unknown, or of another type or shape.
    #[error("checkpoint tensor {name}: expected {expected}, found {found}")]
    Tensor {
        /// Its name.
        name: String,
        /// Type and shape expected.
        expected: String,
        /// Type and shape found.
        found: String,
    },
    /// A value is NaN or infinite.
    #[error("checkpoint tensor {name} holds NaN or infinity")]
    NonFinite {
        /// Its name.
        name: String,
    },
    /// Right content in a form that nobody of us writes.
    #[error("checkpoint: the header is not in canonical form; fetch it again by its digest")]
    NotCanonical,
    /// The weights offered as anchor are others than the state names.
    #[error("anchor weights: expected the file {expected}, found {found}")]
    Anchor {
        /// Digest the state names.
        expected: spec::Digest,
        /// Digest of the bytes offered.
        found: spec::Digest,
    },
    /// The device that should hold the values.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Writes a file piece by piece to `sink`.
///
/// # Errors
/// The device that holds the values is lost.
pub fn write(
    layout: &Layout,
    metadata: &Metadata,
    sections: &[Section<'_>],
    mut sink: impl FnMut(&[u8]),
) -> Result<(), DeviceError> {
    let prefixes: Vec<_> = sections.iter().map(|section| section.prefix).collect();
    sink(&head(layout, metadata, &prefixes));
    sections.iter().try_for_each(|section| section.values.pieces(|piece| sink(bytemuck::cast_slice(piece))))
}

/// Metadata of a file, by key; to be read before [`read`], which needs to know what to expect.
///
/// # Errors
/// The bytes are no safetensors file.
pub fn read_metadata(bytes: &[u8]) -> Result<BTreeMap<String, String>, CheckpointError> {
    let (_, header) =
        SafeTensors::read_metadata(bytes).map_err(|error| CheckpointError::Format(error.to_string()))?;
    Ok(header.metadata().clone().into_iter().flatten().collect())
}

/// As [`read_metadata`], of what stands before the values alone ([`head`]); whoever reads it compares it with what it would write.
pub(crate) fn head_metadata(bytes: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(bytes.get(8..).unwrap_or_default());
    let inside = text.strip_prefix("{\"__metadata__\":{").and_then(|rest| rest.split('}').next());
    let pairs = inside.unwrap_or_default().split(',').filter_map(|pair| pair.split_once(':'));
    pairs.map(|(key, value)| (key.replace('"', ""), value.replace('"', ""))).collect()
}

/// Reads the sections with `prefixes`, in that order, from a file that must be what [`write`] writes.
///
/// # Errors
/// [`CheckpointError`] names the first thing that differs: tensor or key, expected and found.
pub fn read(
    layout: &Layout,
    metadata: &Metadata,
    prefixes: &[&'static str],
    bytes: &[u8],
) -> Result<Vec<Vec<f32>>, CheckpointError> {
    let found = read_metadata(bytes)?;
    for (key, expected) in metadata {
        let found = found.get(*key).map_or("nothing", String::as_str);
        if found != expected {
            return Err(CheckpointError::Metadata {
                key,
                expected: expected.clone(),
                found: found.chars().take(80).collect(),
            });
        }
    }
    check_tensors(layout, prefixes, bytes)?;
    let body = bytes.strip_prefix(&head(layout, metadata, prefixes)[..]);
    let Some(body) = body else { return Err(CheckpointError::NotCanonical) };
    let mut sections = Vec::new();
    for (prefix, section) in prefixes.iter().zip(body.chunks_exact((4 * layout.values()).max(1))) {
        let mut values = vec![0.0; layout.values()];
        bytemuck::cast_slice_mut(&mut values).copy_from_slice(section);
        for entry in layout.entries() {
            if reduce::first_beyond(&values[entry.range.clone()], f32::INFINITY).is_some() {
                return Err(CheckpointError::NonFinite { name: format!("{prefix}{}", entry.name) });
            }
        }
        sections.push(values);
    }
    Ok(sections)
}

/// Checks names, types and shapes one by one, so that the error can name the tensor.
///
/// # Errors
/// As [`read`].
pub(crate) fn check_tensors(layout: &Layout, prefixes: &[&str], bytes: &[u8]) -> Result<(), CheckpointError> {
    let (_, header) =
        SafeTensors::read_metadata(bytes).map_err(|error| CheckpointError::Format(error.to_string()))?;
    let describe = |dtype: Dtype, shape: &[usize]| format!("{dtype:?} {shape:?}");
    let mut unknown: BTreeMap<_, _> = header.tensors().into_iter().collect();
    for prefix in prefixes {
        for entry in layout.entries() {
            let name = format!("{prefix}{}", entry.name);
            let expected = describe(Dtype::F32, &entry.shape);
            let found =
                unknown.remove(&name).map_or("nothing".into(), |info| describe(info.dtype, &info.shape));
            if found != expected {
                return Err(CheckpointError::Tensor { name, expected, found });
            }
        }
    }
    match unknown.pop_first() {
        None => Ok(()),
        Some((name, info)) => Err(CheckpointError::Tensor {
            name: name.chars().take(80).collect(),
            expected: "nothing".into(),
            found: describe(info.dtype, &info.shape),
        }),
    }
}

/// What stands before the values: the header with its length.
pub(crate) fn head(layout: &Layout, metadata: &Metadata, prefixes: &[&str]) -> Vec<u8> {
    let header = header(layout, metadata, prefixes);
    [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
}

fn header(layout: &Layout, metadata: &Metadata, prefixes: &[&str]) -> String {
    // Names and values are our own words, digits and hexadecimal: nothing needs escaping.
    let pairs: Vec<_> = metadata.iter().map(|(key, value)| format!("\"{key}\":\"{value}\"")).collect();
    let mut header = format!("{{\"__metadata__\":{{{}}}", pairs.join(","));
    let mut base = 0;
    for prefix in prefixes {
        for entry in layout.entries() {
            let extents: Vec<_> = entry.shape.iter().map(usize::to_string).collect();
            let (start, end) = (base + 4 * entry.range.start, base + 4 * entry.range.end);
            header.push_str(&format!(
                ",\"{prefix}{}\":{{\"dtype\":\"F32\",\"shape\":[{}],\"data_offsets\":[{start},{end}]}}",
                entry.name,
                extents.join(",")
            ));
        }
        base += 4 * layout.values();
    }
    header.push('}');
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    header
}

#[cfg(test)]
mod tests;
