use super::*;

fn config(text: &str) -> Result<Config> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    Config::read(Preset::Default, Some(&path), one_process)
}

fn refusal(text: &str) -> String {
    config(text).err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn what_is_given_stands_and_the_rest_is_the_default() {
    let run = config("seed = 7\n[model]\ndim = 64\n[inner]\nlr = 1\n").unwrap().run(placeholder()).unwrap();
    assert_eq!((run.seed, run.model.dim, run.model.heads, run.inner.lr), (7, 64, 4, 1.0));
    let outer = config("[outer.nesterov]\nlr = 0.7\nmomentum = 0.9\nbits = 8\n").unwrap();
    assert!(matches!(outer.run(placeholder()).unwrap().outer, Outer::Nesterov { bits: 8, .. }));
}

#[test]
fn the_swarms_default_is_a_run_and_its_file_stands_over_it() {
    let data = Data { train_tokens: 1 << 20, ..placeholder() };
    let config = Config::read(Preset::Default, None, swarm).unwrap();
    let run = config.run(Data { sequences: config.sequences().unwrap(), ..data }).unwrap();
    config.check(&run).unwrap();
    assert_eq!(run.data.sequences, 4);
    let tokens = u64::from(run.miners_per_stage * run.inner.members) * run.microbatch_tokens();
    let alone = one_process(placeholder());
    assert_eq!(tokens * run.total_steps(), 2048 * alone.total_steps(), "as many tokens as one process");
}

#[test]
fn one_miner_a_stage_takes_the_same_step_in_more_microbatches_unless_it_is_told_how_many() {
    let shape = |text: &str, miners_per_stage| {
        let mut config = config(text).unwrap();
        config.base = swarm;
        let mut run = config.run(Data { sequences: config.sequences().unwrap(), ..placeholder() }).unwrap();
        run.miners_per_stage = miners_per_stage;
        fit_microbatches(&mut run, &config);
        (run.data.sequences, run.inner.members)
    };
    assert_eq!((shape("", 2), shape("", 1)), ((4, 2), (2, 4)));
    assert_eq!(shape("[inner]\nmembers = 2\n", 1), (4, 2));
    assert_eq!(shape("[data]\nsequences = 8\n", 1), (8, 2));
    assert_eq!(shape("[model]\nstages = [4]\n", 1), (4, 2));
}

#[test]
fn a_window_holds_a_stale_step_unless_the_file_says_how_long_it_is() {
    let every = |text: &str, staleness, steps| {
        let config = config(text).unwrap();
        let mut run = config.run(placeholder()).unwrap();
        (run.epoch.steps, run.epoch.count) = (steps, 1);
        Staleness { staleness }.apply(&mut run);
        fit_length(&mut run, &config);
        (run.inner.staleness, run.epoch.digest_every)
    };
    assert_eq!(every("", None, 6), (0, 1));
    assert_eq!(every("", Some(1), 6), (1, 2));
    assert_eq!(every("", Some(1), 60), (1, 10));
    assert_eq!(every("[inner]\nstaleness = 1\n", None, 6), (1, 2));
    assert_eq!(every("[inner]\nstaleness = 1\n[epoch]\ndigest_every = 1\n", Some(0), 6), (0, 1));
}

#[test]
fn what_is_drawn_is_a_sixth_of_an_epoch_and_both_prices_are_said() {
    let every = |text: &str| {
        let mut config = config(text).unwrap();
        config.base = swarm;
        let mut run = config.run(Data { sequences: config.sequences().unwrap(), ..placeholder() }).unwrap();
        fit_length(&mut run, &config);
        (run.epoch.digest_every, price_of_audits(&run))
    };
    let (default, price) = every("");
    assert_eq!(default, 3);
    assert!(price.ends_with("replaying one 15 % of an epoch's work"), "{price}");
    assert_eq!(every("[epoch]\ndigest_every = 7\n").0, 7);
}

#[test]
fn a_preset_is_a_run_and_a_file_stands_over_it() {
    let data = Data { train_tokens: 1 << 20, validation_tokens: 1 << 16, ..placeholder() };
    for base in [one_process, swarm] {
        let config = Config::read(Preset::Tiny, None, base).unwrap();
        assert_eq!(config.tokenizer().unwrap(), Some(Choice::Bytes));
        let run = config.run(Data { sequences: config.sequences().unwrap(), ..data.clone() }).unwrap();
        config.check(&run).unwrap();
        assert_eq!((run.model.dim, run.total_steps(), run.data.sequences), (64, 16, 2));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "[model]\nffn = 96\n").unwrap();
    let config = Config::read(Preset::Tiny, Some(&path), swarm).unwrap();
    let run = config.run(Data { sequences: 2, ..data }).unwrap();
    assert_eq!((run.model.dim, run.model.ffn), (64, 96));
}

#[test]
fn a_run_toml_is_a_configuration_of_its_own_text_alone() {
    let mut run = one_process(placeholder());
    run.data.train = spec::Digest([1; 32]);
    let again = config(&run.to_toml()).unwrap();
    let said = again.run(placeholder()).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(said.contains("data.train is 0101") && said.contains("the text gives 0000"), "{said}");
    assert_eq!(again.run(run.data.clone()).unwrap(), run);
}

#[test]
fn a_tokenizer_is_the_one_of_the_file_or_refused() {
    assert_eq!(config("seed = 1").unwrap().tokenizer().unwrap(), None);
    let bytes = config("[data]\ntokenizer = \"bytes\"\n").unwrap();
    assert_eq!(bytes.tokenizer().unwrap(), Some(Choice::Bytes));
    let bpe = Tokenizer::Bpe { file: spec::Digest([7; 32]), vocab: 4096 };
    let data = Data { tokenizer: bpe, ..placeholder() };
    let again = config(&one_process(data.clone()).to_toml()).unwrap();
    assert_eq!(again.tokenizer().unwrap(), Some(Choice::Train(4096)));
    assert_eq!(again.run(data.clone()).unwrap().model.vocab, 4096);
    let said = bytes.run(data).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(said.contains("data.tokenizer is bytes, the text comes with the tokenizer.json 0707"), "{said}");
}

#[test]
fn unknown_and_ill_typed_keys_are_named() {
    assert!(refusal("[model]\ndimm = 64\n").ends_with("unknown key `model.dimm`; did you mean `model.dim`?"));
    let scaling = "[model.rope_scaling]\nfactor = 2.0\nlow_freq_factor = 1\nhigh_freq_factor = 4\n";
    let run = config(&format!("{scaling}original_max_position = 64\n")).unwrap().run(placeholder()).unwrap();
    assert_eq!(run.model.rope_scaling.map(|scaling| scaling.original_max_position), Some(64));
    assert!(
        refusal(&format!("{scaling}original_max_positon = 64\n"))
            .contains("did you mean `model.rope_scaling.original_max")
    );
    assert!(refusal("sead = 1").ends_with("unknown key `sead`; did you mean `seed`?"));
    let said = refusal("[model]\ndim = \"wide\"\n");
    assert!(said.contains("model.dim is \"wide\" (string), expected a value of type integer"), "{said}");
    assert!(refusal("seed = 1\n[model\n").contains("line 2"), "{}", refusal("seed = 1\n[model\n"));
    assert_eq!(cut(5, 2).unwrap(), [3, 2]);
    assert_eq!(cut(4, 3).unwrap(), [1, 2, 1]);
    assert_eq!(cut(11, 4).unwrap(), [3, 3, 3, 2]);
    assert_eq!(cut(7, 1).unwrap(), [7]);
    assert!(cut(2, 3).err().is_some_and(|e| e.to_string().contains("--stages is 3, expected 1 to 2")));
}
