"""OpenAI's JSON, both ways: messages, tools, tool_choice, response_format, completions and their chunks.

Only this room reads and writes wire dictionaries. A missing or wrong part raises WireError with its path, e.g.
``messages[2].tool_calls[0].function.name``; unknown keys are ignored.

More than OpenAI's form can say is written beside it: reasoning as ``reasoning_content``, the prompt's progress as
``prompt_progress``, and under the key ``llm_magics`` whether a call is complete, recovered and trusted, exact usage, notes, and
finish reasons that OpenAI does not know. Other clients ignore these keys, and streams of other servers may lack them. A
message's ``token_ids`` and a step's ``record`` and ``recording`` are not written.

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
from .foreign import ForeignDecoder as ForeignDecoder
from .foreign import foreign_messages as foreign_messages
