/** Calls that did not run, folded into one quiet row, as `llm_magics/views/folding.py` does it. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { IToolSegment, Segment } from './transcript';

/** Neighbouring calls that did not run; `repeated` says that each had been made before in the turn. */
export interface INotRun {
  type: 'not run';
  calls: IToolSegment[];
  repeated: boolean;
}

export type Item = Segment | INotRun;

/** The segments in order, with neighbouring calls that did not run as one item; blank text between them goes with them. */
export function folded(segments: Segment[]): Item[] {
  const items: Item[] = [];
  const made = new Set<string>();
  let blank: Segment[] = [];
  for (const segment of segments) {
    const last = items[items.length - 1];
    if (last?.type === 'not run' && segment.type === 'text' && !segment.text.trim()) {
      blank.push(segment);
      continue;
    }
    if (segment.type === 'tool' && didNotRun(segment)) {
      const repeated = made.has(keyOf(segment));
      if (last?.type === 'not run') {
        last.calls.push(segment);
        last.repeated &&= repeated;
      } else {
        items.push({ type: 'not run', calls: [segment], repeated });
      }
    } else {
      items.push(...blank, segment);
    }
    blank = [];
    if (segment.type === 'tool') {
      made.add(keyOf(segment));
    }
  }
  return [...items, ...blank];
}

/** Whether nobody objected to the call, and it did not run all the same. */
export function didNotRun(segment: IToolSegment): boolean {
  return segment.state === 'refused' && !segment.is_error;
}

/** e.g. `4 repeated calls, not run` */
export function notRunLine({ calls, repeated }: INotRun, trans: TranslationBundle): string {
  return repeated
    ? trans._n('%1 repeated call, not run', '%1 repeated calls, not run', calls.length)
    : trans._n('%1 call, not run', '%1 calls, not run', calls.length);
}

/** Name and arguments, the same whatever the spacing and order of the arguments. */
function keyOf(segment: IToolSegment): string {
  let given: unknown = segment.arguments;
  try {
    given = sorted(JSON.parse(segment.arguments || '{}'));
  } catch {
    // no JSON: compared as it is
  }
  return JSON.stringify([segment.name, given]);
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.map(sorted);
  }
  if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    return entries.map(([key, item]) => [key, sorted(item)]);
  }
  return value;
}
