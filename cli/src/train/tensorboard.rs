//! TensorBoard's event file: records of a length, its masked CRC-32C, protobuf bytes and their masked CRC-32C.
//!
//! ```text
//! record    length u64 LE | mask(crc(length)) u32 LE | event | mask(crc(event)) u32 LE
//! event     1: wall time, f64   2: step, varint   3: file version, string   5: summary
//! summary   repeated 1: value   value   1: tag, string   2: simple value, f32
//! ```

/// The record that opens a file.
pub fn opening(wall_time_s: f64) -> Vec<u8> {
    let mut event = vec![0x09];
    event.extend(wall_time_s.to_le_bytes());
    bytes_field(&mut event, 3, b"brain.Event:2");
    record(&event)
}

/// The record of one step's numbers.
pub fn scalars(wall_time_s: f64, step: u64, values: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = vec![];
    for (tag, number) in values {
        let mut value = vec![];
        bytes_field(&mut value, 1, tag.as_bytes());
        value.push(0x15);
        value.extend((*number as f32).to_le_bytes());
        bytes_field(&mut summary, 1, &value);
    }
    let mut event = vec![0x09];
    event.extend(wall_time_s.to_le_bytes());
    event.push(0x10);
    varint(&mut event, step);
    bytes_field(&mut event, 5, &summary);
    record(&event)
}

fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend_from_slice(event);
    out.extend(masked_crc(event).to_le_bytes());
    out
}

fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC with the Castagnoli polynomial, reflected; a record is a few hundred bytes, so bit by bit will do.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of the CRC catalogue, and two of RFC 3720.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
    }

    #[test]
    fn a_record_says_its_length_and_its_event() {
        let bytes = scalars(1.5, 300, &[("loss", 2.0)]);
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(bytes.len(), 8 + 4 + length + 4);
        let event = &bytes[12..12 + length];
        assert_eq!(event[..12], [0x09, 0, 0, 0, 0, 0, 0, 0xF8, 0x3F, 0x10, 0xAC, 0x02]);
        assert_eq!(event[12..], *b"\x2A\x0D\x0A\x0B\x0A\x04loss\x15\0\0\0\x40");
    }
}
