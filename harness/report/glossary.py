"""The glossary: every term of the output and the documents, in one sentence each."""

from __future__ import annotations

from typing import NamedTuple


class Term(NamedTuple):
    """A term with its meaning; `former` is the word that earlier versions used, empty if there is none."""

    name: str
    meaning: str
    former: str = ""


#: Terms by chapter, in the order in which a reader meets them.
GLOSSARY: dict[str, tuple[Term, ...]] = {
    "Model and tokens": (
        Term("vision tower", "The image encoder of a vision-language model."),
        Term("projector", "The module that maps the output of the vision tower to the width of the language model."),
        Term("Q-Former", "The module of InstructBLIP that turns an image into a fixed number of query vectors."),
        Term("decoder layer", "One layer of the language model; layers count from 1 to the depth L."),
        Term("depth", "The number L of decoder layers."),
        Term("relative depth", "A layer divided by the depth: 0 is the embeddings, 1 the input of the final norm."),
        Term("residual stream", "The hidden states that each decoder layer reads and adds its output to."),
        Term(
            "residual point", "A position in the residual stream: point l = 0..L is the input of decoder layer l + 1."
        ),
        Term("final norm", "The normalisation after the last decoder layer; residual point L is its input."),
        Term("unembedding", "The matrix (`lm_head`) that maps a hidden state to logits over the vocabulary."),
        Term("image tokens", "The positions of the prompt that hold projected image features."),
        Term("text tokens", "All positions except image tokens, BOS, padding, and separators of image rows and tiles."),
        Term("instruction tokens", "The text tokens of the user's instruction, without the chat template."),
        Term("last token", "The last position of the prompt, from which the model generates its answer."),
        Term("chat template", "The template of the processor that turns image and instruction into a prompt."),
        Term(
            "anatomy", "The modules of a model that the harness observes: layers, final norm, unembedding, attention."
        ),
        Term(
            "bundled model",
            "A model that is part of this project and needs no model hub; its pairs are bundled pairs.",
            "embedded",
        ),
    ),
    "Measures": (
        Term("measure", "A quantity with one value per sample and per residual point or layer."),
        Term("family", "Measures that one test judges together, such as all attention shares."),
        Term("reading", "The values of all measures for one sample; readings are cached on disk."),
        Term("inter-modal similarity", "The mean cosine between image tokens and text tokens (`inter`)."),
        Term("intra-modal similarity", "The mean cosine between different tokens of one group (`image`, `text`)."),
        Term(
            "adjusted similarity",
            "Inter-modal similarity minus the mean cosine between image and text tokens of different samples.",
        ),
        Term("anisotropy", "The similarity that all tokens of a model share, independent of their content."),
        Term(
            "norm-based attention",
            "Attention of the last token by the norm of each token's contribution (weight times value vector).",
        ),
        Term("attention share", "The part of the last token's attention that falls on a token group, from 0 to 1."),
        Term("LogitLens", "Decoding a hidden state of any layer with the final norm and the unembedding."),
        Term("reference words", "The content words of a sample's captions."),
        Term(
            "recall",
            "The share of the reference words that LogitLens decodes among the top k tokens of some image token.",
        ),
        Term(
            "exit agreement",
            "The share of samples whose last token decodes, at a residual point, to the model's final top token.",
        ),
        Term("norm ratio", "The mean norm of the image tokens' states divided by that of the text tokens'."),
        Term("step cosine", "The mean cosine of a token's states before and after a layer; 1 if it changes nothing."),
        Term(
            "sink share",
            "The image's share of the last token's attention weights minus its share of the norms; positive at sinks, "
            "tokens with much weight and small values.",
        ),
        Term("instruction share", "The image's share of the attention weights of the instruction's tokens."),
        Term(
            "visual integration",
            "The cosine distance of the last token's state between the sample's image and the blank control.",
        ),
        Term(
            "attention knockout",
            "Attention to the image forbidden in some layers; the loss is the drop of a caption's log-likelihood.",
        ),
        Term("window", "Neighbouring layers that a knockout blocks together, a sixth of the depth unless requested."),
        Term("last needed layer", "The first layer from which on blocking the image costs less than 1 % of it."),
        Term("landmark", "A layer that is read off the mean curve of a measure, with its interval."),
        Term("Winoground scores", "Text, image and group score of Winoground, computed from caption likelihoods."),
    ),
    "Phases": (
        Term(
            "phase", "One of four parts of the depth, numbered I to IV; inter-modal similarity rises or falls in each."
        ),
        Term("alignment", "Phase I: inter-modal similarity rises in the first layers."),
        Term(
            "intra-modal encoding", "Phase II: inter-modal similarity falls while similarity within each group rises."
        ),
        Term("inter-modal encoding", "Phase III: inter-modal similarity rises again."),
        Term("output preparation", "Phase IV: all similarities fall in the last layers."),
        Term("phase boundary", "A turning point or a half-height of the inter-modal curve, with its interval."),
        Term("turning point", "The residual point at which one phase ends and the next begins."),
        Term("half-height", "The position at which a phase has completed half of its rise or fall."),
        Term("monotone segment", "A stretch of a curve that rises or falls by more than the prominence.", "move"),
        Term("rephrasing", "A second measurement of a pair with another instruction of the same meaning."),
        Term("prominence", "The smallest rise or fall that counts as a segment; verdicts use 10 % of the range."),
        Term("number of segments by prominence", "The number of segments as a function of the prominence.", "k(delta)"),
        Term("statistically confirmed", "True within simultaneous confidence bounds at the stated error.", "certified"),
        Term("reversal", "A change against the direction of its phase that exceeds the prominence."),
        Term("claim", "A statement of the paper, tested in parts; the decisive part determines the verdict."),
    ),
    "Verdicts": (
        Term("replication", "A judgement of the paper's claims for a model: holds, fails or inconclusive."),
        Term("regression", "A judgement of changes in a model since its baseline was recorded."),
        Term("baseline", "A stored profile with its margins; later runs are compared with it."),
        Term("reproduces", "Every sample is the same as in the baseline, within the tolerance."),
        Term("equivalent", "Samples changed, but the mean change is confirmed to lie within the margin."),
        Term("differs", "The mean change is confirmed to exceed the margin at some layer."),
        Term("inconclusive", "The data confirm neither answer.", "undecided, mute"),
        Term("effect", "The measured size: a mean difference, a rise, or a shift of a boundary."),
        Term("interval", "The confidence interval of an effect, simultaneous over all layers and measures."),
        Term("margin", "The largest mean change that counts as equivalent; stored in the baseline with its reason."),
        Term("tolerance", "The largest change of one sample that counts as reproduced."),
        Term("noise", "The largest change of a sample when only the environment changes."),
        Term("calibration", "Repeated measurements in other data types, backends and batches that give the noise."),
        Term("power", "The share of simulated faults that a comparison with a baseline detects."),
        Term("level and shape", "The two views of a curve: as measured, and minus each sample's mean over depth."),
        Term("independent rows", "Samples after averaging those that share an image or an item; their number is n."),
        Term("paired", "Compared sample by sample, because samples and inputs are those of the baseline."),
        Term("known difference", "A claim that is known to fail for a pair; its test is a strict expected failure."),
    ),
    "Controls": (
        Term("control", "A second measurement of the same samples without the information of the image."),
        Term("noise control", "Image features replaced by seeded Gaussian noise of the same norm per token."),
        Term("blank control", "The image replaced by a uniform grey image."),
        Term("chance", "Recall of the reference words of another sample."),
        Term("difference to the control", "Real minus control on the same samples.", "beyond the control"),
    ),
    "Runs and files": (
        Term("pair", "One model on one dataset; each pair is a parameter of every test case."),
        Term("sample", "One image with its instruction and its captions."),
        Term("profile", "The readings of all samples of a pair, with everything that the numbers depend on."),
        Term("record", "The JSON file of a run (`--phase-json`): curves, phases, verdicts and provenance."),
        Term("report", "The HTML page of a run (`--phase-report`)."),
        Term("provenance", "Versions, device, weights, settings and choices behind the numbers of a pair."),
        Term("summary", "A baseline that stores mean and covariance but no value of any sample."),
        Term("hooked/plain", "The time of a measured forward pass divided by that of a plain one."),
        Term("planted fault", "A deliberate defect in a bundled model that the suite must detect."),
    ),
}
