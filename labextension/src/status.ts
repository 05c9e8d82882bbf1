/** The status line of a turn in words. */

import type { ITranscript } from './transcript';

const ENDINGS: Record<string, string> = {
  stop: '',
  tool_calls: 'stopped after its tool calls',
  length: 'cut off: no room for more',
  interrupted: 'interrupted',
  error: 'ended by an error'
};

/** What the status line says; `live` tells a turn that runs from one that was running when the notebook was saved. */
export function statusText(transcript: ITranscript, live: boolean): string {
  const { state, progress, usage } = transcript;
  if (state === 'running') {
    if (!live) {
      return 'unfinished when it was saved';
    }
    return progress ? `Reading the prompt: ${progress.done} of ${progress.total} tokens` : 'Answering';
  }
  const speed = usage.completion_seconds > 0 ? usage.completion_tokens / usage.completion_seconds : 0;
  return [
    ENDINGS[state] ?? state,
    usage.completion_tokens ? `${usage.completion_tokens} tokens` : '',
    speed ? `${speed.toFixed(1)} tokens/s` : '',
    usage.time_to_first_token ? `first token after ${usage.time_to_first_token.toFixed(2)} s` : '',
    usage.context_size ? `context ${usage.context_used} of ${usage.context_size}` : '',
    transcript.recorded ? 'recorded' : ''
  ]
    .filter(Boolean)
    .join(' · ');
}
