"""OpenAI's JSON, both ways: messages, tools, tool_choice, response_format, completions and their chunks.

The only place where wire dictionaries are read or written. Reading is strict about what the form requires and silent about
what it does not know; every complaint is a WireError that names the path, e.g. ``messages[2].tool_calls[0].function.name``.

What OpenAI's form has no words for travels beside it: reasoning as ``reasoning_content``, the progress of the prompt as
``prompt_progress``, and under the key ``llm_magics`` whether a call is complete, recovered and trusted, exact usage, notes, and
finish reasons that OpenAI does not know. Other clients ignore these; streams of other servers, which lack them, are read too.
A message's ``token_ids`` and a step's ``record`` and ``recording`` stay where they were made.

Source: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from .chunks import ChunkDecoder as ChunkDecoder
from .chunks import ChunkEncoder as ChunkEncoder
from .chunks import chunks_from_openai as chunks_from_openai
from .chunks import chunks_to_openai as chunks_to_openai
from .completions import Envelope as Envelope
from .completions import completion_from_openai as completion_from_openai
from .completions import completion_to_openai as completion_to_openai
from .completions import usage_to_openai as usage_to_openai
from .conversation import messages_from_openai as messages_from_openai
from .conversation import messages_to_openai as messages_to_openai
from .conversation import response_format_from_openai as response_format_from_openai
from .conversation import response_format_to_openai as response_format_to_openai
from .conversation import tool_choice_from_openai as tool_choice_from_openai
from .conversation import tool_choice_to_openai as tool_choice_to_openai
from .conversation import tools_from_openai as tools_from_openai
from .conversation import tools_to_openai as tools_to_openai
