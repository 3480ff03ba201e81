use super::*;
use crate::new;
use clap::Parser;
use safetensors::SafeTensors;
use std::collections::BTreeMap;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    recipe: new::Recipe,
}

/// A run's folder with initial weights.
fn weights(place: &Path) -> Weights {
    let text = place.join("text.txt");
    std::fs::write(&text, "all work and no play; ".repeat(4000)).unwrap();
    let small = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/swarm.toml");
    let what = ["new", "--text", &text.to_string_lossy(), "--seed", "7"];
    let line = Line::parse_from(what.iter().chain(&["--config", small, "--tokenizer", "bytes"]));
    let root = place.join("run");
    new::make(&root, &line.recipe).unwrap();
    weights_of(&root).unwrap()
}

/// Every tensor by its Hugging Face name, from the engine.
fn expected(states: &[StageState]) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let of = |state: &StageState| -> Vec<_> {
        let entries = state.stage().layout().entries().iter();
        entries
            .map(|e| (e.name.clone(), (e.shape.clone(), state.weights()[e.range.clone()].to_vec())))
            .collect()
    };
    states.iter().flat_map(of).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn the_hugging_face_directory_holds_every_weight_bit_for_bit() {
    let place = tempfile::tempdir().unwrap();
    let weights = weights(place.path());
    let states = weights.states().unwrap();
    let out = place.path().join("hf");
    whole::folder(&out, |folder| {
        hugging_face::write(&weights, &states, folder)?;
        write_reference(&weights, &states, folder)
    })
    .unwrap();
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(out.join(name)).unwrap()).unwrap()
    };
    let index = json("model.safetensors.index.json");
    let mut left = expected(&states);
    for shard in 1..=3 {
        let name = format!("model-{shard:05}-of-00003.safetensors");
        let bytes = std::fs::read(out.join(&name)).unwrap();
        assert_eq!(bytes, weights.stages[shard - 1], "the file that the manifest names");
        for (tensor, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            assert_eq!(index["weight_map"][tensor], name.as_str());
            let (shape, values) = left.remove(tensor).unwrap();
            assert_eq!((view.shape(), floats(view.data())), (&shape[..], values), "{tensor}");
        }
    }
    assert!(left.is_empty());
    let config = json("config.json");
    assert_eq!(config["rms_norm_eps"], 1e-5);
    assert_eq!(config["num_key_value_heads"], 2);
    assert_eq!(json("reference.json")["logits"].as_array().unwrap().len(), PROMPT_TOKENS as usize);
    let again = whole::folder(&out, |_| Ok(())).unwrap_err().to_string();
    assert!(again.contains("exists already"), "{again}");
}

/// As much of the format as the trial needs, read in the order of its description.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self, bytes: usize) -> u64 {
        self.take(bytes).iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte))
    }

    fn string(&mut self) -> String {
        let length = self.number(8) as usize;
        String::from_utf8(self.take(length).to_vec()).unwrap()
    }

    fn value(&mut self, kind: u64) -> String {
        match kind {
            4..=6 => self.number(4).to_string(),
            7 => self.number(1).to_string(),
            8 => self.string(),
            9 => {
                let (inner, count) = (self.number(4), self.number(8));
                (0..count).map(|_| self.value(inner) + ",").collect()
            }
            other => panic!("type {other}"),
        }
    }
}

#[test]
fn the_gguf_file_holds_every_weight_bit_for_bit() {
    let place = tempfile::tempdir().unwrap();
    let weights = weights(place.path());
    let states = weights.states().unwrap();
    let model = &weights.run.model;
    let path = place.path().join("model.gguf");
    gguf::write(&weights, &states, gguf::Element::F32, &path).unwrap();
    let file = std::fs::read(&path).unwrap();
    let mut reader = Reader(&file);
    assert_eq!(reader.take(4), b"GGUF");
    assert_eq!(reader.number(4), 3);
    let (tensors, pairs) = (reader.number(8), reader.number(8));
    let pairs: BTreeMap<String, String> = (0..pairs)
        .map(|_| {
            let (key, kind) = (reader.string(), reader.number(4));
            (key, reader.value(kind))
        })
        .collect();
    assert_eq!(pairs["general.architecture"], "llama");
    assert_eq!(pairs["llama.attention.head_count_kv"], "2");
    assert_eq!(pairs["llama.attention.layer_norm_rms_epsilon"], 1e-5f32.to_bits().to_string());
    assert!(pairs["tokenizer.ggml.tokens"].starts_with("Ā,ā,"));
    let infos: Vec<(String, Vec<u64>, u64, u64)> = (0..tensors)
        .map(|_| {
            let (name, dimensions) = (reader.string(), reader.number(4));
            let extents = (0..dimensions).map(|_| reader.number(8)).collect();
            (name, extents, reader.number(4), reader.number(8))
        })
        .collect();
    let data = (file.len() - reader.0.len()).next_multiple_of(32);
    let mut left = expected(&states);
    assert_eq!(infos.len(), left.len());
    for (name, extents, kind, offset) in infos {
        let known = [
            ("token_embd", "model.embed_tokens"),
            ("output_norm", "model.norm"),
            ("output", "lm_head"),
            ("attn_norm", "input_layernorm"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_norm", "post_attention_layernorm"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ];
        let parts: Vec<&str> = name.split('.').collect();
        let (block, middle) = if parts[0] == "blk" { (Some(parts[1]), parts[2]) } else { (None, parts[0]) };
        let theirs = known.iter().find(|(ours, _)| *ours == middle).unwrap().1;
        let theirs =
            block.map_or(format!("{theirs}.weight"), |b| format!("model.layers.{b}.{theirs}.weight"));
        let (mut shape, values) = left.remove(&theirs).unwrap();
        let columns = *shape.last().unwrap();
        shape.reverse();
        assert_eq!((kind, extents), (0, shape.iter().map(|&e| e as u64).collect()), "{name}");
        assert_eq!(offset % 32, 0);
        let bytes = &file[data + offset as usize..][..4 * values.len()];
        let found = floats(bytes);
        // Row 2i + j of a head is row j * half + i of ours.
        let half = model.head_dim() as usize / 2;
        let source = |row: usize| {
            let (head, inside) = (row / (2 * half), row % (2 * half));
            if matches!(middle, "attn_q" | "attn_k") {
                head * 2 * half + inside % 2 * half + inside / 2
            } else {
                row
            }
        };
        for (row, found) in found.chunks_exact(columns).enumerate() {
            assert_eq!(found, &values[source(row) * columns..][..columns], "{name} row {row}");
        }
    }
    assert!(left.is_empty());
    let half = place.path().join("half.gguf");
    gguf::write(&weights, &states, gguf::Element::F16, &half).unwrap();
    assert!(half.metadata().unwrap().len() < path.metadata().unwrap().len());
}
