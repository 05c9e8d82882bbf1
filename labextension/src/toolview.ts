/** One tool call as a row that unfolds: name, arguments as they stream, state, output, pictures, seconds; and its approval. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { button, make, printable, setText } from './dom';
import { didNotRun } from './folding';
import type { IHost } from './host';
import type { Decision, IQuestion } from './live';
import { colour } from './markdownview';
import { drawOutput, preformatted } from './outputs';
import type { IToolSegment } from './transcript';

const ICONS: Record<string, string> = {
  writing: '…',
  ready: '…',
  asking: '?',
  running: '▸',
  done: '✓',
  failed: '✗',
  refused: '⊘',
  interrupted: '◼',
  cut: '◼'
};

/** What the kernel puts in a secret's place. */
const MASK = '•••';

/** In the result of a call that needed a yes where there was no person, as `llm_magics/tools/results.py` has it. */
const NOBODY_ASKED = 'nobody could be asked';

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
    const { trans } = this._host;
    this._segment = segment;
    this.node.dataset.state = segment.state;
    setText(this._icon, ICONS[segment.state] ?? '');
    setText(this._name, printable(segment.name) || trans.__('(unnamed tool)'));
    setText(this._brief, brief(segment.arguments));
    this.tick();
    this._part('arguments', segment.arguments, () =>
      labelled(trans.__('Arguments'), preformatted(pretty(segment.arguments), trans))
    );
    this._part('recovered', segment.recovered, () =>
      make('div', 'llm-Quiet', {}, printable(trans.__('Read from %1', segment.recovered)))
    );
    this._part('source', segment.source, () => this._code(trans.__('What ran'), segment.source));
    const asks = segment.state === 'asking' && segment.ask ? segment.ask : null;
    this._parts.get('arguments')?.node.toggleAttribute('hidden', asks !== null); // they stand in what would run
    const open = asks && question;
    this._part('ask', asks && (open?.id || 'saved'), () =>
      open ? this._approval(open, turn) : this._waiting(asks!)
    );
    this._part('printed', segment.printed, () =>
      labelled(trans.__('Printed'), preformatted(segment.printed, trans))
    );
    segment.outputs.forEach((output, at) =>
      this._part(`output ${at}`, JSON.stringify(output), () => drawOutput(output, this._host))
    );
    this._part('result', segment.result, () => modelRead(segment.result ?? '', segment.is_error, trans));
    this._part('warnings', segment.warnings.join('\n'), () => remark(segment.warnings.join('\n')));
    this._unfoldOnce(segment, asks !== null, open?.id ?? '');
  }

  /** Bring the seconds up to date; called every second while the turn runs. */
  tick(): void {
    const { trans } = this._host;
    const segment = this._segment!;
    const running = segment.state === 'running';
    this._began = running ? (this._began ?? performance.now()) : null;
    const seconds = this._began === null ? segment.seconds : (performance.now() - this._began) / 1000;
    const label = labelOf(segment, trans);
    const took = seconds.toFixed(seconds < 10 && !running ? 2 : 0);
    setText(this._state, seconds > 0 ? `${label} · ${trans.__('%1 s', took)}` : label);
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
      make('pre', 'llm-Pre', { tabindex: '0', role: 'group', 'aria-label': label }, code)
    );
  }

  /** The question as the kernel asks it: what would run is shown as it is, and the buttons decide on that. */
  private _approval(question: IQuestion, turn: string): HTMLElement {
    const { trans } = this._host;
    const node = this._question(question.reason, trans.__('What would run'), question.shown);
    const decide = (decision: Decision) => {
      const enable = (enabled: boolean) =>
        node.querySelectorAll('button').forEach(b => (b.disabled = !enabled));
      this._summary.focus(); // the buttons go: whoever came by keyboard stays here
      enable(false);
      window.setTimeout(() => enable(true), ASK_AGAIN_MS);
      this._host.decide(turn, question, decision);
    };
    node.append(
      primary(button(trans.__('Approve'), trans.__('Approve this call'), () => decide('approve'))),
      button(trans.__('Deny'), trans.__('Deny this call'), () => decide('deny')),
      button(trans.__('Always for this turn'), trans.__('Approve this tool for the rest of the turn'), () =>
        decide('always')
      )
    );
    return node;
  }

  /** A question that is asked elsewhere, or was open when the notebook was saved: the masked form is all there is. */
  private _waiting(ask: { shown: string; reason: string }): HTMLElement {
    const { trans } = this._host;
    const label = ask.shown.includes(MASK)
      ? trans.__('What would run, with what looks like a secret masked')
      : trans.__('What would run');
    return this._question(ask.reason, label, ask.shown);
  }

  private _question(reason: string, label: string, shown: string): HTMLElement {
    const { trans } = this._host;
    const node = make('div', 'llm-Approval', { role: 'group', 'aria-label': trans.__('approval') });
    node.append(make('p', '', {}, printable(reason) || trans.__('May this run?')), this._code(label, shown));
    return node;
  }
}

/** Mark the button that most people will want. */
function primary(node: HTMLButtonElement): HTMLButtonElement {
  node.classList.add('llm-mod-primary');
  return node;
}

function labelOf(segment: IToolSegment, trans: TranslationBundle): string {
  switch (segment.state) {
    case 'writing':
      return trans.__('being written');
    case 'ready':
      return trans.__('waiting');
    case 'asking':
      return trans.__('waits for your approval');
    case 'running':
      return trans.__('running');
    case 'done':
      return trans.__('done');
    case 'failed':
      return trans.__('failed');
    case 'refused':
      if (segment.ask) {
        const alone = segment.result?.includes(NOBODY_ASKED);
        return alone ? trans.__('nobody could be asked') : trans.__('denied by you');
      }
      return didNotRun(segment) ? trans.__('not run') : trans.__('refused');
    case 'interrupted':
      return trans.__('interrupted');
    case 'cut':
      return trans.__('cut off');
    default:
      return segment.state;
  }
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

function modelRead(text: string, isError: boolean, trans: TranslationBundle): HTMLElement {
  const node = make(
    'details',
    'llm-Result',
    {},
    make('summary', '', {}, trans.__('What the model read')),
    preformatted(text, trans)
  );
  node.open = isError;
  return node;
}
