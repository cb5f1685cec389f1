"""Train the vision tower and projector of a bundled model.

Usage: python -m harness.lab.training.train [--model NAME] [--out DIR] [--resume].

Stage 0 trains the vision tower alone on the dense attribute loss. Stage 1 trains the tower and the randomly initialised
bridge (projector, or queries, Q-Former and projection). Its loss is that of the canonical captions through the frozen
language model plus the dense loss. Both stages use scenes of the training split only. The language model runs in
bfloat16; sums, norms and attention weights are in float32. To use the result, copy trained.safetensors and
training.json from --out to harness/models/bundled/NAME/. Then run harness.lab.training.evaluate --model NAME
--write-card.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import pickle
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save
from torch import nn
from torch.nn.functional import cross_entropy

from harness.data.scenes import Scene, scene
from harness.lab.training.dense import DenseHead, dense_loss, patch_labels
from harness.lab.training.trained_vision import (
    IGNORED,
    TRAINED_VISION,
    TrainedVision,
    caption_targets,
    prompt_ids,
    prompt_inputs,
)
from harness.models.weights_error import WeightsError
from harness.storage.cache_directory import default_cache
from harness.storage.files import write_atomically

_VALIDATION_SEED_OFFSET = 1_000_003


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Settings of a training run; two runs with the same plan on one machine differ only by rounding."""

    seed: int = 0
    steps_dense: int = 2500
    batch_dense: int = 96
    rate_dense: float = 1e-3
    steps_caption: int = 2000
    batch_caption: int = 24
    batch_beside: int = 72
    rate_tower: float = 3e-4
    rate_bridge: float = 1e-3
    dense_share: float = 0.5
    warm_up: int = 50
    weight_decay: float = 0.01
    clip: float = 1.0


class Trainer:
    """A training run with model, dense head, optimiser state and record; it can resume from its checkpoint."""

    def __init__(self, vision: TrainedVision, plan: TrainingPlan, cache: Path, out: Path) -> None:
        self.vision, self.plan, self.out = vision, plan, out
        self.model, self.processor = vision.module.load(cache, torch.bfloat16, trained=None, seed=plan.seed)
        vision.attend_in_float32(self.model)
        for layer in self.model.get_decoder().layers:
            layer.compile(dynamic=False)
        self.tower = self.model.get_submodule(vision.tower)
        for parameter in (*self.tower.parameters(), *vision.bridge(self.model)):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed + 1)
            self.head = DenseHead(self.model.config.vision_config.hidden_size, positions=not vision.ordered)
        self.prompt = prompt_inputs(self.processor)
        self.before, self.after = prompt_ids(self.processor, vision.module.IMAGE_TOKENS)
        self.record: dict[str, Any] = {"model": vision.name, "plan": asdict(plan), "curve": [], "seconds": 0.0}
        self.stage, self.step = 0, 0
        self.optimiser = self._optimiser()

    def run(self) -> None:
        """Train until the plan is complete."""
        for stage, steps in ((0, self.plan.steps_dense), (1, self.plan.steps_caption)):
            if self.stage > stage:
                continue
            if self.stage < stage:
                self._next_stage()
            while self.step < steps:
                start = time.time()
                metrics = self._train_step(steps)
                self.step += 1
                self.record["seconds"] += time.time() - start
                if self.step % 20 == 0 or self.step == steps:
                    self._record_metrics(metrics, time.time() - start)
                if self.step % 100 == 0 or self.step == steps:
                    self.save()
        self.save()

    def save(self) -> None:
        """Write checkpoint, trained tensors (float16) and record into the output directory, each atomically."""
        state = {
            "eyes": self._trained(),
            "head": self.head.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "stage": self.stage,
            "step": self.step,
            "record": self.record,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.out / "checkpoint.pt", buffer.getvalue())
        halves = {name: tensor.to(torch.float16).contiguous() for name, tensor in self._trained().items()}
        write_atomically(self.out / self.vision.trained.name, save(halves))
        versions = {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        }
        machine = {"versions": versions, "threads": torch.get_num_threads(), "machine": platform.machine()}
        text = json.dumps(self.record | machine, indent=1, sort_keys=True) + "\n"
        write_atomically(self.out / "training.json", text.encode())

    def resume(self) -> None:
        """Resume from the checkpoint in the output directory; the record lists the earlier plans."""
        state = read_checkpoint(self.out / "checkpoint.pt")
        if state["stage"] == 1:
            self._next_stage()
        self.model.load_state_dict(state["eyes"], strict=False)
        self.head.load_state_dict(state["head"])
        rates = [group["top"] for group in self.optimiser.param_groups]
        self.optimiser.load_state_dict(state["optimiser"])
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            group["top"] = rate
        self.stage, self.step = state["stage"], state["step"]
        self.record = state["record"]
        earlier = {"stage": self.stage, "step": self.step, "plan": self.record["plan"]}
        self.record |= {"plan": asdict(self.plan), "resumed": [*self.record.get("resumed", []), earlier]}

    def _trained(self) -> dict[str, torch.Tensor]:
        return {
            k: v.detach() for k, v in self.model.state_dict().items() if k.startswith(self.vision.module.TRAINED_PARTS)
        }

    def _next_stage(self) -> None:
        self.stage, self.step = self.stage + 1, 0
        self._match_embeddings()
        self.optimiser = self._optimiser()

    def _match_embeddings(self) -> None:
        """Scale the random bridge so that its output has the spread of the word embeddings."""
        with torch.no_grad():
            pixels, _ = self._image_batch([scene(index, self.plan.seed, "train") for index in range(32)])
            spread = self._embed_image(self._features(pixels)).float().std()
            target = self.model.get_input_embeddings().weight.float().std()
            self.model.get_submodule(self.vision.exit).weight.mul_(target / spread)

    def _optimiser(self) -> torch.optim.AdamW:
        plan = self.plan
        rate = plan.rate_tower if self.stage else plan.rate_dense
        groups = [{"params": list(self.tower.parameters()) + list(self.head.parameters()), "top": rate}]
        if self.stage:
            groups.append({"params": self.vision.bridge(self.model), "top": plan.rate_bridge})
        return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=plan.weight_decay)

    def _train_step(self, steps: int) -> dict[str, float]:
        plan = self.plan
        size = plan.batch_caption + plan.batch_beside if self.stage else plan.batch_dense
        first = self.step * size + (plan.steps_dense * plan.batch_dense if self.stage else 0)
        drawn = [scene(first + k, plan.seed, "train") for k in range(size)]
        for group in self.optimiser.param_groups:
            group["lr"] = group["top"] * schedule(self.step, steps, plan.warm_up)
        loss, metrics = self._losses(drawn, plan.batch_caption)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        parameters = [p for group in self.optimiser.param_groups for p in group["params"] if p.grad is not None]
        nn.utils.clip_grad_norm_(parameters, plan.clip)
        self.optimiser.step()
        return metrics

    def _losses(self, drawn: list[Scene], captioned: int) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss and its metrics: dense over all scenes, captions over the first `captioned` scenes."""
        pixels, labels = self._image_batch(drawn)
        features = self._features(pixels)
        dense, accuracy = dense_loss(self.head(features[:, 1:]), labels)
        metrics = {"dense": float(dense.detach()), **accuracy}
        if not self.stage:
            return dense, metrics
        caption, tokens, exact = self._caption_loss(
            self._embed_image(features[:captioned]), [s.captions()[0] for s in drawn[:captioned]]
        )
        metrics |= {"caption": float(caption.detach()), "tokens": tokens, "exact": exact}
        return caption + self.plan.dense_share * dense, metrics

    def _image_batch(self, drawn: list[Scene]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        pixels = np.stack([np.asarray(s.render()) for s in drawn])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1.0), patch_labels(
            drawn, positions=not self.vision.ordered
        )

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            features: torch.Tensor = self.tower(pixels).last_hidden_state
        return features.float()

    def _embed_image(self, features: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            rows = self.vision.embed_image(self.model, features, self.prompt)
        return rows.to(torch.bfloat16)

    def _caption_loss(self, image: torch.Tensor, captions: list[str]) -> tuple[torch.Tensor, float, float]:
        """Return the mean cross-entropy per caption token, and the shares of tokens and captions that are predicted."""
        ids, targets = caption_targets(self.processor, captions)
        embed = self.model.get_input_embeddings()
        before, after = (embed(part).expand(len(captions), -1, -1) for part in (self.before, self.after))
        rows = torch.cat([before, image, after, embed(ids)], dim=1)
        hidden = self.model.get_decoder()(inputs_embeds=rows, use_cache=False).last_hidden_state
        target = targets != IGNORED
        # Index to two dimensions, because the product of a three-dimensional slice and the head would copy the head.
        logits = self.model.get_output_embeddings()(hidden[:, -targets.shape[1] - 1 : -1][target]).float()
        right = logits.argmax(dim=-1) == targets[target]
        exact = torch.ones_like(target).masked_scatter(target, right).all(dim=1)
        return cross_entropy(logits, targets[target]), float(right.float().mean()), float(exact.float().mean())

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Return the losses on scenes of the training split that training does not use; the test split stays unused."""
        seed = self.plan.seed + _VALIDATION_SEED_OFFSET
        return self._losses([scene(index, seed, "train") for index in range(96)], captioned=96)[1]

    def _record_metrics(self, metrics: dict[str, float], seconds: float) -> None:
        row: dict[str, Any] = {"stage": self.stage, "step": self.step, **{k: round(v, 4) for k, v in metrics.items()}}
        if self.step % 100 == 0:
            row["validation"] = {k: round(v, 4) for k, v in self._validate().items()}
        self.record["curve"].append(row)
        print(json.dumps(row | {"step_seconds": round(seconds, 2)}), flush=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint of `Trainer.save`: tensors and plain values, no other pickled objects.

    Raises:
        WeightsError: the file is missing, damaged, or holds other objects, which are not unpickled.
    """
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"the checkpoint {path} cannot be read ({type(error).__name__}): a training run writes it; "
            "start from scratch without --resume"
        ) from error
    return state


def schedule(step: int, steps: int, warm_up: int) -> float:
    """Return the factor of the top learning rate: linear warm-up, then a half cosine down to 0.02."""
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the command line."""
    plan = TrainingPlan()
    parser = argparse.ArgumentParser(prog="python -m harness.lab.training.train", description=__doc__)
    parser.add_argument("--model", choices=sorted(TRAINED_VISION), default="scenes-llava")
    varied = ("seed", "steps_dense", "steps_caption", "batch_caption")
    for name in varied:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(plan, name))
    parser.add_argument("--out", type=Path, help="output directory (default: build/MODEL)")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="resume from the checkpoint in --out")
    options = parser.parse_args(None if arguments is None else list(arguments))
    torch.set_num_threads(options.threads)
    plan = TrainingPlan(**{name: getattr(options, name) for name in varied})
    trainer = Trainer(TRAINED_VISION[options.model], plan, options.cache, options.out or Path("build") / options.model)
    if options.resume:
        trainer.resume()
    trainer.run()


if __name__ == "__main__":
    main()
