"""The remedies of docs/troubleshooting.md: a row for each kind of error."""

from __future__ import annotations

#: The remedy by the name of the error, in the order of the page, by chapter.
REMEDIES = {
    "Model and checkpoint": {
        "WeightsError": "Follow the message: it names the file and how to convert, download or allow it. "
        "[Refused models](your-own-model.md#refused-models) lists the usual cases.",
        "AnatomyError": "Look the type up in [model types](model-types.md). A type that needs a special treatment gets "
        "a row in `harness/models/kinds.py`.",
        "VlmError": "Load the processor of the same checkpoint, and call `harness.find_anatomy` on the same model.",
        "LinearError": "Dequantise the model or merge the adapter. [Quantised models and adapters]"
        "(your-own-model.md#quantised-models-and-adapters) lists the supported layers.",
        "OffloadError": "Load the model with the harness instead of dispatching it, or keep the named part on a "
        "device.",
        "ForwardError": "Read the named line of the model's code. The original error is the `__cause__` of this one. "
        "If the type is listed as measured in [model types](model-types.md), try the release of transformers named "
        "there.",
        "TokenIdError": "Use the tokenizer of this checkpoint, or resize the embedding to the tokenizer.",
        "AttentionError": "Load the model with `attn_implementation` `eager` or `sdpa`.",
        "SelfCheckError": "Do not trust readings of this model: a patch, a hook or a release changes what its layers "
        "return. Remove the patch or try another release of transformers.",
        "NotFiniteError": "Use a wider data type, for example bf16 instead of fp16. The affected samples are named and "
        "left out.",
    },
    "Prompt": {
        "PromptError": "Set `processor.chat_template`, or use the processor of the checkpoint.",
        "UnevenPromptsError": "Measure with a batch size of 1.",
        "EndlessTemplateError": "Simplify the chat template: it reached the limit of time, memory or length.",
        "TemplateProcessError": "Repeat the run. If it fails again, allow child processes and free memory.",
        "RenderingError": "Correct the chat template: the message is its own error.",
    },
    "Data": {
        "DataError": "Give a directory in the official layout. [Data sets](datasets.md) describes it.",
        "HubError": "Allow the download, or copy the hub's cache from a machine with a connection. For a gated "
        "repository accept its licence and set `HF_TOKEN`.",
        "SampleError": "Repair or remove the named samples. If the message names memory or NaN, see those rows.",
    },
    "Device, memory and cache": {
        "DeviceError": "Choose one of the devices that the message lists, or `auto`.",
        "MemoryShortageError": "Use a smaller data type, a larger device, or offload a part of the model. "
        "The batch has one sample already.",
        "CacheError": "Name a directory: `--phase-cache DIR`, the variable `VLM_PHASE_CACHE`, or "
        "`cache=Path(...)` in Python.",
        "ReadingCacheError": "Choose a cache directory that belongs to you and has free space, or measure without a "
        "cache of readings (`--phase-no-cache`).",
        "LockedError": "Wait for the process that the message names, or end it.",
        "ProcessError": "Start all processes with the same options, and read the error of the process that the "
        "message names. [Scale-out](scale-out.md) explains how processes work together.",
        "MeasureError": "Follow the message: it states which request contradicts the model or the dataset.",
    },
    "Baselines and claims": {
        "BaselineError": "Restore the named file from version control, or record it again.",
        "MissingBaselineError": "Record the baseline with the command of the message. [Baselines](baselines.md) "
        "explains when.",
        "BaselineExistsError": "Use the update option that replaces baselines if the change is intended.",
        "PaperError": "Restore `paper.json` from version control or install the package again.",
        "KnockoutError": "Measure this model without `--phase-knockout`: its attention cannot be blocked.",
        "KnownDifferencesError": "Correct the named line of `known_differences.toml`.",
        "RecordError": "Give the file of `--phase-json`, or `phase.json` of a report, written by this version.",
    },
    "Commands for developers": {
        "InstallError": "Read pip's message. Without a connection, create the environment on another machine.",
        "UnusableReleaseError": "Leave the release out, or repair its environment as the message says.",
        "StoppedError": "Repeat the command: it was interrupted.",
        "PromptFormError": "Add an image form for the type to `harness/releases/tiny/`.",
        "ExactnessError": "The harness reads this type wrongly: report it with the message.",
        "ProcessorError": "None in the harness: transformers cannot build this processor here.",
        "MissingLibraryError": "Install the named library to include the type.",
        "PageBlockError": "Restore the two markers of the generated block in the page.",
        "UnavailableError": "None: the cell of the table has this text.",
        "ResultsError": "Make the file of results again with the command of the page.",
        "RunLogError": "Make the log again with `python -m harness.lab.unchanged --json FILE`.",
        "UnchangedRunError": "Run the variation in the message again; the line behind it is the error of its process.",
    },
}
