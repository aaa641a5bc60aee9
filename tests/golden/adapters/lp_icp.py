"""Replays lp-icp.json: p-values of the powerset, thresholds, sizes and best label sets, and spaces beyond 1e16."""

import numpy as np

from hf_labels.labels.lp_icp import LabelPowersetICP


def replay(function: str, inputs: dict, params: dict) -> dict:
    d = params.get("d", 2)
    test = np.array(inputs["test_probs"])
    for key in ("cal_squared_scores", "cal_scores"):
        if key in inputs:
            icp = LabelPowersetICP.from_scores(inputs[key], test.shape[1], d=d)
            break
    else:
        icp = LabelPowersetICP(d=d).calibrate(np.array(inputs["cal_probs"]), np.array(inputs["cal_labels"]))
    levels = params["epsilons"] if "epsilons" in params else [params["epsilon"]]
    answers = icp.predict(test, levels)
    thresholds = [icp.threshold(level).score for level in levels]
    sizes = [[answer.size for answer in row] for row in answers]
    one = "epsilons" not in params
    best = [answer.members(5) for answer in answers[0]]
    wide = icp.predict(test, 0.5 / (icp.num_calibration + 1))  # all label sets, the best first
    ranked = [answer.members(5) for answer in wide]
    found = {
        "squared_thresholds": thresholds,
        "squared_threshold": thresholds[0],
        "set_sizes": sizes[0] if one else sizes,
        "set_sizes_row_eps": [list(row) for row in zip(*sizes, strict=True)],
        "best_sets": [rows.astype(int).tolist() for rows in best],
        "best": [[np.flatnonzero(row).tolist() for row in rows] for rows in ranked],
        "best_scores": [answer.scores(rows) for answer, rows in zip(wide, ranked, strict=True)],
        "credibility": [answer.credibility for answer in answers[0]],
        "confidence": [answer.confidence for answer in answers[0]],
    }
    if test.shape[1] <= 16:
        found["pvalue_numerators"] = np.rint(icp.powerset_p_values(test) * (icp.num_calibration + 1)).astype(int)
    return found
