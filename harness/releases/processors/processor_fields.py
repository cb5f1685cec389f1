"""Arguments and attributes of processor classes that a checkpoint's own files would give."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

#: By parameter name: the value, where the processor class has no default or None.
PROCESSOR_ARGUMENTS: Mapping[str, Any] = MappingProxyType(
    {
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_query_tokens": 8,
        "num_image_tokens": 16,
        "downsample_rate": "4/8",
    }
)

#: By name: attributes of image processors that some processor classes require and older releases do not set.
IMAGE_PROCESSOR_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({"image_seq_length": 16})

#: A chat template for processors that write their own messages: the texts, and a placeholder for each picture.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ part['text'] if part['type'] == 'text' else '<boi_token>' }}{% endfor %}{% endfor %}"
)
#: Texts that stand for a picture, as names of the processor's or its tokenizer's tokens; the first has no text.
PLACEHOLDERS: tuple[tuple[str, ...], ...] = (
    ("image_token",),
    (),
    ("boi_token",),
    ("image_placeholder_token",),
    ("image_start_token", "image_token", "image_end_token"),
)

#: Upper bounds of the image processors' fields, by dotted path, that keep pictures small.
SMALL_FIELDS: Mapping[str, int] = MappingProxyType(
    {"max_num_tiles": 4, "max_image_tiles": 4, "max_patches": 256, "size.longest_edge": 728}
)
#: Edges above this are areas in pixels, which are left as they are.
LONGEST_EDGE = 8192
