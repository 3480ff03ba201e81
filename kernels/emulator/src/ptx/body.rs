//! Words to the instructions of one kernel or function.

use std::collections::BTreeMap;

use super::PtxError;
use super::ast::{Body, Guard, Instruction, Operand, RegId, Space, Type};
use super::lex::Token;
use super::parse::{Cursor, variables};

/// Reads `{ … }`.
pub(super) fn body(cursor: &mut Cursor<'_>) -> Result<Body, PtxError> {
    let mut reader = Reader { body: Body::default(), names: Vec::new(), stack: Vec::new(), cuda_line: None };
    cursor.expect('{')?;
    reader.open();
    while !reader.stack.is_empty() {
        reader.statement(cursor)?;
    }
    Ok(reader.body)
}

/// The registers one scope declares.
#[derive(Default)]
struct Names {
    single: BTreeMap<String, RegId>,
    /// Prefix to (first register, count), for `%r<55>`.
    numbered: BTreeMap<String, (u32, u32)>,
    /// What calls pass: as written, and as it is known in the body, where each scope may have its own of a name.
    passed: BTreeMap<String, String>,
}

struct Reader {
    body: Body,
    names: Vec<Names>,
    stack: Vec<usize>,
    cuda_line: Option<u32>,
}

impl Reader {
    fn open(&mut self) {
        self.body.scopes.push(self.stack.last().copied());
        self.stack.push(self.names.len());
        self.names.push(Names::default());
    }

    fn scope(&self) -> usize {
        self.stack.last().copied().unwrap_or(0)
    }

    fn statement(&mut self, cursor: &mut Cursor<'_>) -> Result<(), PtxError> {
        if cursor.eat('{') {
            self.open();
            return Ok(());
        }
        if cursor.eat('}') {
            self.stack.pop();
            return Ok(());
        }
        if cursor.eat(';') {
            return Ok(());
        }
        if cursor.at_mark('@') {
            return self.instruction(cursor);
        }
        let Some(Token::Word(word)) = cursor.peek().map(|placed| &placed.token) else {
            return Err(cursor.unexpected("a statement"));
        };
        match *word {
            ".reg" => self.registers(cursor),
            ".shared" | ".local" => {
                let found = variables(cursor)?;
                self.body.variables.extend(found);
                Ok(())
            }
            ".param" => {
                let scope = self.scope();
                for mut variable in variables(cursor)? {
                    let known = format!("{}@{scope}", variable.name);
                    self.names[scope].passed.insert(variable.name, known.clone());
                    variable.name = known;
                    self.body.variables.push(variable);
                }
                Ok(())
            }
            ".global" | ".const" => {
                Err(cursor.unexpected("a variable a kernel may declare (.shared, .local or .param)"))
            }
            ".loc" => {
                cursor.next();
                cursor.int()?;
                self.cuda_line = Some(cursor.int()? as u32);
                cursor.int()?;
                if cursor.at_mark(',') {
                    cursor.skip_line();
                }
                Ok(())
            }
            ".pragma" => {
                cursor.next();
                cursor.take("a pragma")?;
                cursor.expect(';')
            }
            _ if cursor.peek_second() == Some(&Token::Mark(':')) => self.label(cursor),
            word if word.starts_with('.') => Err(cursor.unexpected("a directive known inside a kernel")),
            _ => self.instruction(cursor),
        }
    }

    fn label(&mut self, cursor: &mut Cursor<'_>) -> Result<(), PtxError> {
        let name = cursor.word()?.to_string();
        cursor.expect(':')?;
        let key = (self.scope(), name);
        if cursor.peek().is_some_and(|placed| placed.token == Token::Word(".branchtargets")) {
            cursor.next();
            let mut targets = vec![cursor.word()?.to_string()];
            while cursor.eat(',') {
                targets.push(cursor.word()?.to_string());
            }
            cursor.expect(';')?;
            self.body.tables.insert(key, targets);
            return Ok(());
        }
        let at = self.body.code.len();
        match self.body.labels.insert(key, at) {
            None => Ok(()),
            Some(_) => Err(cursor.error("a label defined twice in its scope")),
        }
    }

    fn registers(&mut self, cursor: &mut Cursor<'_>) -> Result<(), PtxError> {
        cursor.next();
        let word = cursor.word()?;
        let ty = word.strip_prefix('.').and_then(Type::from_suffix).filter(|ty| ty.bytes() <= 8);
        let ty = ty.ok_or_else(|| cursor.error(format!("registers of type `{word}` are not implemented")))?;
        loop {
            let name = cursor.word()?.to_string();
            let first = self.body.regs.len() as u32;
            let mut count = 1;
            let scope = self.scope();
            if cursor.eat('<') {
                count = cursor.int()? as u32;
                cursor.expect('>')?;
                self.names[scope].numbered.insert(name, (first, count));
            } else {
                self.names[scope].single.insert(name, RegId(first));
            }
            if self.body.regs.len() + count as usize > 1 << 20 {
                return Err(cursor.error("more than a million registers"));
            }
            self.body.regs.resize(self.body.regs.len() + count as usize, ty);
            if !cursor.eat(',') {
                return cursor.expect(';');
            }
        }
    }

    fn instruction(&mut self, cursor: &mut Cursor<'_>) -> Result<(), PtxError> {
        let line = cursor.line();
        let mut guard = None;
        if cursor.eat('@') {
            let negated = cursor.eat('!');
            let name = cursor.word()?;
            let reg =
                self.reg(name).ok_or_else(|| PtxError::new(line, format!("unknown predicate `{name}`")))?;
            guard = Some(Guard { reg, negated });
        }
        let opcode = cursor.word()?.to_string();
        let mut operands = Vec::new();
        if !cursor.eat(';') {
            loop {
                operands.push(self.operand(cursor)?);
                if !cursor.eat(',') {
                    cursor.expect(';')?;
                    break;
                }
            }
        }
        let (scope, cuda_line) = (self.scope(), self.cuda_line);
        self.body.code.push(Instruction { line, cuda_line, guard, opcode, operands, scope });
        Ok(())
    }

    fn operand(&self, cursor: &mut Cursor<'_>) -> Result<Operand, PtxError> {
        let first = self.simple(cursor)?;
        if cursor.eat('|') {
            return Ok(Operand::Pair(Box::new(first), Box::new(self.simple(cursor)?)));
        }
        Ok(first)
    }

    fn simple(&self, cursor: &mut Cursor<'_>) -> Result<Operand, PtxError> {
        let (token, line) = cursor.take("an operand")?;
        match token {
            Token::Mark('{') => {
                let mut parts = vec![self.simple(cursor)?];
                while cursor.eat(',') {
                    parts.push(self.simple(cursor)?);
                }
                cursor.expect('}')?;
                Ok(Operand::Vector(parts))
            }
            // What a call returns or passes.
            Token::Mark('(') => {
                let mut parts = vec![];
                while !cursor.eat(')') {
                    parts.push(self.simple(cursor)?);
                    if !cursor.at_mark(')') {
                        cursor.expect(',')?;
                    }
                }
                Ok(Operand::Vector(parts))
            }
            Token::Mark('[') => {
                let base = self.simple(cursor)?;
                let offset = offset(cursor)?;
                cursor.expect(']')?;
                Ok(match base {
                    Operand::Symbol(name, inner) => {
                        Operand::Address(Box::new(Operand::Symbol(name, 0)), inner.wrapping_add(offset))
                    }
                    base => Operand::Address(Box::new(base), offset),
                })
            }
            Token::Mark('!') => {
                let name = cursor.word()?;
                let reg = self.reg(name);
                reg.map(Operand::Not).ok_or_else(|| PtxError::new(line, format!("unknown register `{name}`")))
            }
            Token::Mark('-') => match cursor.take("a number")?.0 {
                Token::Int(value) => Ok(Operand::Int((value as i64).wrapping_neg())),
                Token::F32(bits) => Ok(Operand::F32(bits ^ 1 << 31)),
                Token::F64(bits) => Ok(Operand::F64(bits ^ 1 << 63)),
                other => Err(PtxError::new(line, format!("expected a number after `-`, found {other:?}"))),
            },
            Token::Int(value) => Ok(Operand::Int(value as i64)),
            Token::F32(bits) => Ok(Operand::F32(bits)),
            Token::F64(bits) => Ok(Operand::F64(bits)),
            Token::Word("_") => Ok(Operand::Sink),
            Token::Word(word) => {
                if let Some(reg) = self.reg(word) {
                    return Ok(Operand::Reg(reg));
                }
                if word.starts_with('%') {
                    return Ok(Operand::Special(word.to_string()));
                }
                let offset = offset(cursor)?;
                Ok(Operand::Symbol(self.known_as(word), offset))
            }
            other => Err(PtxError::new(line, format!("{other:?} is not an operand this emulator knows"))),
        }
    }

    /// The name a symbol has in the body.
    fn known_as(&self, name: &str) -> String {
        let passed = self.stack.iter().rev().find_map(|&scope| self.names[scope].passed.get(name));
        passed.cloned().unwrap_or_else(|| name.to_owned())
    }

    fn reg(&self, name: &str) -> Option<RegId> {
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        for &scope in self.stack.iter().rev() {
            let names = &self.names[scope];
            if let Some(&reg) = names.single.get(name) {
                return Some(reg);
            }
            // Any split of the digits may be meant: `%r1<4>` declares `%r10` to `%r13`.
            for cut in prefix.len()..name.len() {
                if let Some(&(first, count)) = names.numbered.get(&name[..cut])
                    && let Ok(index) = name[cut..].parse::<u32>()
                    && index < count
                {
                    return Some(RegId(first + index));
                }
            }
        }
        None
    }
}

fn offset(cursor: &mut Cursor<'_>) -> Result<i64, PtxError> {
    if cursor.eat('+') {
        let negative = cursor.eat('-');
        let value = cursor.int()? as i64;
        return Ok(if negative { value.wrapping_neg() } else { value });
    }
    if cursor.eat('-') {
        return Ok((cursor.int()? as i64).wrapping_neg());
    }
    Ok(0)
}

impl Space {
    /// The space an opcode's suffix names, without its dot.
    pub fn from_suffix(suffix: &str) -> Option<Self> {
        match suffix {
            "global" => Some(Self::Global),
            "const" => Some(Self::Const),
            "shared" | "shared::cta" => Some(Self::Shared),
            "local" => Some(Self::Local),
            "param" | "param::entry" => Some(Self::Param),
            _ => None,
        }
    }
}
