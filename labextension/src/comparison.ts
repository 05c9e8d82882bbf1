/** A change to a cell as a person reads it: what goes, what comes, and the two buttons. It is never applied by itself. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { button, make, printable } from './dom';
import { difference, type IRow } from './proposal';

/** Unchanged lines that are shown around a change; more of them fold. */
const AROUND = 3;

/** What became of a change. */
export type Verdict = 'accepted' | 'rejected' | '';

export interface IChange {
  /** The cell as it stands; null if it is gone. */
  source: string | null;
  /** What is to replace it; null if the answer holds no code. */
  proposed: string | null;
  /** Whether the answer came to its end by itself. */
  finished: boolean;
  verdict: Verdict;
}

export interface IDeciding {
  accept(): void;
  reject(): void;
  /** Show the change again after a verdict. */
  again(): void;
}

/** Draw the change, or one sentence on why there is none to draw. */
export function drawChange(change: IChange, deciding: IDeciding, trans: TranslationBundle): HTMLElement {
  const { source, proposed, verdict } = change;
  const node = make('div', 'llm-Change', { role: 'group', 'aria-label': trans.__('Change to the cell') });
  if (source === null) {
    node.append(said(trans.__('The cell that this answer is about is no longer in the notebook.')));
  } else if (verdict) {
    const changed = proposed !== null && proposed !== source.trimEnd();
    const accepted = changed
      ? trans.__('You accepted this change. The cell was changed since.')
      : trans.__('You accepted this change.');
    const what = verdict === 'accepted' ? accepted : trans.__('You rejected this change.');
    const again = button(trans.__('Compare again'), trans.__('Compare this answer with the cell again'), () =>
      deciding.again()
    );
    node.append(bar(said(what), again));
  } else if (proposed === null) {
    node.append(said(trans.__('The answer holds no code block, so there is no change to show.')));
  } else if (proposed === source.trimEnd()) {
    node.append(said(trans.__('The answer repeats the cell as it is, so there is no change to show.')));
  } else {
    drawDifference(node, difference(source.trimEnd(), proposed), change.finished, deciding, trans);
  }
  return node;
}

function drawDifference(
  node: HTMLElement,
  rows: IRow[],
  finished: boolean,
  deciding: IDeciding,
  trans: TranslationBundle
): void {
  const count = (kind: IRow['kind']) => rows.filter(row => row.kind === kind).length;
  const [added, removed] = [count('added'), count('removed')];
  const title = make('span', 'llm-Change-title', {}, trans.__('Change to the cell'));
  const counts = [
    added ? trans._n('%1 line added', '%1 lines added', added) : '',
    removed ? trans._n('%1 line removed', '%1 lines removed', removed) : ''
  ];
  title.append(make('span', 'llm-Change-counts', {}, counts.filter(Boolean).join(', ')));
  const accept = button(trans.__('Accept'), trans.__('Accept this change: it replaces the cell'), () =>
    deciding.accept()
  );
  accept.classList.add('llm-mod-primary');
  const reject = button(trans.__('Reject'), trans.__('Reject this change: the cell stays as it is'), () =>
    deciding.reject()
  );
  node.append(bar(title, accept, reject));
  if (!finished) {
    node.append(said(trans.__('The answer was cut off, so the end of the cell may be missing.'), 'warning'));
  }
  const lines = make('div', 'llm-Diff', {
    tabindex: '0',
    role: 'group',
    'aria-label': trans.__('difference')
  });
  stretches(rows).forEach(stretch => {
    const drawn = stretch.rows.map(row => drawRow(row, trans));
    const n = drawn.length;
    const summary = () => trans._n('%1 unchanged line', '%1 unchanged lines', n);
    lines.append(
      ...(stretch.folds ? [make('details', '', {}, make('summary', '', {}, summary()), ...drawn)] : drawn)
    );
  });
  node.append(lines);
}

/** Lines far from any change are a stretch that folds. */
function stretches(rows: IRow[]): { folds: boolean; rows: IRow[] }[] {
  const near = rows.map((_, at) =>
    rows.slice(Math.max(at - AROUND, 0), at + AROUND + 1).some(({ kind }) => kind !== 'same')
  );
  const found: { folds: boolean; rows: IRow[] }[] = [];
  rows.forEach((row, at) => {
    const last = found[found.length - 1];
    if (last && last.folds === !near[at]) {
      last.rows.push(row);
    } else {
      found.push({ folds: !near[at], rows: [row] });
    }
  });
  return found;
}

function drawRow({ kind, number, pieces }: IRow, trans: TranslationBundle): HTMLElement {
  const sign = { same: ' ', removed: '−', added: '+' }[kind];
  const spoken = { same: '', removed: trans.__('removed:'), added: trans.__('added:') }[kind];
  const code = make('code');
  for (const { text, changed } of pieces) {
    code.append(changed ? make('mark', '', {}, printable(text)) : printable(text));
  }
  const node = make('div', 'llm-Diff-line', { 'data-kind': kind });
  node.append(
    make('span', 'llm-Diff-number', { 'aria-hidden': 'true' }, String(number)),
    make('span', 'llm-Diff-sign', { 'aria-hidden': 'true' }, sign),
    ...(spoken ? [make('span', 'llm-Spoken', {}, spoken)] : []),
    code
  );
  return node;
}

function bar(...children: HTMLElement[]): HTMLElement {
  return make('div', 'llm-Change-bar', {}, ...children);
}

function said(text: string, level = 'info'): HTMLElement {
  return make('div', 'llm-Notice', { 'data-level': level, role: 'status' }, text);
}
