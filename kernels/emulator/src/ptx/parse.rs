//! Words to a module.

use super::PtxError;
use super::ast::{Entry, Function, Module, Param, Space, Type, Variable};
use super::inline::inline;
use super::lex::{Placed, Token, lex};

/// Reads a PTX module.
///
/// # Errors
/// The first thing that is not PTX this crate understands, with its line.
pub fn parse(text: &str) -> Result<Module, PtxError> {
    let tokens = lex(text)?;
    let mut cursor = Cursor { tokens: &tokens, at: 0 };
    let (mut module, mut functions) = (Module::default(), Vec::new());
    while let Some(placed) = cursor.peek() {
        let (line, Token::Word(word)) = (placed.line, &placed.token) else {
            return Err(cursor.unexpected("a directive"));
        };
        match *word {
            ".version" => {
                cursor.next();
                let (token, line) = cursor.take("a version such as 8.8")?;
                let Token::F64(bits) = token else {
                    return Err(PtxError::new(line, "version without a minor"));
                };
                let version = f64::from_bits(bits);
                module.version = (version as u32, ((version * 10.0).round() as u32) % 10);
            }
            ".target" => {
                cursor.next();
                let name = cursor.word()?;
                module.target = target_number(name).ok_or_else(|| {
                    PtxError::new(line, format!("target `{name}` is not of the form sm_NN"))
                })?;
                while cursor.eat(',') {
                    cursor.word()?;
                }
            }
            ".address_size" => {
                cursor.next();
                if cursor.int()? != 64 {
                    return Err(PtxError::new(line, "only 64-bit addresses exist on this device"));
                }
            }
            ".file" => cursor.skip_line(),
            ".section" => {
                while !cursor.at_mark('{') {
                    cursor.take("`{`")?;
                }
                cursor.skip_braces()?;
            }
            ".visible" | ".extern" | ".weak" | ".common" => {
                cursor.next();
            }
            ".entry" => {
                cursor.next();
                module.entries.push(entry(&mut cursor)?);
            }
            ".func" => {
                cursor.next();
                functions.push(function(&mut cursor)?);
            }
            ".global" | ".const" | ".shared" => module.variables.extend(variables(&mut cursor)?),
            other => return Err(PtxError::new(line, format!("directive `{other}` is not implemented"))),
        }
    }
    inline(&mut module, &functions)?;
    Ok(module)
}

/// Declarations such as `.shared .align 16 .b8 name[64], other = 1;`, the space word still to be read.
pub(super) fn variables(cursor: &mut Cursor<'_>) -> Result<Vec<Variable>, PtxError> {
    let space = match cursor.word()? {
        ".global" => Space::Global,
        ".const" => Space::Const,
        ".shared" => Space::Shared,
        // What a call passes lies in the thread's own memory.
        ".local" | ".param" => Space::Local,
        other => return Err(cursor.error(format!("variables of space `{other}` are not implemented"))),
    };
    let mut align = None;
    let ty = loop {
        match cursor.word()? {
            ".align" => align = Some(cursor.int()? as usize),
            ".v2" | ".v4" => return Err(cursor.error("vector variables are not implemented")),
            word => match word.strip_prefix('.').and_then(Type::from_suffix) {
                Some(ty) => break ty,
                None => return Err(cursor.error(format!("`{word}` is not a type of a variable"))),
            },
        }
    };
    let mut out = Vec::new();
    loop {
        let line = cursor.line();
        let name = cursor.word()?.to_string();
        let count = dimensions(cursor)?;
        let mut bytes = count * ty.bytes();
        let mut initial = Vec::new();
        if cursor.eat('=') {
            initializer(cursor, ty, &mut initial)?;
            bytes = bytes.max(initial.len());
        }
        let align = align.unwrap_or(ty.bytes()).max(1);
        if !align.is_power_of_two() {
            return Err(PtxError::new(line, format!("alignment {align} is not a power of two")));
        }
        out.push(Variable { name, space, align, bytes, initial, line });
        if !cursor.eat(',') {
            cursor.expect(';')?;
            return Ok(out);
        }
    }
}

/// The product of `[n]` groups: 1 without any, 0 for an open length.
fn dimensions(cursor: &mut Cursor<'_>) -> Result<usize, PtxError> {
    let mut count = 1usize;
    while cursor.eat('[') {
        if cursor.eat(']') {
            count = 0;
            continue;
        }
        count = count.saturating_mul(cursor.int()? as usize);
        cursor.expect(']')?;
    }
    if count > 1 << 32 {
        return Err(cursor.error("a variable of more than 4 Gi elements"));
    }
    Ok(count)
}

fn initializer(cursor: &mut Cursor<'_>, ty: Type, out: &mut Vec<u8>) -> Result<(), PtxError> {
    if cursor.eat('{') {
        if cursor.eat('}') {
            return Ok(());
        }
        loop {
            initializer(cursor, ty, out)?;
            if !cursor.eat(',') {
                return cursor.expect('}');
            }
        }
    }
    let negative = cursor.eat('-');
    let (token, line) = cursor.take("an initial value")?;
    let bits = match token {
        Token::Int(value) if negative => (value as i64).wrapping_neg() as u64,
        Token::Int(value) => value,
        Token::F32(bits) => u64::from(bits),
        Token::F64(bits) if ty == Type::Float(4) => u64::from((f64::from_bits(bits) as f32).to_bits()),
        Token::F64(bits) => bits,
        _ => return Err(PtxError::new(line, "an initial value other than a number is not implemented")),
    };
    out.extend_from_slice(&bits.to_le_bytes()[..ty.bytes().min(8)]);
    Ok(())
}

fn entry(cursor: &mut Cursor<'_>) -> Result<Entry, PtxError> {
    let line = cursor.line();
    let name = cursor.word()?.to_string();
    let params = params(cursor)?;
    let (mut max_threads, mut exact_threads) = (None, false);
    while !cursor.at_mark('{') {
        let (token, line) = cursor.take("the body of the kernel")?;
        match token {
            Token::Word(word @ (".maxntid" | ".reqntid")) => {
                let mut product = cursor.int()?;
                while cursor.eat(',') {
                    product = product.saturating_mul(cursor.int()?);
                }
                max_threads = Some(u32::try_from(product).unwrap_or(u32::MAX));
                exact_threads = word == ".reqntid";
            }
            Token::Word(".minnctapersm" | ".maxnreg" | ".maxnctapersm") => {
                cursor.int()?;
            }
            Token::Word(".pragma") => {
                cursor.take("a pragma")?;
                cursor.expect(';')?;
            }
            other => {
                return Err(PtxError::new(
                    line,
                    format!("{other:?} before a kernel's body is not implemented"),
                ));
            }
        }
    }
    let body = super::body::body(cursor)?;
    Ok(Entry { name, params, max_threads, exact_threads, body, line })
}

/// Parameters in parentheses, if there are such.
fn params(cursor: &mut Cursor<'_>) -> Result<Vec<Param>, PtxError> {
    let (mut params, mut offset) = (Vec::new(), 0usize);
    if cursor.eat('(') && !cursor.eat(')') {
        loop {
            params.push(param(cursor, &mut offset)?);
            if !cursor.eat(',') {
                cursor.expect(')')?;
                break;
            }
        }
    }
    Ok(params)
}

fn param(cursor: &mut Cursor<'_>, offset: &mut usize) -> Result<Param, PtxError> {
    if cursor.word()? != ".param" {
        return Err(cursor.error("a parameter starts with .param; registers are not passed here"));
    }
    let (mut align, mut ty, mut of_pointer) = (None, None, false);
    let name = loop {
        match cursor.word()? {
            ".align" => {
                let value = cursor.int()? as usize;
                // After `.ptr` it speaks of what the pointer points to.
                if !of_pointer {
                    align = Some(value);
                }
            }
            ".ptr" => of_pointer = true,
            ".global" | ".shared" | ".const" | ".local" if of_pointer => {}
            word => match (word.strip_prefix('.').and_then(Type::from_suffix), ty) {
                (Some(found), None) => ty = Some(found),
                (None, Some(_)) if !word.starts_with('.') => break word.to_string(),
                _ => return Err(cursor.error(format!("`{word}` in a parameter is not implemented"))),
            },
        }
    };
    let ty = ty.ok_or_else(|| cursor.error("a parameter without a type"))?;
    let bytes = dimensions(cursor)? * ty.bytes();
    let align = align.unwrap_or(ty.bytes()).max(1);
    if !align.is_power_of_two() {
        return Err(cursor.error("a parameter's alignment is not a power of two"));
    }
    *offset = offset.next_multiple_of(align);
    let param = Param { name, offset: *offset, bytes };
    *offset += bytes;
    Ok(param)
}

fn function(cursor: &mut Cursor<'_>) -> Result<Function, PtxError> {
    let names = |params: Vec<Param>| params.into_iter().map(|param| param.name).collect();
    let returns = names(params(cursor)?);
    let name = cursor.word()?.to_string();
    let params = names(params(cursor)?);
    loop {
        if cursor.at_mark('{') {
            let body = Some(super::body::body(cursor)?);
            return Ok(Function { name, returns, params, body });
        }
        match cursor.take("the body of the function")? {
            (Token::Mark(';'), _) => return Ok(Function { name, returns, params, body: None }),
            (Token::Word(".noinline" | ".noreturn"), _) => {}
            (other, line) => {
                return Err(PtxError::new(
                    line,
                    format!("{other:?} before a function's body is not implemented"),
                ));
            }
        }
    }
}

fn target_number(name: &str) -> Option<u32> {
    name.strip_prefix("sm_")?.trim_end_matches(['a', 'f']).parse().ok()
}

/// A place in the words.
pub(super) struct Cursor<'a> {
    tokens: &'a [Placed<'a>],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn peek(&self) -> Option<&'a Placed<'a>> {
        self.tokens.get(self.at)
    }

    pub(super) fn peek_second(&self) -> Option<&'a Token<'a>> {
        self.tokens.get(self.at + 1).map(|placed| &placed.token)
    }

    pub(super) fn next(&mut self) -> Option<&'a Placed<'a>> {
        let placed = self.tokens.get(self.at);
        self.at += 1;
        placed
    }

    /// The line of the next word, or of the last one at the end.
    pub(super) fn line(&self) -> u32 {
        self.peek().or(self.tokens.last()).map_or(1, |placed| placed.line)
    }

    pub(super) fn take(&mut self, expected: &str) -> Result<(Token<'a>, u32), PtxError> {
        let line = self.line();
        match self.next() {
            Some(placed) => Ok((placed.token.clone(), placed.line)),
            None => Err(PtxError::new(line, format!("the text ends where {expected} was expected"))),
        }
    }

    pub(super) fn word(&mut self) -> Result<&'a str, PtxError> {
        match self.take("a word")? {
            (Token::Word(word), _) => Ok(word),
            (other, line) => Err(PtxError::new(line, format!("expected a word, found {other:?}"))),
        }
    }

    pub(super) fn int(&mut self) -> Result<u64, PtxError> {
        match self.take("an integer")? {
            (Token::Int(value), _) => Ok(value),
            (other, line) => Err(PtxError::new(line, format!("expected an integer, found {other:?}"))),
        }
    }

    pub(super) fn at_mark(&self, mark: char) -> bool {
        self.peek().is_some_and(|placed| placed.token == Token::Mark(mark))
    }

    pub(super) fn eat(&mut self, mark: char) -> bool {
        let found = self.at_mark(mark);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, mark: char) -> Result<(), PtxError> {
        if self.eat(mark) { Ok(()) } else { Err(self.unexpected(&format!("`{mark}`"))) }
    }

    pub(super) fn skip_line(&mut self) {
        let line = self.line();
        while self.peek().is_some_and(|placed| placed.line == line) {
            self.at += 1;
        }
    }

    pub(super) fn skip_braces(&mut self) -> Result<(), PtxError> {
        let mut depth = 0;
        loop {
            match self.take("`}`")?.0 {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') if depth <= 1 => return Ok(()),
                Token::Mark('}') => depth -= 1,
                _ => {}
            }
        }
    }

    pub(super) fn error(&self, what: impl Into<String>) -> PtxError {
        let line = self.tokens.get(self.at.saturating_sub(1)).map_or(1, |placed| placed.line);
        PtxError::new(line, what)
    }

    pub(super) fn unexpected(&self, expected: &str) -> PtxError {
        match self.peek() {
            Some(placed) => {
                PtxError::new(placed.line, format!("expected {expected}, found {:?}", placed.token))
            }
            None => PtxError::new(self.line(), format!("the text ends where {expected} was expected")),
        }
    }
}
