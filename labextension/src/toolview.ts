/** One tool call as a row that unfolds: name, arguments as they stream, state, output, pictures, seconds; and its approval. */

import { button, make, printable, setText } from './dom';
import { didNotRun } from './folding';
import type { IHost } from './host';
import type { Decision, IQuestion } from './live';
import { colour } from './markdownview';
import { drawOutput, preformatted } from './outputs';
import type { IToolSegment } from './transcript';

const STATES: Record<string, { icon: string; label: string }> = {
  writing: { icon: '…', label: 'being written' },
  ready: { icon: '…', label: 'waiting' },
  asking: { icon: '?', label: 'waits for your approval' },
  running: { icon: '▸', label: 'running' },
  done: { icon: '✓', label: 'done' },
  failed: { icon: '✗', label: 'failed' },
  refused: { icon: '⊘', label: 'refused' },
  interrupted: { icon: '◼', label: 'interrupted' },
  cut: { icon: '◼', label: 'cut off' }
};

/** What the kernel puts in a secret's place. */
const MASK = '•••';

/** A decision that has not taken effect after this time was lost on the way, e.g. with the connection: it can be made again. */
const ASK_AGAIN_MS = 5000;

export class ToolView {
  readonly node = make('details', 'llm-Tool');
  private _summary: HTMLElement;
  private _icon = make('span', 'llm-Tool-icon', { 'aria-hidden': 'true' });
  private _name = make('span', 'llm-Tool-name');
  private _brief = make('span', 'llm-Tool-brief');
  private _state = make('span', 'llm-Tool-state');
  private _body = make('div', 'llm-Tool-body');
  private _parts = new Map<string, { value: unknown; node: HTMLElement }>();
  private _asked = '';
  private _began: number | null = null;
  private _segment: IToolSegment | null = null;

  constructor(private readonly _host: IHost) {
    this._summary = make('summary', '', {}, this._icon, this._name, this._brief, this._state);
    this.node.append(this._summary, this._body);
  }

  /** Show the call; `question` is there while a decision on it can be made in this page. */
  update(segment: IToolSegment, turn: string, question: IQuestion | null): void {
    this._segment = segment;
    this.node.dataset.state = segment.state;
    setText(this._icon, STATES[segment.state]?.icon ?? '');
    setText(this._name, printable(segment.name) || '(unnamed tool)');
    setText(this._brief, brief(segment.arguments));
    this.tick();
    this._part('arguments', segment.arguments, () =>
      labelled('Arguments', preformatted(pretty(segment.arguments)))
    );
    this._part('recovered', segment.recovered, () => remark(`Recovered call: ${segment.recovered}`));
    this._part('source', segment.source, () => this._code('What ran', segment.source));
    const asks = segment.state === 'asking' && segment.ask ? segment.ask : null;
    this._parts.get('arguments')?.node.toggleAttribute('hidden', asks !== null); // they stand in what would run
    const open = asks && question;
    this._part('ask', asks && (open?.id || 'saved'), () =>
      open ? this._approval(open, turn) : this._waiting(asks!)
    );
    this._part('printed', segment.printed, () => labelled('Printed', preformatted(segment.printed)));
    segment.outputs.forEach((output, at) =>
      this._part(`output ${at}`, JSON.stringify(output), () => drawOutput(output, this._host))
    );
    this._part('result', segment.result, () => modelRead(segment.result ?? '', segment.is_error));
    this._part('warnings', segment.warnings.join('\n'), () => remark(segment.warnings.join('\n')));
    this._unfoldOnce(segment, asks !== null, open?.id ?? '');
  }

  /** Bring the seconds up to date; called every second while the turn runs. */
  tick(): void {
    const segment = this._segment!;
    const running = segment.state === 'running';
    this._began = running ? (this._began ?? performance.now()) : null;
    const seconds = this._began === null ? segment.seconds : (performance.now() - this._began) / 1000;
    const label = labelOf(segment);
    setText(
      this._state,
      seconds > 0 ? `${label} · ${seconds.toFixed(seconds < 10 && !running ? 2 : 0)} s` : label
    );
  }

  /** What needs or deserves the reader's eye opens by itself, once: a question, a picture. */
  private _unfoldOnce(segment: IToolSegment, asking: boolean, question: string): void {
    const showing = segment.outputs.length > 0 && this._host.look.openPictures;
    const reason = asking ? `ask ${question}` : showing ? 'outputs' : '';
    if (reason && reason !== this._asked) {
      this._asked = reason;
      this.node.open = true;
    }
  }

  /** Keep the part `name` in step with `value`: drawn where it is new, replaced where it changed, gone where it is empty. */
  private _part(name: string, value: unknown, draw: () => HTMLElement): void {
    const old = this._parts.get(name);
    if (old?.value === value) {
      return;
    }
    if (!value) {
      old?.node.remove();
      this._parts.delete(name);
      return;
    }
    const node = draw();
    if (old) {
      old.node.replaceWith(node);
    } else {
      this._body.append(node);
    }
    this._parts.set(name, { value, node });
  }

  private _code(label: string, source: string): HTMLElement {
    const text = printable(source);
    const code = make('code', '', {}, text);
    void colour(this._host, { text, language: 'python' }, code);
    return labelled(
      label,
      make('pre', 'llm-Pre', { tabindex: '0', role: 'region', 'aria-label': label }, code)
    );
  }

  /** The question as the kernel asks it: what would run is shown as it is, and the buttons decide on that. */
  private _approval(question: IQuestion, turn: string): HTMLElement {
    const node = this._question(question.reason, 'What would run', question.shown);
    const decide = (decision: Decision) => {
      const enable = (enabled: boolean) =>
        node.querySelectorAll('button').forEach(b => (b.disabled = !enabled));
      this._summary.focus(); // the buttons go: whoever came by keyboard stays here
      enable(false);
      window.setTimeout(() => enable(true), ASK_AGAIN_MS);
      this._host.decide(turn, question, decision);
    };
    node.append(
      button('Approve', 'Approve this call', () => decide('approve')),
      button('Deny', 'Deny this call', () => decide('deny')),
      button('Always for this turn', 'Approve this tool for the rest of the turn', () => decide('always'))
    );
    return node;
  }

  /** A question that is asked elsewhere, or was open when the notebook was saved: the masked form is all there is. */
  private _waiting(ask: { shown: string; reason: string }): HTMLElement {
    const masked = ask.shown.includes(MASK) ? ', with what looks like a secret masked' : '';
    return this._question(ask.reason, `What would run${masked}`, ask.shown);
  }

  private _question(reason: string, label: string, shown: string): HTMLElement {
    const node = make('div', 'llm-Approval', { role: 'group', 'aria-label': 'approval' });
    node.append(make('p', '', {}, printable(reason) || 'May this run?'), this._code(label, shown));
    return node;
  }
}

function labelOf(segment: IToolSegment): string {
  if (segment.state === 'refused' && (segment.ask || didNotRun(segment))) {
    return segment.ask ? 'not approved' : 'not run';
  }
  return STATES[segment.state]?.label ?? segment.state;
}

/** e.g. `city: Oslo, days: 3` of `{"city": "Oslo", "days": 3}`; what is not yet JSON is shown as it stands. */
export function brief(text: string): string {
  const value = parsed(text);
  const shown =
    value && typeof value === 'object' && !Array.isArray(value)
      ? Object.entries(value)
          .map(([key, item]) => `${key}: ${typeof item === 'string' ? item : JSON.stringify(item)}`)
          .join(', ')
      : text;
  return printable(shown.length > 80 ? shown.slice(0, 79) + '…' : shown);
}

function pretty(text: string): string {
  const value = parsed(text);
  return value === undefined ? text : JSON.stringify(value, null, 2);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // still being written, or wrong: shown as it is
  }
}

function labelled(label: string, node: HTMLElement): HTMLElement {
  return make('div', 'llm-Part', {}, make('div', 'llm-Part-label', {}, label), node);
}

function remark(text: string): HTMLElement {
  return make('div', 'llm-Notice', { 'data-level': 'warning' }, printable(text));
}

function modelRead(text: string, isError: boolean): HTMLElement {
  const node = make(
    'details',
    'llm-Result',
    {},
    make('summary', '', {}, 'What the model read'),
    preformatted(text)
  );
  node.open = isError;
  return node;
}
