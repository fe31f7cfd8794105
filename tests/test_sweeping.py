from domaintune.sweeping import trial_name


def test_a_trial_is_named_by_what_varies():
    typed = ["-m", "name=x", "optim.lr=1e-5,5e-5", "model=gpt2,distilgpt2", "optim.weight_decay=1e-2", "+a.b=1"]
    overrides = ["name=x", "optim.lr=5e-05", "model=gpt2", "optim.weight_decay=0.01", "+a.b=1"]
    assert trial_name(overrides, typed) == "optim.lr=5e-05,model=gpt2"


def test_what_an_experiment_or_a_sampler_adds_varies_too():
    assert trial_name(["seed=3", "optim.lr=0.2"], ["--multirun", "seed=3"]) == "optim.lr=0.2"


def test_a_value_with_a_slash_stays_one_folder():
    assert trial_name(["model.checkpoint=a/b"], ["model.checkpoint=a/b,c/d"]) == "model.checkpoint=a_b"


def test_a_sweep_of_one_has_a_name():
    assert trial_name(["seed=1"], ["-m", "seed=1"]) == "single"
