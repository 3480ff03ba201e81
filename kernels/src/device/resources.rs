//! What the assembler says a kernel takes, from the log it writes under `-v`.

/// What one kernel takes of a multiprocessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// The kernel.
    pub entry: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Local memory of a thread, bytes: arrays that did not fit into registers.
    pub stack_bytes: u32,
    /// Spilled registers of a thread, bytes stored and loaded.
    pub spill_bytes: u32,
    /// Shared memory of a block, bytes.
    pub shared_bytes: u32,
}

/// The kernels that `log` speaks of:
///
/// ```text
/// ptxas info    : Compiling entry function 'scale' for 'sm_86'
/// ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
/// ptxas info    : Used 20 registers, used 1 barriers, 1024 bytes smem, 376 bytes cmem[0]
/// ```
pub(super) fn of_log(log: &str) -> Vec<Resources> {
    let mut found: Vec<Resources> = Vec::new();
    // Functions that are no kernels are spoken of in the same way, under another heading.
    let mut in_entry = false;
    for line in log.lines() {
        if let Some(name) = between(line, "Compiling entry function '", "'") {
            let entry = name.to_owned();
            found.push(Resources { entry, registers: 0, stack_bytes: 0, spill_bytes: 0, shared_bytes: 0 });
            in_entry = true;
        } else if let Some(name) = between(line, "Function properties for ", "\n") {
            in_entry = found.last().is_some_and(|last| last.entry == name.trim());
        }
        let Some(last) = found.last_mut().filter(|_| in_entry) else { continue };
        for part in line.split([',', ':', '.']) {
            let words: Vec<&str> = part.split_whitespace().collect();
            match words[..] {
                [bytes, "bytes", "stack", "frame"] => last.stack_bytes = number(bytes),
                [bytes, "bytes", "spill", _] => last.spill_bytes += number(bytes),
                [bytes, "bytes", "smem"] => last.shared_bytes = number(bytes),
                ["Used", count, "registers"] => last.registers = number(count),
                _ => {}
            }
        }
    }
    found
}

/// What stands in `text` after `begin`, up to `end` or its own end.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    Some(rest.split_once(end).map_or(rest, |(inside, _)| inside))
}

fn number(digits: &str) -> u32 {
    digits.parse().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_two_kernels() {
        let log = "ptxas info    : 8 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_86'
ptxas info    : Function properties for first
ptxas         .     16 bytes stack frame, 12 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 24576 bytes smem, 452 bytes cmem[0]
ptxas info    : Compile time = 62.302 ms
ptxas info    : Function properties for helper
ptxas         .     64 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads
ptxas info    : Compiling entry function 'second' for 'sm_86'
ptxas info    : Function properties for second
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 20 registers, used 0 barriers, 376 bytes cmem[0]
";
        let of = |entry: &str, registers, stack_bytes, spill_bytes, shared_bytes| Resources {
            entry: entry.to_owned(),
            registers,
            stack_bytes,
            spill_bytes,
            shared_bytes,
        };
        assert_eq!(of_log(log), [of("first", 255, 16, 36, 24_576), of("second", 20, 0, 0, 0)]);
    }
}
