//! A directory that Hugging Face's libraries load as `LlamaForCausalLM`.
//!
//! The stages' weights files are its shards, byte for byte: names, shapes and rotary order are Hugging Face's already,
//! so a shard's BLAKE3 is still the one that the manifest signs.

use super::{vocabulary, write_json};
use crate::failure::Result;
use crate::weights::Weights;
use crate::whole;
use engine::StageState;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Writes it into `folder`.
pub fn write(weights: &Weights, states: &[StageState], folder: &Path) -> Result<()> {
    let (mut map, mut bytes_total) = (Map::new(), 0);
    for (index, (file, state)) in weights.stages.iter().zip(states).enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", index + 1, states.len());
        whole::write(&folder.join(&name), file)?;
        for entry in state.stage().layout().entries() {
            map.insert(entry.name.clone(), name.clone().into());
        }
        bytes_total += 4 * state.weights().len();
    }
    let index = json!({ "metadata": { "total_size": bytes_total }, "weight_map": map });
    write_json(&folder.join("model.safetensors.index.json"), &index)?;
    let end = weights.tokenizer.end_of_text();
    write_json(&folder.join("config.json"), &config(weights, end))?;
    write_json(
        &folder.join("generation_config.json"),
        &json!({ "bos_token_id": null, "eos_token_id": end, "pad_token_id": null }),
    )?;
    let (json, end_text) = vocabulary::tokenizer_json(&weights.tokenizer)?;
    whole::write(&folder.join("tokenizer.json"), &json)?;
    let mut tokenizer = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": weights.run.model.context,
        "clean_up_tokenization_spaces": false,
    });
    if let Some(end_text) = end_text {
        tokenizer["eos_token"] = end_text.into();
    }
    write_json(&folder.join("tokenizer_config.json"), &tokenizer)
}

fn config(weights: &Weights, end: Option<u32>) -> Value {
    let model = &weights.run.model;
    // As they are in f32: the shortest decimal that reads back to the same value, not the f64 next to it.
    let norm_eps = model.norm_eps.to_string().parse::<f64>().unwrap_or(f64::from(model.norm_eps));
    let mut rope = json!({ "rope_type": "default" });
    if let Some(scaling) = &model.rope_scaling {
        rope = json!({
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position,
        });
    }
    // Libraries before and after the change of name read one of each pair.
    let rope_scaling = model.rope_scaling.map(|_| rope.clone());
    rope["rope_theta"] = model.rope_theta.into();
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocab,
        "hidden_size": model.dim,
        "intermediate_size": model.ffn,
        "num_hidden_layers": model.blocks(),
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim(),
        "hidden_act": "silu",
        "max_position_embeddings": model.context,
        "rms_norm_eps": norm_eps,
        "rope_theta": model.rope_theta,
        "rope_scaling": rope_scaling,
        "rope_parameters": rope,
        "dtype": "float32",
        "torch_dtype": "float32",
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": false,
        "initializer_range": 0.02,
        "use_cache": true,
        "bos_token_id": null,
        "eos_token_id": end,
        "pad_token_id": null,
    })
}
