"""The profile of a pair, assembled from everything that was measured of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.measurement.arrays import cosines_between_samples, measured_arrays, stacked_rows, visual_integration
from harness.measurement.control_curves import ControlCurves, declared_controls
from harness.measurement.plan import Plan
from harness.measurement.reading_keys import MEASUREMENT_VERSION, POLICY
from harness.models.likelihood import LIKELIHOOD_POLICY
from harness.models.prompts.chat import prompt_text, template_date
from harness.models.vlm import Vlm
from harness.probe.lens_task import KS
from harness.probe.separators import SEPARATOR_POLICY, has_separators
from harness.probe.vocabulary import LENS_POLICY
from harness.profile.environment import environment
from harness.profile.measures import INTEGRATION
from harness.profile.profile import AS_TEXT, ONE_PER_SAMPLE, Array, Profile


@dataclass(frozen=True, slots=True)
class Observed:
    """The plan without refused samples, with readings per sample, controls, word-order likelihoods and knockout.

    `knockout` holds the arrays and the declaration of `measure_knockout`, both empty if it was not requested.
    """

    plan: Plan
    rows: Sequence[dict[str, Array]]
    controls: Mapping[str, ControlCurves]
    word_order: Mapping[str, Array]
    knockout: tuple[Mapping[str, Array], Mapping[str, Any]]


def assemble_profile(vlm: Vlm, dataset: str, observed: Observed, bos: str, weights: str, control_seed: int) -> Profile:
    """Return the profile of a pair.

    Args:
        vlm: the model.
        dataset: the name of the dataset.
        observed: everything that was measured.
        bos: the text of the BOS token, empty without one.
        weights: the hash of the weights.
        control_seed: the seed of the noise control.
    """
    plan, controls, stacked = observed.plan, observed.controls, stacked_rows(observed.rows)
    instructions = {sample.instruction for sample in plan.samples}
    integration = {}
    if blank := controls.get(INTEGRATION.control):
        integration["visual_integration"] = visual_integration(stacked["last_units"], blank.last_units)
    return Profile(
        model=vlm.name,
        dataset=dataset,
        sample_ids=tuple(sample.id for sample in plan.samples),
        clusters=tuple(sample.cluster for sample in plan.samples),
        token_hashes=tuple(str(name) for name in stacked["tokens"]),
        pixel_hashes=tuple(str(name) for name in stacked["pixels"]),
        arrays=measured_arrays(
            stacked,
            [len(words) for words in plan.references.words],
            [len(words) for words in plan.references.chance_words],
            recall=not plan.no_recall,
        )
        | integration
        | dict(observed.word_order)
        | dict(observed.knockout[0]),
        declared={
            "instruction": instructions.pop() if len(instructions) == 1 else ONE_PER_SAMPLE,
            "prompt": prompt_text(vlm.processor, "INSTRUCTION"),
            "first_token": f"BOS {bos}, no text" if bos else AS_TEXT,
            **({"template_date": date} if (date := template_date(vlm.processor)) else {}),
            **({"image_tokens": SEPARATOR_POLICY} if has_separators(vlm.model) else {}),
            **POLICY,
            "lens": LENS_POLICY,
            "lens_ks": list(KS),
            "chance_words": "those of the next sample of another cluster",
            **({"recall_left_out": plan.no_recall} if plan.no_recall else {}),
            "measurement": MEASUREMENT_VERSION,
            "controls": declared_controls(controls, control_seed, len(plan.samples)),
            **({"likelihood": LIKELIHOOD_POLICY} if observed.word_order or observed.knockout[0] else {}),
            **observed.knockout[1],
        },
        environment=environment(vlm.device, vlm.dtype, vlm.attention),
        weights=weights,
        revision=vlm.revision,
        controls={name: control.curves for name, control in controls.items()},
        control_samples={name: control.sample_ids for name, control in controls.items()},
        between_samples=cosines_between_samples(stacked),
    )
