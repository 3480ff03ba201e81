//! The model, a Llama: which parameters a stage holds, how they start, how a stage runs.

mod block;
mod initial;
mod layout;
mod parts;
mod past;
mod stage;

pub use layout::{BLOCK_ROLES, Entry, Layout, Role};
pub use past::Past;
pub use stage::{Goal, Input, Rotary, Stage, scaling};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    #[test]
    fn the_stages_one_after_another_are_the_whole_model() {
        let (whole, cut) = (run(&[4]).model, run(&[1, 2, 1]).model);
        let of_whole = Stage::new(&whole, 0).unwrap();
        let parts: Vec<Stage> = (0..3).map(|index| Stage::new(&cut, index).unwrap()).collect();
        let name_id = |entry: &Entry| (entry.name.clone(), entry.id, entry.shape.clone());
        let of_parts: Vec<_> = parts.iter().flat_map(|part| part.layout().entries()).map(name_id).collect();
        assert_eq!(of_parts, of_whole.layout().entries().iter().map(name_id).collect::<Vec<_>>());
        let weights: Vec<f32> = parts.iter().flat_map(|part| part.initial_weights(9)).collect();
        assert_eq!(weights, of_whole.initial_weights(9));
        assert_eq!(weights.len() as u64, whole.parameters());

        let mut ids: Vec<u32> = of_parts.iter().map(|(_, id, _)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), of_parts.len(), "every tensor has a stream of its own");
    }

    #[test]
    fn names_are_those_of_hugging_face() {
        let stage = Stage::new(&run(&[3, 1]).model, 1).unwrap();
        let names: Vec<&str> = stage.layout().entries().iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "model.layers.3.input_layernorm.weight",
                "model.layers.3.self_attn.q_proj.weight",
                "model.layers.3.self_attn.k_proj.weight",
                "model.layers.3.self_attn.v_proj.weight",
                "model.layers.3.self_attn.o_proj.weight",
                "model.layers.3.post_attention_layernorm.weight",
                "model.layers.3.mlp.gate_proj.weight",
                "model.layers.3.mlp.up_proj.weight",
                "model.layers.3.mlp.down_proj.weight",
                "model.norm.weight",
                "lm_head.weight",
            ]
        );
    }

    #[test]
    fn seeds_give_weights_of_the_stated_deviation() {
        let stage = Stage::new(&run(&[2]).model, 0).unwrap();
        let (weights, other) = (stage.initial_weights(1), stage.initial_weights(1 << 40 | 1));
        for entry in stage.layout().entries().iter().filter(|entry| entry.shape.len() == 2) {
            let values = &weights[entry.range.clone()];
            let deviation = (values.iter().map(|w| w * w).sum::<f32>() / values.len() as f32).sqrt();
            let expected = match entry.role {
                Role::Embedding => 1.0,
                Role::AttentionOut | Role::Down => (1.0 / entry.shape[1] as f32).sqrt() / 2.0,
                _ => (1.0 / entry.shape[1] as f32).sqrt(),
            };
            assert!(
                (deviation / expected - 1.0).abs() < 0.12,
                "{}: {deviation} against {expected}",
                entry.name
            );
            assert_ne!(
                values,
                &other[entry.range.clone()],
                "{}: the high half of the seed counts",
                entry.name
            );
        }
    }

    #[test]
    fn a_sequence_alone_has_the_bits_it_has_in_a_batch() {
        let stage = Stage::new(&run(&[2]).model, 0).unwrap();
        let weights = stage.initial_weights(1);
        let tokens: Vec<u32> = (0..36).map(|i| i * 41 % 256).collect();
        let logits = |tokens: &[u32]| {
            stage.forward(&weights, Input::Tokens(tokens), Goal::Logits, 12).unwrap().into_last().unwrap()
        };
        let batch = logits(&tokens);
        for (alone, in_batch) in tokens.chunks(12).zip(batch.data().chunks(12 * 256)) {
            assert!(logits(alone).data() == in_batch);
        }
    }
}
