//! Calls of device functions: each is replaced by the function's instructions, with registers, labels, scopes and local
//! variables of their own. What is passed lies in local memory under the caller's names; `ret` goes to the call's end, where
//! lanes meet again.

use std::collections::BTreeMap;

use super::PtxError;
use super::ast::{Body, Function, Guard, Instruction, Module, Operand, RegId, Space};

/// Replaces every call in the kernels of `module`.
///
/// # Errors
/// A call that cannot be made: of a function without a body or of one that calls itself, with the wrong number of operands.
pub(super) fn inline(module: &mut Module, functions: &[Function]) -> Result<(), PtxError> {
    for entry in &mut module.entries {
        entry.body = expand(std::mem::take(&mut entry.body), functions, &mut vec![])?;
    }
    Ok(())
}

/// Where a function's `ret` goes; no label of a program begins like this.
const RETURN: &str = "@return";

/// A kernel that grows beyond this calls functions that call functions without end in sight.
const MOST_INSTRUCTIONS: usize = 1 << 20;

/// `within` are the functions this body is part of.
fn expand(body: Body, functions: &[Function], within: &mut Vec<String>) -> Result<Body, PtxError> {
    if !body.code.iter().any(is_call) {
        return Ok(body);
    }
    let mut out = Body {
        regs: body.regs,
        variables: body.variables,
        tables: body.tables,
        scopes: body.scopes,
        ..Body::default()
    };
    let mut starts = vec![];
    for ins in body.code {
        starts.push(out.code.len());
        if !is_call(&ins) {
            out.code.push(ins);
            continue;
        }
        let refused = |what: String| PtxError::new(ins.line, what);
        let (returns, name, passed) = parts(&ins.operands)
            .ok_or_else(|| refused(format!("`{}` of something other than a function by name", ins.opcode)))?;
        let called = functions.iter().filter(|function| function.name == name);
        let Some((function, callee)) =
            called.clone().find_map(|function| Some((function, function.body.as_ref()?)))
        else {
            return Err(refused(format!("the function `{name}` has no instructions in this module")));
        };
        if within.contains(&function.name) {
            return Err(refused(format!("the function `{name}` calls itself, which is not implemented")));
        }
        within.push(function.name.clone());
        let callee = expand(callee.clone(), functions, within)?;
        within.pop();
        let mut names = bind(&function.returns, returns).ok_or(&function.name);
        if let (Ok(names), Some(more)) = (&mut names, bind(&function.params, passed)) {
            names.extend(more);
        } else {
            names = Err(&function.name);
        }
        let names = names
            .map_err(|name| refused(format!("a call that does not pass what the function `{name}` takes")))?;
        splice(&mut out, &ins, callee, names);
        if out.code.len() > MOST_INSTRUCTIONS {
            return Err(refused(format!(
                "calls make a kernel of more than {MOST_INSTRUCTIONS} instructions"
            )));
        }
    }
    starts.push(out.code.len());
    out.labels.extend(body.labels.into_iter().map(|(label, at)| (label, starts[at])));
    Ok(out)
}

fn is_call(ins: &Instruction) -> bool {
    ins.opcode == "call" || ins.opcode.starts_with("call.")
}

/// What a call returns, the function's name, what it passes.
fn parts(operands: &[Operand]) -> Option<(&[Operand], &str, &[Operand])> {
    match operands {
        [Operand::Symbol(name, 0)] => Some((&[], name, &[])),
        [Operand::Symbol(name, 0), Operand::Vector(passed)] => Some((&[], name, passed)),
        [Operand::Vector(returns), Operand::Symbol(name, 0)] => Some((returns, name, &[])),
        [Operand::Vector(returns), Operand::Symbol(name, 0), Operand::Vector(passed)] => {
            Some((returns, name, passed))
        }
        _ => None,
    }
}

/// The function's names to the caller's.
fn bind(formal: &[String], actual: &[Operand]) -> Option<BTreeMap<String, String>> {
    if formal.len() != actual.len() {
        return None;
    }
    let pairs = formal.iter().zip(actual).map(|(formal, actual)| match actual {
        Operand::Symbol(name, 0) => Some((formal.clone(), name.clone())),
        _ => None,
    });
    pairs.collect()
}

/// Puts `callee` in the place of the call `ins`; `names` says what its symbols are called here.
fn splice(out: &mut Body, ins: &Instruction, callee: Body, mut names: BTreeMap<String, String>) {
    let (reg, scope) = (out.regs.len() as u32, out.scopes.len());
    out.regs.extend(callee.regs);
    out.scopes.extend(callee.scopes.into_iter().map(|parent| parent.map(|parent| parent + scope)));
    for mut variable in callee.variables {
        // Each call has local variables of its own; shared ones are the block's, whoever calls.
        if variable.space == Space::Local {
            let here = format!("{}@{scope}", variable.name);
            names.insert(std::mem::replace(&mut variable.name, here.clone()), here);
        } else if out.variables.iter().any(|known| known.name == variable.name) {
            continue;
        }
        out.variables.push(variable);
    }
    let to_the_end = |guard, from: &Instruction| Instruction {
        guard,
        opcode: "bra".to_owned(),
        operands: vec![Operand::Symbol(RETURN.to_owned(), 0)],
        scope,
        ..from.clone()
    };
    if let Some(guard) = ins.guard {
        out.code.push(to_the_end(Some(Guard { negated: !guard.negated, ..guard }), ins));
    }
    let first = out.code.len();
    for mut one in callee.code {
        one.guard = one.guard.map(|guard| Guard { reg: RegId(guard.reg.0 + reg), ..guard });
        if matches!(&*one.opcode, "ret" | "ret.uni") {
            out.code.push(to_the_end(one.guard, &one));
            continue;
        }
        one.scope += scope;
        one.operands.iter_mut().for_each(|operand| rename(operand, reg, &names));
        out.code.push(one);
    }
    out.labels.extend(callee.labels.into_iter().map(|((of, name), at)| ((of + scope, name), at + first)));
    out.tables.extend(callee.tables.into_iter().map(|((of, name), list)| ((of + scope, name), list)));
    out.labels.insert((scope, RETURN.to_owned()), out.code.len());
}

/// Registers from `reg` on, symbols by their names here.
fn rename(operand: &mut Operand, reg: u32, names: &BTreeMap<String, String>) {
    match operand {
        Operand::Reg(id) | Operand::Not(id) => id.0 += reg,
        Operand::Symbol(name, _) => {
            if let Some(here) = names.get(name) {
                *name = here.clone();
            }
        }
        Operand::Vector(parts) => parts.iter_mut().for_each(|part| rename(part, reg, names)),
        Operand::Address(base, _) => rename(base, reg, names),
        Operand::Pair(one, other) => {
            rename(one, reg, names);
            rename(other, reg, names);
        }
        Operand::Special(_) | Operand::Int(_) | Operand::F32(_) | Operand::F64(_) | Operand::Sink => {}
    }
}
