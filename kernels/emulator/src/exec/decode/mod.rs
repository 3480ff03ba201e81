//! Tree to decoded form.
//!
//! [`load`] lays out a module's variables, then decodes each kernel: [`operands`] gives registers, literals
//! and symbols their place in the frame, [`opcode`] turns an opcode's words into an operation, [`transfer`]
//! those that touch memory, [`exchange`] those between lanes, `tensor` those of tensor cores. Whatever has no meaning here is refused with
//! its line; nothing is skipped.

mod exchange;
mod opcode;
mod operands;
mod tensor;
mod transfer;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::count::Class;
use super::memory::Aligned;
use super::program::{Ins, Loaded, NO_GUARD, Op, Program};
use crate::ptx::PtxError;
use crate::ptx::ast::{Entry, Module, Space, Variable};
use crate::ptx::parse::parse;
use operands::Frame;

/// Reads and decodes a PTX module.
///
/// # Errors
/// The first thing this emulator does not implement, with its line.
pub fn load(text: &str) -> Result<Loaded, PtxError> {
    let module = parse(text)?;
    let (storage, variables) = lay_out_variables(&module);
    let source: Arc<str> = text.into();
    let mut programs = BTreeMap::new();
    for entry in &module.entries {
        let program = decode(entry, &module, &storage, &variables, &source)?;
        if programs.insert(entry.name.clone(), Arc::new(program)).is_some() {
            return Err(PtxError::new(entry.line, format!("a second kernel named `{}`", entry.name)));
        }
    }
    let ptx_version = 10 * module.version.0 + module.version.1;
    Ok(Loaded { programs, ptx_version, target: module.target, variables, storage })
}

/// Space left around each variable, so that checked runs notice a step from one into the next.
const GAP_BYTES: usize = 256;

fn lay_out_variables(module: &Module) -> (Arc<Aligned>, BTreeMap<String, (u64, usize)>) {
    let device: Vec<&Variable> =
        module.variables.iter().filter(|v| matches!(v.space, Space::Global | Space::Const)).collect();
    let mut offsets = Vec::new();
    let mut end = 0usize;
    for variable in &device {
        end = end.next_multiple_of(variable.align.max(GAP_BYTES));
        offsets.push(end);
        end += variable.bytes + GAP_BYTES;
    }
    let storage = Aligned::zeroed(end);
    let mut places = BTreeMap::new();
    for (variable, offset) in device.iter().zip(offsets) {
        // SAFETY: the buffer was sized for all variables, and nobody else has it yet.
        unsafe {
            let at = storage.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(variable.initial.as_ptr(), at, variable.initial.len());
            places.insert(variable.name.clone(), (at as u64, variable.bytes));
        }
    }
    (Arc::new(storage), places)
}

/// What a symbol stands for.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    space: Space,
    /// Host address for device memory, offset for the others.
    address: u64,
}

/// A kernel being decoded.
struct Decoder<'a> {
    entry: &'a Entry,
    symbols: BTreeMap<String, Symbol>,
    frame: Frame,
    code: Vec<Ins>,
    lines: Vec<(u32, Option<u32>)>,
    classes: Vec<Option<Class>>,
    /// The class of the instruction in hand, until its first operation has taken it.
    class: Option<Class>,
    /// Guard of the instruction in hand.
    guard: (u32, u32),
    line: (u32, Option<u32>),
    /// Branches whose targets are still indices of PTX instructions.
    starts: Vec<u32>,
}

fn decode(
    entry: &Entry,
    module: &Module,
    storage: &Arc<Aligned>,
    variables: &BTreeMap<String, (u64, usize)>,
    source: &Arc<str>,
) -> Result<Program, PtxError> {
    let mut symbols = BTreeMap::new();
    for variable in &module.variables {
        if let Some(&(address, _)) = variables.get(&variable.name) {
            symbols.insert(variable.name.clone(), Symbol { space: variable.space, address });
        }
    }
    let used = |variable: &&Variable| uses(entry, &variable.name);
    let outside = module.variables.iter().filter(|v| v.space == Space::Shared).filter(used);
    let inside = entry.body.variables.iter();
    let (mut shared, mut local) = (0usize, 0usize);
    let mut open = Vec::new();
    for variable in outside.chain(inside) {
        let end = if variable.space == Space::Shared { &mut shared } else { &mut local };
        if variable.bytes == 0 {
            open.push(variable);
            continue;
        }
        *end = end.next_multiple_of(variable.align);
        symbols.insert(variable.name.clone(), Symbol { space: variable.space, address: *end as u64 });
        *end += variable.bytes;
    }
    // Dynamic shared memory follows what is declared, on the strictest boundary any name of it asks for.
    let align = open.iter().map(|variable| variable.align).max().unwrap_or(1);
    shared = shared.next_multiple_of(align);
    for variable in open {
        symbols.insert(variable.name.clone(), Symbol { space: Space::Shared, address: shared as u64 });
    }
    for param in &entry.params {
        symbols.insert(param.name.clone(), Symbol { space: Space::Param, address: param.offset as u64 });
    }
    let frame = Frame::new(&entry.body.regs);
    let mut decoder = Decoder {
        entry,
        symbols,
        frame,
        code: Vec::new(),
        lines: Vec::new(),
        classes: Vec::new(),
        class: None,
        guard: (NO_GUARD, 0),
        line: (entry.line, None),
        starts: Vec::new(),
    };
    decoder.all()?;
    let param_bytes = entry.params.last().map_or(0, |param| param.offset + param.bytes);
    let words: usize = entry.body.regs.iter().map(|ty| ty.bytes().div_ceil(4)).sum();
    Ok(Program {
        name: entry.name.clone(),
        params: entry.params.clone(),
        param_bytes,
        shared_bytes: shared,
        local_bytes: local.next_multiple_of(16),
        max_threads: entry.max_threads,
        exact_threads: entry.exact_threads,
        registers: words as u32,
        ptx_version: 10 * module.version.0 + module.version.1,
        code: decoder.code,
        lines: decoder.lines,
        classes: decoder.classes,
        frame_bytes: decoder.frame.bytes(),
        constants: decoder.frame.constants(),
        specials: decoder.frame.specials(),
        source: source.clone(),
        _storage: storage.clone(),
    })
}

/// Whether a kernel names a variable; those it does not name take no space in its blocks.
fn uses(entry: &Entry, name: &str) -> bool {
    use crate::ptx::ast::Operand;
    fn names(operand: &Operand, name: &str) -> bool {
        match operand {
            Operand::Symbol(found, _) => found == name,
            Operand::Address(base, _) => names(base, name),
            Operand::Vector(parts) => parts.iter().any(|part| names(part, name)),
            _ => false,
        }
    }
    entry.body.code.iter().any(|ins| ins.operands.iter().any(|operand| names(operand, name)))
}

impl Decoder<'_> {
    fn all(&mut self) -> Result<(), PtxError> {
        let entry = self.entry;
        for ins in &entry.body.code {
            self.starts.push(self.code.len() as u32);
            self.line = (ins.line, ins.cuda_line);
            self.class = Some(Class::of(&ins.opcode));
            self.guard = match ins.guard {
                None => (NO_GUARD, 0),
                Some(guard) => {
                    let at = self.frame.predicate(guard.reg).map_err(|what| self.error(what))?;
                    (at, if guard.negated { u32::MAX } else { 0 })
                }
            };
            self.instruction(ins)?;
        }
        // A kernel may end without `ret`, and a label may stand at its end.
        self.starts.push(self.code.len() as u32);
        self.guard = (NO_GUARD, 0);
        self.class = None;
        self.push(Op::Exit);
        for ins in &mut self.code {
            match &mut ins.op {
                Op::Branch(target) => *target = self.starts[*target as usize],
                Op::BranchTable { targets, .. } => {
                    for target in targets.iter_mut() {
                        *target = self.starts[*target as usize];
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn push(&mut self, op: Op) {
        self.code.push(Ins { guard: self.guard.0, flip: self.guard.1, op });
        self.lines.push(self.line);
        self.classes.push(self.class.take());
    }

    fn error(&self, what: impl Into<String>) -> PtxError {
        PtxError::new(self.line.0, what)
    }
}
