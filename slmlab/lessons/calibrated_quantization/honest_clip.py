"""calibration.honest_clip: choose on one text, report on another."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.quant.calibration import LayerStatistics, output_error
from slmlab.quant.grid import from_codes, scales_and_zero_points, to_codes


def cases(seed: int) -> list[Case]:
    """The two texts disagree about the best ratio, in every case and clearly."""
    random = torch.Generator().manual_seed(seed)

    def case(
        tokens: int,
        rows: int,
        channels: int,
        ratios: list[float],
        both_like: str,
        weights_differ: bool = False,
    ) -> Case:
        # The text that both are to side with is the louder one.
        louder = torch.tensor([1.0, 1.5] if both_like == "evaluation" else [1.5, 1.0])
        while True:
            x = torch.randn(2, tokens, channels, generator=random)
            loud = louder[:, None, None] * (0.2 + 2 * torch.rand(2, 1, channels, generator=random))
            x = (x * loud).round(decimals=1)
            w = torch.randn(rows, channels, generator=random).round(decimals=2)
            arguments = {
                "w": w,
                "x_calibration": x[0],
                "x_evaluation": x[1],
                "ratios": ratios,
                "bits": 3,
            }
            if _texts_disagree(arguments, both_like, weights_differ):
                return Case(arguments)

    return [
        case(1, 1, 2, [1.0, 0.7], "evaluation"),
        case(2, 1, 3, [1.0, 0.7, 0.5], "calibration"),
        case(2, 1, 4, [1.0, 0.7, 0.5], "evaluation", weights_differ=True),
        case(8, 3, 12, [1.0, 0.9, 0.75, 0.6], "evaluation"),
    ]


def _texts_disagree(arguments: dict[str, Any], both_like: str, weights_differ: bool) -> bool:
    """Each text has a clear best ratio, they differ, and both together side with one of them.

    weights_differ: what moves the weights least is a third ratio.
    """
    ratios, w, bits = arguments["ratios"], arguments["w"], arguments["bits"]
    deltas = [_clipped(w, ratio, bits) - w for ratio in ratios]
    best = {}
    texts = {name: arguments[f"x_{name}"] for name in ("calibration", "evaluation")}
    for name, x in {**texts, "both": torch.cat(list(texts.values()))}.items():
        errors = torch.stack([(x @ delta.T).square().mean() for delta in deltas])
        least, second = errors.sort().values[:2].tolist()
        if least < 1e-4 or second < 1.03 * least:
            return False
        best[name] = int(errors.argmin())
    nearest = int(torch.stack([delta.square().mean() for delta in deltas]).argmin())
    steps = torch.stack([w / _step(w, ratio, bits) for ratio in ratios])
    return (
        bool(((steps - steps.floor() - 0.5).abs() > 1e-3).all())
        and best["calibration"] != best["evaluation"]
        and best["both"] == best[both_like]
        and (not weights_differ or nearest not in (best["calibration"], best["evaluation"]))
    )


def _step(w: Tensor, ratio: float, bits: int) -> Tensor:
    return ratio * w.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)


def _clipped(w: Tensor, ratio: float, bits: int, *, clamped: bool = True) -> Tensor:
    levels = 2 ** (bits - 1) - 1
    step = _step(w, ratio, bits)
    codes = (w / step).round()
    return (codes.clamp(-levels, levels) if clamped else codes) * step


def _errors(
    w: Tensor, x: Tensor, ratios: list[float], bits: int, *, clamped: bool = True
) -> Tensor:
    """Mean squared output error of each ratio, (ratios,)."""
    deltas = [_clipped(w, ratio, bits, clamped=clamped) - w for ratio in ratios]
    return torch.stack([(x @ delta.T).square().mean() for delta in deltas])


def reference(
    w: Tensor, x_calibration: Tensor, x_evaluation: Tensor, ratios: list[float], bits: int
) -> dict[str, float]:
    """Chosen on the calibration text, judged on the other; with the package's grid and error."""
    scheme = f"int{bits}-row"
    scales, _ = scales_and_zero_points(w, scheme)

    def error(ratio: float, x: Tensor) -> float:
        statistics = LayerStatistics.empty(x.shape[1])
        statistics.add(x)
        codes = to_codes(w, ratio * scales, None, scheme)
        delta = from_codes(codes, ratio * scales, None, scheme) - w
        return float(output_error(delta, statistics.second_moment).mean())

    best = min(ratios, key=lambda ratio: error(ratio, x_calibration))
    return {"ratio": best, "error": error(best, x_evaluation)}


def _chosen(
    w: Tensor,
    x_calibration: Tensor,
    x_evaluation: Tensor,
    ratios: list[float],
    bits: int,
    *,
    choose: str = "calibration",
    report: str = "evaluation",
    clamped: bool = True,
) -> dict[str, float]:
    texts = {
        "calibration": x_calibration,
        "evaluation": x_evaluation,
        "both": torch.cat((x_calibration, x_evaluation)),
    }
    found = {name: _errors(w, x, ratios, bits, clamped=clamped) for name, x in texts.items()}
    found["weights"] = torch.stack(
        [(_clipped(w, ratio, bits) - w).square().mean() for ratio in ratios]
    )
    best = int(found[choose].argmin())
    return {"ratio": ratios[best], "error": float(found[report][best])}


def _least_of_each(
    w: Tensor, x_calibration: Tensor, x_evaluation: Tensor, ratios: list[float], bits: int
) -> dict[str, float]:
    best = int(_errors(w, x_calibration, ratios, bits).argmin())
    return {
        "ratio": ratios[best],
        "error": float(_errors(w, x_evaluation, ratios, bits).min()),
    }


HONEST_CLIP = Exercise(
    id="calibration.honest_clip",
    title="Repair this: a clip that knows the exam",
    points=3,
    minutes=8,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "calibrated on the evaluation text",
            "The ratio is chosen on the text that judges it: the error looks smaller than it will "
            "be on any other text. Which of the two inputs may the choice see?",
            partial(_chosen, choose="evaluation"),
        ),
        Mistake(
            "error on the calibration text",
            "The ratio is right and its error is flattered: it is measured on the text that chose "
            "it. On which text does a reader of your table meet the model?",
            partial(_chosen, report="calibration"),
        ),
        Mistake(
            "chosen on both texts",
            "More text for the choice sounds harmless, and half of it is the exam: the ratio still "
            "knows the evaluation inputs. What is left to judge it?",
            partial(_chosen, choose="both"),
        ),
        Mistake(
            "chosen by the weights",
            "You take the ratio that moves the weights least, and no text has a say. Calibration "
            "asks for the smallest error of what, on which inputs?",
            partial(_chosen, choose="weights"),
        ),
        Mistake(
            "least error of any ratio",
            "The ratio is right, and the error belongs to another one: the smallest on the "
            "evaluation text. Which ratio would you ship?",
            _least_of_each,
        ),
        Mistake(
            "codes not clamped",
            "The step shrinks with the ratio and nothing is clipped: codes run beyond the largest "
            "level, into bits that are not there. What stops them?",
            partial(_chosen, clamped=False),
        ),
    ),
    hints=(
        "Replace the evaluation text by any other one: your ratio must stay, and only the error "
        "may change. Does it?",
        "Two ratios. On the calibration text they err by [3, 2], on the evaluation text by [4, 6]. "
        "The answer is the second ratio with an error of 6. Reporting 4 or 2 would be a better "
        "number and a worse measurement.",
        "quantised(ratio): step = ratio * largest |w| of the row / levels\n"
        "    codes = clamp(round(w / step), -levels, levels); codes * step\n"
        "error(ratio, x) = mean of the squares of x @ (quantised(ratio) - w).T\n"
        "best = ratio with the least error(ratio, x_calibration)\n"
        "return best and error(best, x_evaluation)",
    ),
    compare=Close(rtol=1e-3, atol=1e-6),
    alternatives=(_chosen,),
)
