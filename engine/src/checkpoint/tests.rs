use super::*;
use crate::model::Stage;
use crate::testing::run;
use proptest::prelude::*;

fn layout() -> Layout {
    Stage::new(&run(&[1, 1]).model, 1).unwrap().layout().clone()
}

fn metadata() -> Metadata {
    vec![("format", "pt".into()), ("stage", "1".into())]
}

fn file(layout: &Layout, change: impl FnOnce(&mut Vec<f32>)) -> Vec<u8> {
    let mut values: Vec<f32> = (0..layout.values()).map(|i| i as f32 * 0.5).collect();
    change(&mut values);
    let mut bytes = Vec::new();
    write(layout, &metadata(), &[Section { prefix: "", values: (&values).into() }], |p| {
        bytes.extend_from_slice(p)
    })
    .unwrap();
    bytes
}

#[test]
fn values_come_back_and_any_safetensors_reader_finds_them() {
    let layout = layout();
    let bytes = file(&layout, |_| {});
    let read = read(&layout, &metadata(), &[""], &bytes).unwrap();
    assert_eq!(read.len(), 1);
    assert!(read[0].iter().enumerate().all(|(i, &value)| value == i as f32 * 0.5));

    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for entry in layout.entries() {
        let tensor = tensors.tensor(&entry.name).unwrap();
        assert_eq!(tensor.shape(), entry.shape);
        let first = f32::from_le_bytes(tensor.data()[..4].try_into().unwrap());
        assert_eq!(first, entry.range.start as f32 * 0.5, "{}", entry.name);
    }
}

#[test]
fn what_differs_is_named_with_expected_and_found() {
    let layout = layout();
    let message = |bytes: &[u8]| read(&layout, &metadata(), &[""], bytes).unwrap_err().to_string();
    let bytes = file(&layout, |_| {});

    let mut wider = run(&[1, 1]).model;
    wider.ffn = 48;
    let wider = file(Stage::new(&wider, 1).unwrap().layout(), |_| {});
    assert_eq!(
        message(&wider),
        "checkpoint tensor model.layers.1.mlp.gate_proj.weight: expected F32 [40, 24], found F32 [48, 24]"
    );
    let head = file(Stage::new(&run(&[1, 1]).model, 0).unwrap().layout(), |_| {});
    assert!(
        message(&head).contains("model.layers.1.input_layernorm.weight: expected F32 [24], found nothing")
    );
    let whole = file(Stage::new(&run(&[2]).model, 0).unwrap().layout(), |_| {});
    assert!(message(&whole).contains("model.embed_tokens.weight: expected nothing, found F32 [256, 24]"));

    let poisoned = file(&layout, |values| values[layout.entries()[2].range.start] = f32::NAN);
    assert_eq!(
        message(&poisoned),
        "checkpoint tensor model.layers.1.self_attn.k_proj.weight holds NaN or infinity"
    );
    assert!(message(&bytes[..bytes.len() - 4]).contains("not a safetensors file"));

    // The same content under a header with a blank more.
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut padded = ((header_len + 8) as u64).to_le_bytes().to_vec();
    padded.extend_from_slice(&bytes[8..8 + header_len]);
    padded.extend_from_slice(b"        ");
    padded.extend_from_slice(&bytes[8 + header_len..]);
    assert!(message(&padded).contains("the header is not in canonical form"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_damaged_file_is_an_error_or_the_same_length_of_values(at in 0usize..4000, byte: u8, cut in 0usize..4000) {
        let layout = layout();
        let mut bytes = file(&layout, |_| {});
        let (at, cut) = (at % bytes.len(), cut % bytes.len());
        prop_assert!(read(&layout, &metadata(), &[""], &bytes[..cut]).is_err());
        bytes[at] = byte;
        if let Ok(sections) = read(&layout, &metadata(), &[""], &bytes) {
            prop_assert_eq!(sections[0].len(), layout.values());
        }
    }
}
