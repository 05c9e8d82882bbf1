/** The corrected cell that an answer holds, and how it differs from the cell as it stands. */

import { diffArrays, diffLines, diffWordsWithSpace } from 'diff';
import { codeBlocks } from './markdown';

/** A piece of a line; `changed` is what differs from the line that it replaces. */
export interface IPiece {
  text: string;
  changed: boolean;
}

export interface IRow {
  kind: 'same' | 'removed' | 'added';
  /** The line's number in the cell as it stands, or as it would be. */
  number: number;
  pieces: IPiece[];
}

/** The languages under which a model writes a cell's code; it often names none. */
const CODE = /^(|i?python3?|py|ipython|jupyter)$/i;

/**
 * The code that is to replace `source`, without its final line end; null if the answer holds none.
 *
 * Of several code blocks the one that shares the most lines with the cell is taken; one that is the cell itself is a quotation.
 */
export function proposedCode(answer: string, source: string): string | null {
  const found = codeBlocks(answer)
    .filter(({ language, text }) => CODE.test(language) && text.trim())
    .map(({ text }) => text.trimEnd());
  const changed = found.filter(code => code !== source.trimEnd());
  const candidates = changed.length ? changed : found;
  return candidates.reduce<string | null>(
    (best, code) => (best === null || likeness(code, source) > likeness(best, source) ? code : best),
    null
  );
}

/** The lines of both, in order; where as many lines come as go, the words that differ are told apart. */
export function difference(before: string, after: string): IRow[] {
  const rows: IRow[] = [];
  let [old, now] = [1, 1];
  const changes = diffLines(ended(before), ended(after));
  for (let at = 0; at < changes.length; at++) {
    const { added, removed, value } = changes[at];
    const lines = linesOf(value);
    const next = changes[at + 1];
    const replaced = removed && next?.added && linesOf(next.value).length === lines.length;
    const both = replaced ? lines.map((line, i) => words(line, linesOf(next.value)[i])) : null;
    if (removed) {
      lines.forEach((line, i) => rows.push(row('removed', old++, both ? both[i].before : whole(line))));
    } else if (!added) {
      lines.forEach(line => {
        rows.push(row('same', now++, whole(line)));
        old++;
      });
    } else {
      lines.forEach(line => rows.push(row('added', now++, whole(line))));
    }
    if (both) {
      both.forEach(({ after: pieces }) => rows.push(row('added', now++, pieces)));
      at++;
    }
  }
  return rows;
}

function row(kind: IRow['kind'], number: number, pieces: IPiece[]): IRow {
  return { kind, number, pieces };
}

/** How many lines the two have in common, of all that they have. */
function likeness(code: string, source: string): number {
  const changes = diffArrays(code.split('\n'), source.split('\n'));
  const count = (which: typeof changes) => which.reduce((sum, { value }) => sum + value.length, 0);
  return count(changes.filter(({ added, removed }) => !added && !removed)) / count(changes);
}

function words(before: string, after: string): { before: IPiece[]; after: IPiece[] } {
  const changes = diffWordsWithSpace(before, after);
  const pieces = (side: 'removed' | 'added') =>
    changes
      .filter(change => change[side] || !(change.added || change.removed))
      .map(change => ({ text: change.value, changed: change[side] === true }));
  const alike = changes.some(({ added, removed, value }) => !added && !removed && value.trim());
  return alike
    ? { before: pieces('removed'), after: pieces('added') }
    : { before: whole(before), after: whole(after) };
}

function whole(text: string): IPiece[] {
  return [{ text, changed: false }];
}

function ended(text: string): string {
  return text.endsWith('\n') || text === '' ? text : `${text}\n`;
}

function linesOf(value: string): string[] {
  const lines = value.split('\n');
  return lines[lines.length - 1] === '' ? lines.slice(0, -1) : lines;
}
