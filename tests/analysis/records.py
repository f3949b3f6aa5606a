"""A small analysis.json by hand, for what draws it."""

import numpy as np

GRID, TOKENS = (4, 4), 16


def make_record(steps=(0, 10, 20), *, objects=True, depth=3):
    """As `study_run` leaves it; numbers are random."""
    rng = np.random.default_rng(0)

    def layers(count, *shape):
        return rng.random((count, *shape)).tolist()

    def part(count):
        names = ["feature_variance", "similarity_variance", "relation_divergence"]
        names += ["attention_distance", "attention_nmi"]
        names += [
            f"{relation}_{kind}"
            for relation in ("cosine", "attention")
            for kind in ("intra", "inter")
        ]
        found = {name: layers(count) for name in names}
        return found | {"relative_log_amplitude": layers(count, 3)}

    def metrics():
        decoder = part(2) | {"mask_token_variance": layers(2)}
        for name in ("layer", "cumulated", "per_token"):
            decoder[f"exploitation_{name}"] = layers(2, 2, 2)
        partition = {
            name: rng.random()
            for name in ("share", "eigenvalue", "gap", "residual", "degenerate")
        }
        partition["spectrum"] = sorted(layers(TOKENS), reverse=True)
        masks = {
            name: {"loss": rng.random()} for name in ("random", "guided", "hinted")
        }
        if objects:
            partition |= {"ari": 0.5, "object_iou": 0.4, "right_side": 0.7}
            for mask in masks.values():
                mask |= {"object_iou": rng.random(), "object_recall": rng.random()}
        return {
            "encoder": part(depth),
            "decoder": decoder,
            "partition": partition,
            "masks": masks,
        }

    return {
        "schema": 1,
        "method": "mae",
        "source": "synthetic",
        "split": "test",
        "images": 5,
        "grid": list(GRID),
        "mask_ratio": 0.75,
        "seed": 0,
        "part": "encoder",
        "layer": -2,
        "relation": "cosine",
        "side": "cls_attention",
        "hint_ratio": 0.0625,
        "temperature": 1.0,
        "frequencies": [0.0, 0.5, 1.0],
        "steps": {str(step): metrics() for step in steps},
    }
