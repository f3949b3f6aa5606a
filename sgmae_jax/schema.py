"""Every field of a config: its default, what it may be, and what it means.

The fields below `method.` belong to the methods and stand in their files.
"""

from __future__ import annotations

from sgmae_jax import rules, sources
from sgmae_jax.rules import Field

FIELDS: dict[str, Field] = {
    "task": Field(
        "pretrain",
        rules.choice(
            *("pretrain", "evaluate", "export", "import", "analyze", "compare"),
            *("laboratory", "submit"),
        ),
        "what to do",
    ),
    "seed": Field(0, rules.integer(0, 2**31 - 1), "root of all randomness"),
    "epochs": Field(None, rules.optional(rules.integer(1)), "length; or `steps`"),
    "steps": Field(None, rules.optional(rules.integer(1)), "length; or `epochs`"),
    "data.source": Field(
        "synthetic",
        rules.optional(sources.rule),
        sources.words(),
    ),
    "data.path": Field("", rules.path, "folder or archive; TFDS data directory"),
    "data.split": Field("train", rules.split, "what to train on"),
    "data.image_size": Field(32, rules.size, "pixels; an integer or (height, width)"),
    "data.channels": Field(3, rules.choice(1, 3, 4), "images are converted to these"),
    "data.batch_size": Field(64, rules.integer(1), "global, before accumulation"),
    "data.in_memory": Field(False, rules.boolean, "hold decoded images in memory"),
    "data.cache": Field(
        "", rules.path, "folder that keeps decoded pixels; empty: none"
    ),
    "data.threads": Field(
        None, rules.optional(rules.integer(1)), "decoders; None: cores"
    ),
    "data.prefetch": Field(4, rules.integer(1), "batches made ahead"),
    "data.timeout": Field(
        300.0,
        rules.number(0, low_open=True),
        "seconds to wait for a batch, then stop",
    ),
    "data.max_bad_fraction": Field(
        0.001, rules.number(0, 1), "stop when more of the images are bad"
    ),
    "data.crop_scale": Field(
        (0.2, 1.0), rules.interval(0, 1, low_open=True), "area share of a random crop"
    ),
    "data.crop_ratio": Field(
        (3 / 4, 4 / 3), rules.interval(0, 100, low_open=True), "aspect ratio of a crop"
    ),
    "data.crop_clip": Field(
        False, rules.boolean, "cut a crop that does not fit, instead of drawing again"
    ),
    "data.flip": Field(True, rules.boolean, "flip half of the images left to right"),
    "data.rand_augment": Field(
        None,
        rules.optional(rules.pair_of(rules.number(0, 10), rules.number(0))),
        "magnitude and deviation of RandAugment, e.g. (9, 0.5); None: off",
    ),
    "data.mean": Field(
        (0.485, 0.456, 0.406), rules.per_channel(-10), "of pixels in [0, 1]"
    ),
    "data.std": Field(
        (0.229, 0.224, 0.225), rules.per_channel(0, low_open=True), "of pixels"
    ),
    # Rows of tables and texts; see sgmae_jax/domains/rows.py.
    "table.target": Field("", rules.column, "column to predict; empty: none"),
    "table.task": Field(
        "classification",
        rules.choice("classification", "regression"),
        "what the target holds: classes or numbers",
    ),
    "table.columns": Field(
        (), rules.several(rules.column), "inputs; empty: all others"
    ),
    "table.ignore": Field(
        (), rules.several(rules.column), "columns that are no inputs"
    ),
    "table.categorical": Field(
        (), rules.several(rules.column), "numbers that are categories"
    ),
    "table.text": Field("text", rules.column, "column that data.source = 'text' reads"),
    "table.length": Field(128, rules.integer(2), "bytes of a text, one separator more"),
    "table.overlong": Field(
        "refuse", rules.choice("refuse", "cut"), "what to do with a longer text"
    ),
    "table.packed": Field(
        False, rules.boolean, "fill a row with the texts that follow"
    ),
    "table.header": Field(
        True, rules.boolean, "the first line has names; else they are '0', '1', ..."
    ),
    "table.delimiter": Field("", rules.text, "of cells; empty: by the file's suffix"),
    "table.blanks": Field(
        ("", "NA", "N/A", "null"),
        rules.several(rules.text),
        "words that stand for no value",
    ),
    "table.unseen": Field(
        "refuse",
        rules.choice("refuse", "missing"),
        "a category that the training rows have not",
    ),
    "table.max_categories": Field(256, rules.integer(2), "different words of a column"),
    "table.test_path": Field("", rules.path, "file of the split test"),
    "table.metric": Field(
        "auto",
        rules.choice("auto", "rmse", "spearman", "roc_auc", "accuracy"),
        "what eval.choose_best goes by; auto: rmse, roc_auc or accuracy",
    ),
    # Scenes of traffic.
    "motion.agents": Field(
        (32, 64, 96),
        rules.one_or_more(rules.integer(1)),
        "sizes that batches are padded to, agents",
    ),
    "motion.lanes": Field(
        (96, 160, 256),
        rules.one_or_more(rules.integer(1)),
        "sizes that batches are padded to, lanes",
    ),
    "motion.view": Field(
        "focal", rules.choice("focal", "vehicle"), "whose frame a scene is in"
    ),
    "motion.bad": Field(
        "skip", rules.choice("skip", "refuse"), "scenes that cannot be used"
    ),
    "motion.cache": Field("", rules.path, "of features; empty: the user's cache"),
    "motion.test": Field(
        (), rules.several(rules.text), "files that make the split test"
    ),
    "motion.validation": Field(
        (), rules.several(rules.text), "files that make the split validation"
    ),
    "model.preset": Field("", rules.text, "a named size, e.g. vit_b; empty: free"),
    "model.patch_size": Field(4, rules.size, "pixels; an integer or (height, width)"),
    "model.width": Field(None, rules.optional(rules.integer(4)), "None: the preset's"),
    "model.depth": Field(None, rules.optional(rules.integer(1)), "None: the preset's"),
    "model.heads": Field(None, rules.optional(rules.integer(1)), "None: the preset's"),
    "model.mlp_ratio": Field(4.0, rules.number(0, low_open=True), "hidden / width"),
    "model.norm_eps": Field(1e-6, rules.number(0, low_open=True), "of every norm"),
    "model.decoder_width": Field(512, rules.integer(4), ""),
    "model.decoder_depth": Field(8, rules.integer(0), "0: no blocks"),
    "model.decoder_heads": Field(16, rules.integer(1), ""),
    "model.decoder_window": Field(
        None,
        rules.optional(rules.integer(0)),
        "a patch attends to this many tokens in each direction; None: all",
    ),
    "model.positions": Field("sincos", rules.choice("sincos", "learned"), ""),
    "model.dtype": Field("float32", rules.choice("float32", "bfloat16"), "of compute"),
    "model.attention": Field("matmul", rules.choice("matmul", "xla", "cudnn"), ""),
    "model.unroll": Field(1, rules.integer(1), "layers written out per scan step"),
    "model.remat": Field("dots", rules.choice("none", "dots", "full"), ""),
    "mask.fn": Field(
        "sgmae_jax.masking:random_mask", rules.dotted, "package.module:function"
    ),
    "mask.ratio": Field(
        0.75, rules.number(0, 1, low_open=True, high_open=True), "share hidden"
    ),
    "mask.ratio_end": Field(
        None,
        rules.optional(rules.number(0, 1, low_open=True, high_open=True)),
        "share hidden at the end of a linear schedule; None: constant",
    ),
    "mask.buckets": Field(5, rules.integer(2, 32), "ratios a schedule may take"),
    "mask.options": Field({}, rules.mapping, "keyword arguments of mask.fn"),
    "method.name": Field("mae", rules.name, "see sgmae_jax/methods"),
    "optim.base_lr": Field(1.5e-4, rules.number(0, low_open=True), "for 256 images"),
    "optim.min_lr": Field(0.0, rules.number(0), "where the cosine ends"),
    "optim.warmup_epochs": Field(0.0, rules.number(0), "linear from zero"),
    "optim.weight_decay": Field(0.05, rules.number(0), "not on biases and norms"),
    "optim.b1": Field(0.9, rules.number(0, 1, high_open=True), "AdamW"),
    "optim.b2": Field(0.95, rules.number(0, 1, high_open=True), "AdamW"),
    "optim.eps": Field(1e-8, rules.number(0, low_open=True), "AdamW"),
    "optim.clip_norm": Field(
        None, rules.optional(rules.number(0, low_open=True)), "global norm; None: off"
    ),
    "optim.spike": Field(
        None,
        rules.optional(rules.number(1, low_open=True)),
        "a step is void if its gradient exceeds the median by this; None: off",
    ),
    "optim.spike_window": Field(64, rules.integer(2), "good steps in that median"),
    "optim.accumulate": Field(1, rules.integer(1), "micro-batches a step"),
    "mesh.data": Field(
        None, rules.optional(rules.integer(1)), "None: all that is left"
    ),
    "mesh.fsdp": Field(1, rules.integer(1), "devices that share one copy of the state"),
    "mesh.rules": Field(
        (("(^|/)(bias|scale)$", "whole"), ("", "largest")),
        rules.placements,
        "pairs (regular expression, place); the first that is found in an array's name "
        "says over which axis of the mesh its dimensions are divided",
    ),
    # The processes of a job that spans several; see docs/scaling.md.
    "distributed.cluster": Field(
        "auto",
        rules.choice(
            *("auto", "none", "slurm", "ompi", "mpi4py", "k8s", "gcetpu", "gketpu")
        ),
        "what starts the processes; auto: what is found; none: there is one alone",
    ),
    "distributed.coordinator": Field(
        None, rules.optional(rules.address), "host:port of process 0"
    ),
    "distributed.processes": Field(
        None, rules.optional(rules.integer(1)), "how many there are"
    ),
    "distributed.process": Field(
        None, rules.optional(rules.integer(0)), "which one this is"
    ),
    "distributed.heartbeat": Field(
        20, rules.integer(1), "seconds of silence after which a process counts as dead"
    ),
    "distributed.timeout": Field(
        300, rules.integer(1), "seconds that processes wait for each other at the start"
    ),
    "checkpoint.every": Field(500, rules.integer(1), "steps"),
    "checkpoint.keep": Field(3, rules.integer(2), "newest checkpoints kept"),
    "checkpoint.keep_period": Field(
        None, rules.optional(rules.integer(1)), "steps divisible by it stay for good"
    ),
    "checkpoint.max_failures": Field(3, rules.integer(1), "saves lost in a row"),
    "checkpoint.timeout": Field(
        1800, rules.integer(1), "seconds a save may take before it counts as lost"
    ),
    "checkpoint.allow_data_change": Field(
        False, rules.boolean, "go on with another data set or batch size"
    ),
    "checkpoint.path": Field(
        "", rules.path, "run to evaluate, export, analyze; or weights"
    ),
    # How weights that are no run of ours are read, and how ours are written.
    "weights.format": Field(
        "ours", rules.choice("ours", "timm", "huggingface"), "whose names to export"
    ),
    "weights.allow_pickle": Field(
        False, rules.boolean, "read PyTorch files, by a reader that executes nothing"
    ),
    "weights.sha256": Field("", rules.sha256, "of the file to read; empty: any"),
    "weights.image_size": Field(
        None, rules.optional(rules.size), "pixels; None: as in the file"
    ),
    "weights.channels": Field(
        None, rules.optional(rules.choice(1, 3, 4)), "None: as in the file"
    ),
    "weights.heads": Field(
        None, rules.optional(rules.integer(1)), "where the file does not say"
    ),
    "weights.decoder_heads": Field(
        None, rules.optional(rules.integer(1)), "where the file does not say"
    ),
    "log.every": Field(20, rules.integer(1), "steps"),
    "log.pictures": Field(0, rules.integer(0), "steps between pictures; 0: at the end"),
    "log.tensorboard": Field(True, rules.boolean, "write TensorBoard events"),
    "eval.every": Field(0, rules.integer(0), "steps between scores; 0: at the end"),
    "eval.fit_split": Field("train", rules.split, "labelled images that may be used"),
    "eval.split": Field("test", rules.split, "images that are scored"),
    "eval.validation_split": Field(
        None, rules.optional(rules.split), "labelled images that choices are made on"
    ),
    "eval.choose_best": Field(
        False, rules.boolean, "keep the step that is best on eval.validation_split"
    ),
    "eval.patience": Field(
        None,
        rules.optional(rules.integer(1)),
        "scores without a new best (eval.choose_best) before a run ends early",
    ),
    "eval.protocols": Field(
        ("knn", "probe"),
        rules.one_or_more(
            rules.choice("knn", "probe", "discriminant", "lars", "few_shot")
        ),
        "what is asked of frozen features",
    ),
    "eval.fit_limit": Field(10_000, rules.integer(2), "images at most"),
    "eval.limit": Field(10_000, rules.integer(1), "images at most"),
    "eval.batch_size": Field(256, rules.integer(1), ""),
    "eval.pool": Field("mean", rules.choice("mean", "cls"), "feature of an image"),
    "eval.crop": Field(0.875, rules.number(0, 1, low_open=True), "central share"),
    "eval.neighbours": Field(
        20,
        rules.one_or_more(rules.integer(1)),
        "k of kNN; of several, eval.validation_split chooses",
    ),
    "eval.temperature": Field(0.07, rules.number(0, low_open=True), "of kNN weights"),
    "eval.shots": Field(
        (1, 5, 10), rules.one_or_more(rules.integer(1)), "images a class of few_shot"
    ),
    "eval.draws": Field(5, rules.integer(1), "of these images"),
    "eval.lars_epochs": Field(90, rules.integer(1), "of the probe by LARS"),
    "eval.lars_batch_size": Field(512, rules.integer(2), "features a step"),
    "eval.lars_rate": Field(6.4, rules.number(0, low_open=True), "its peak"),
    "eval.baselines": Field(
        True, rules.boolean, "raw pixels and untrained encoder too"
    ),
    "analyze.images": Field(64, rules.integer(1), "images of eval.split, at most"),
    "analyze.pictures": Field(8, rules.integer(0), "of these, how many are shown"),
    "analyze.checkpoints": Field(
        20, rules.integer(1), "at most, evenly chosen, first and last included"
    ),
    "analyze.layer": Field(-2, rules.layer, "whose tokens are divided in two"),
    "analyze.part": Field("encoder", rules.choice("encoder", "decoder"), "of which"),
    "analyze.relation": Field(
        "cosine", rules.choice("cosine", "attention"), "what joins two tokens"
    ),
    "analyze.side": Field(
        "cls_attention",
        rules.choice("cls_attention", "seed", "size", "border"),
        "which side of the cut is the object",
    ),
    "analyze.hint_ratio": Field(
        0.0625, rules.number(0, 1), "share of the hidden tokens given as hints"
    ),
    "analyze.temperature": Field(
        1.0, rules.number(0, low_open=True), "of the divergence of token relations"
    ),
    "compare.runs": Field(
        ("",), rules.one_or_more(rules.path), "directories with scores"
    ),
    "laboratory.runs": Field(
        ("",), rules.one_or_more(rules.path), "directories of runs on images"
    ),
    "laboratory.ratios": Field(
        (0.25, 0.5, 0.6, 0.75, 0.9),
        rules.one_or_more(rules.number(0, 1, low_open=True, high_open=True)),
        "shares hidden for attention distance and receptive fields",
    ),
    "laboratory.masks": Field(
        32, rules.integer(2), "that means of predictions are taken over"
    ),
    "laboratory.pairs": Field(4, rules.integer(1), "of masks that tokens meet under"),
    "laboratory.queries": Field(
        16, rules.integer(1), "patches of an image with a receptive field, at most"
    ),
    "guard.budget": Field(10, rules.integer(0), "non-finite steps in a window"),
    "guard.window": Field(1000, rules.integer(1), "steps"),
    "profile.start": Field(0, rules.integer(0), "first profiled step; 0: never"),
    "profile.steps": Field(3, rules.integer(1), "steps profiled"),
}
# Their inside is the user's: any names are allowed there.
OPEN_SECTIONS = ("mask.options",)
