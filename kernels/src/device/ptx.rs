//! What a kernel's PTX says about it: its parameters, so that a launcher that packs others is refused before it corrupts
//! memory; the threads of its block; the shared memory that a launch must ask for.

use std::fmt;

/// One parameter of a kernel, as the driver packs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// An address, or a 64-bit integer: PTX does not tell them apart.
    U64,
    /// A 32-bit integer.
    U32,
    /// A float.
    F32,
    /// A double.
    F64,
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U64 => f.write_str("u64"),
            Self::U32 => f.write_str("u32"),
            Self::F32 => f.write_str("f32"),
            Self::F64 => f.write_str("f64"),
        }
    }
}

/// A list of parameters as messages show it.
pub fn list(parameters: &[Parameter]) -> String {
    parameters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The parameters of kernel `entry`; `None` if the PTX has no such kernel or declares a parameter of another kind.
pub fn parameters(ptx: &str, entry: &str) -> Option<Vec<Parameter>> {
    let text = entries(ptx).find_map(|(name, rest)| (name == entry).then_some(rest))?;
    let (declared, _) = text.split_once('(')?.1.split_once(')')?;
    declared.split(',').map(str::trim).filter(|one| !one.is_empty()).map(parameter).collect()
}

/// Threads of a block, where kernel `entry` declares them.
pub fn threads(ptx: &str, entry: &str) -> Option<u32> {
    let text = entries(ptx).find_map(|(name, rest)| (name == entry).then_some(rest))?;
    leading_number(text.split_once('{')?.0.split_once(".maxntid")?.1)
}

/// Shared memory beyond what is declared that a block of kernel `entry` asks for, bytes: its source says so in a constant
/// `<entry>_shared_bytes`.
pub fn dynamic_shared_bytes(ptx: &str, entry: &str) -> u32 {
    let name = format!(" {entry}_shared_bytes = ");
    ptx.split_once(&name).and_then(|(_, rest)| leading_number(rest)).unwrap_or(0)
}

fn leading_number(text: &str) -> Option<u32> {
    let text = text.trim_start();
    text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())].parse().ok()
}

/// The names of all kernels.
pub fn entry_names(ptx: &str) -> Vec<&str> {
    entries(ptx).map(|(name, _)| name).collect()
}

/// Name and what follows it, for every kernel.
fn entries(ptx: &str) -> impl Iterator<Item = (&str, &str)> {
    ptx.split(".entry").skip(1).filter_map(|text| {
        let text = text.trim_start();
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_')?;
        Some(text.split_at(end))
    })
}

/// `.param .u64 .ptr .align 1 name`, `.param .f32 name`; structures (`.param .align 4 .b8 name[40]`) are not used.
fn parameter(declared: &str) -> Option<Parameter> {
    let mut words = declared.split_whitespace();
    if words.next()? != ".param" {
        return None;
    }
    for word in words {
        match word {
            ".u64" | ".s64" | ".b64" => return Some(Parameter::U64),
            ".u32" | ".s32" | ".b32" => return Some(Parameter::U32),
            ".f32" => return Some(Parameter::F32),
            ".f64" => return Some(Parameter::F64),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = "
.global .align 4 .u32 scale_shared_bytes = 98304;
.visible .entry scale(
	.param .u64 .ptr .align 1 scale_param_0,
	.param .u64 scale_param_1,
	.param .f32 scale_param_3,
	.param .u32 scale_param_4
)
.maxntid 256
{ ret; }
.visible .entry clip(.param .f64 clip_param_0)
{ ret; }
.visible .entry scale_all()
{ ret; }
.visible .entry odd(.param .align 4 .b8 odd_param_0[40]) { ret; }
";

    #[test]
    fn parameters_of_each_kernel() {
        use Parameter::{F32, F64, U32, U64};
        assert_eq!(entry_names(PTX), ["scale", "clip", "scale_all", "odd"]);
        assert_eq!(parameters(PTX, "clip"), Some(vec![F64]));
        assert_eq!(parameters(PTX, "scale"), Some(vec![U64, U64, F32, U32]));
        assert_eq!(parameters(PTX, "scale_all"), Some(vec![]));
        assert_eq!(parameters(PTX, "odd"), None);
        assert_eq!(parameters(PTX, "scal"), None);
    }

    #[test]
    fn blocks_of_each_kernel() {
        assert_eq!((threads(PTX, "scale"), dynamic_shared_bytes(PTX, "scale")), (Some(256), 98_304));
        assert_eq!((threads(PTX, "clip"), dynamic_shared_bytes(PTX, "clip")), (None, 0));
    }
}
