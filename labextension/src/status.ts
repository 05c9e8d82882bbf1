/** The status line of a turn in words. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { count } from './gauge';
import type { ITranscript } from './transcript';

/** What the status line says; `live` tells a turn that runs from one that was running when the notebook was saved. */
export function statusText(transcript: ITranscript, live: boolean, trans: TranslationBundle): string {
  const { state, progress, usage } = transcript;
  if (state === 'running') {
    if (!live) {
      return trans.__('unfinished when it was saved');
    }
    if (transcript.segments.some(segment => segment.type === 'tool' && segment.state === 'asking')) {
      return trans.__('Waiting for your answer');
    }
    return progress
      ? trans.__('Reading the prompt: %1 of %2 tokens', count(progress.done), count(progress.total))
      : trans.__('Answering');
  }
  const tokens = usage.completion_tokens;
  const speed = usage.completion_seconds > 0 ? tokens / usage.completion_seconds : 0;
  const first = usage.time_to_first_token;
  return [
    ending(state, trans),
    tokens ? trans._n('%2 token', '%2 tokens', tokens, count(tokens)) : '',
    speed ? trans.__('%1 tokens/s', speed.toFixed(1)) : '',
    first ? trans.__('first token after %1 s', first.toFixed(2)) : '',
    usage.context_size
      ? trans.__('context %1 of %2', count(usage.context_used), count(usage.context_size))
      : '',
    transcript.recorded ? trans.__('recorded') : ''
  ]
    .filter(Boolean)
    .join(' · ');
}

function ending(state: string, trans: TranslationBundle): string {
  switch (state) {
    case 'stop':
      return '';
    case 'tool_calls':
      return trans.__('stopped after its tool calls');
    case 'length':
      return trans.__('cut off');
    case 'interrupted':
      return trans.__('interrupted');
    case 'error':
      return trans.__('ended by an error');
    default:
      return state;
  }
}
