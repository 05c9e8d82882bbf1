/** A page that notes what it is asked to do, and transcripts to show on it. */

import { nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import type { IHost } from '../src/host';
import type { Decision, IQuestion } from '../src/live';
import { type ILook, Preferences } from '../src/preferences';
import type { IToolSegment, ITranscript, Segment } from '../src/transcript';

export const english = nullTranslator.load('llm_magics');

export class NotingHost implements IHost {
  readonly noted: string[] = [];
  busy = true;
  look: ILook = new Preferences().look;

  constructor(readonly trans: TranslationBundle = english) {}

  async highlight(code: string, language: string, element: HTMLElement): Promise<void> {
    this.noted.push(`highlight ${language}`);
    const span = document.createElement('span');
    span.className = 'coloured';
    span.textContent = code;
    element.append(span);
  }
  typeset(element: HTMLElement): void {
    this.noted.push(`typeset ${element.textContent}`);
  }
  async drawStatic(model: { data: Record<string, any> }): Promise<HTMLElement | null> {
    this.noted.push('static');
    const node = document.createElement('p');
    node.textContent = model.data['text/html'] ?? '';
    return node;
  }
  copy(text: string): void {
    this.noted.push(`copy ${text}`);
  }
  insertBelow(code: string): boolean {
    this.noted.push(`insert ${code}`);
    return true;
  }
  runAbove(line: string): boolean {
    this.noted.push(`run above ${line}`);
    return true;
  }
  stop(turn: string): void {
    this.noted.push(`stop ${turn}`);
  }
  interrupt(): void {
    this.noted.push('interrupt');
  }
  isBusy(): boolean {
    return this.busy;
  }
  decide(turn: string, { id, digest }: IQuestion, decision: Decision): void {
    this.noted.push(`${decision} ${id} ${digest} of ${turn}`);
  }
}

export function transcript(
  segments: Segment[],
  state = 'stop',
  more: Partial<ITranscript> = {}
): ITranscript {
  return {
    turn: 't1',
    model: 'tiny',
    state,
    segments,
    progress: null,
    usage: {},
    seconds: 0,
    recorded: false,
    reasoning: null,
    ...more
  };
}

export function said(text: string): Segment {
  return { type: 'text', step: 0, text };
}

export function call(more: Partial<IToolSegment> = {}): IToolSegment {
  return {
    type: 'tool',
    step: 0,
    index: 0,
    id: 'c1',
    name: 'weather',
    arguments: '{"city": "Oslo"}',
    state: 'done',
    recovered: '',
    source: '',
    ask: null,
    printed: '',
    outputs: [],
    result: 'rain',
    is_error: false,
    seconds: 1.5,
    warnings: [],
    ...more
  };
}

export const EXAMPLE = `# Title

A paragraph with \`code\`, *emphasis* and maths $x^2$.

1. one
2. two

   with more

| a | b |
|---|---|
| 1 | 2 |

\`\`\`python
def f():

    return 1
\`\`\`

> quoted
> [a link][ref]

$$
\\int x

dx
$$

Last words.

[ref]: https://example.org
`;
